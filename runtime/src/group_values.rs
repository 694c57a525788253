//! Limits that libcontainer does not set, or sets in one layout of cgroups alone: of disks, and of processes that the
//! kernel schedules in real time. They are written once the container's groups are there.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroups::Layout;
use crate::spec::{Resources, Throttle, Throttled};

const RT_RUNTIME: &str = "cpu.rt_runtime_us";

/// A value for a file of a container's group.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct GroupValue {
    controller: String,
    /// Files, and what each would be told; the first that the kernel has is.
    choices: Vec<(String, String)>,
}

impl GroupValue {
    fn new<const N: usize>(controller: &str, choices: [(&str, String); N]) -> Self {
        let choices = choices.map(|(file, value)| (file.to_owned(), value));
        Self {
            controller: controller.to_owned(),
            choices: choices.into(),
        }
    }

    fn write(&self, layout: &Layout, cgroup: &Path) -> io::Result<()> {
        let group = layout.group(&self.controller, cgroup);
        let group = group.filter(|group| group.is_dir()).ok_or_else(|| {
            let text = format!("this machine has no cgroup controller {}", self.controller);
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        let there = |(file, _): &&(String, String)| group.join(file).exists();
        let Some((file, value)) = self.choices.iter().find(there) else {
            let files: Vec<&str> = self.choices.iter().map(|(file, _)| file.as_str()).collect();
            let text = format!("this kernel has no {}", files.join(" and no "));
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        if file == RT_RUNTIME {
            raise_parents(layout, &self.controller, cgroup)?;
        }
        put(&group.join(file), value)
    }
}

fn put(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| {
        let text = format!("write {value} to {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}

/// A group gets no more real time than those above it have, and a new one has none: they get what the machine has.
fn raise_parents(layout: &Layout, controller: &str, cgroup: &Path) -> io::Result<()> {
    let Some(root) = layout.group(controller, Path::new("/")) else {
        return Ok(());
    };
    let whole = fs::read_to_string(root.join(RT_RUNTIME))?;
    let mut above: Vec<&Path> = cgroup.ancestors().skip(1).collect();
    above.pop(); // the root itself
    for parent in above.into_iter().rev() {
        let Some(group) = layout.group(controller, parent) else {
            continue;
        };
        let file = group.join(RT_RUNTIME);
        if fs::read_to_string(&file)?.trim() == "0" {
            put(&file, whole.trim())?;
        }
    }
    Ok(())
}

/// Gives the groups of `cgroup` their values, in order.
///
/// # Errors
///
/// The first that was not taken, by its file; those before it are in force.
pub(crate) fn write(values: &[GroupValue], cgroup: &Path) -> io::Result<()> {
    let layout = Layout::detect();
    values
        .iter()
        .try_for_each(|value| value.write(&layout, cgroup))
}

/// Whether the kernel shares a busy disk out by weight, as far as can be told before a group is made.
pub fn weighs_disks() -> bool {
    let layout = Layout::detect();
    let Layout::V1 { .. } = layout else {
        return layout == Layout::Unified;
    };
    layout.group("blkio", Path::new("/")).is_some_and(|root| {
        ["blkio.weight", "blkio.bfq.io_service_bytes"]
            .iter()
            .any(|file| root.join(file).exists())
    })
}

/// Whether groups can be given real time: cgroup v1 alone has that, if the kernel was built for it.
pub fn schedules_real_time() -> bool {
    let layout = Layout::detect();
    matches!(layout, Layout::V1 { .. })
        && layout
            .group("cpu", Path::new("/"))
            .is_some_and(|root| root.join(RT_RUNTIME).exists())
}

/// What the groups are to be told of these limits.
///
/// # Errors
///
/// A disk that is not there or is none, and why.
pub(crate) fn of(limits: &Resources) -> Result<Vec<GroupValue>, (PathBuf, io::Error)> {
    let unified = Layout::detect() == Layout::Unified;
    let mut values: Vec<GroupValue> = limits
        .blkio_weight
        .map(|weight| self::weight(unified, weight))
        .into_iter()
        .collect();
    for (disk, weight) in &limits.blkio_weight_devices {
        values.push(disk_weight(unified, &number(disk)?, *weight));
    }
    for throttle in &limits.throttles {
        values.push(throttled(unified, &number(&throttle.disk)?, throttle));
    }
    for (file, time) in [
        ("cpu.rt_period_us", limits.cpu_rt_period),
        (RT_RUNTIME, limits.cpu_rt_runtime),
    ] {
        values.extend(time.map(|time| GroupValue::new("cpu", [(file, time.to_string())])));
    }
    Ok(values)
}

/// `MAJOR:MINOR` of a disk.
fn number(disk: &Path) -> Result<String, (PathBuf, io::Error)> {
    let found = fs::metadata(disk).map_err(|error| (disk.to_owned(), error))?;
    if !found.file_type().is_block_device() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no block device");
        return Err((disk.to_owned(), error));
    }
    let device = found.rdev();
    Ok(format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    ))
}

fn weight(unified: bool, weight: u16) -> GroupValue {
    let plain = weight.to_string();
    match unified {
        false => GroupValue::new(
            "blkio",
            [("blkio.weight", plain.clone()), ("blkio.bfq.weight", plain)],
        ),
        true => GroupValue::new(
            "io",
            [
                ("io.bfq.weight", plain),
                ("io.weight", of_v2(weight).to_string()),
            ],
        ),
    }
}

fn disk_weight(unified: bool, disk: &str, weight: u16) -> GroupValue {
    let line = format!("{disk} {weight}");
    match unified {
        false => GroupValue::new(
            "blkio",
            [
                ("blkio.weight_device", line.clone()),
                ("blkio.bfq.weight_device", line),
            ],
        ),
        true => GroupValue::new(
            "io",
            [
                ("io.bfq.weight", line),
                ("io.weight", format!("{disk} {}", of_v2(weight))),
            ],
        ),
    }
}

/// A weight of v1, from 10 to 1000, as one of v2, from 1 to 10000; as runc does.
fn of_v2(weight: u16) -> u32 {
    1 + u32::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

fn throttled(unified: bool, disk: &str, throttle: &Throttle) -> GroupValue {
    let rate = throttle.rate;
    let (v1, v2) = match throttle.what {
        Throttled::ReadBytes => ("blkio.throttle.read_bps_device", "rbps"),
        Throttled::WriteBytes => ("blkio.throttle.write_bps_device", "wbps"),
        Throttled::Reads => ("blkio.throttle.read_iops_device", "riops"),
        Throttled::Writes => ("blkio.throttle.write_iops_device", "wiops"),
    };
    match unified {
        false => GroupValue::new("blkio", [(v1, format!("{disk} {rate}"))]),
        true => GroupValue::new("io", [("io.max", format!("{disk} {v2}={rate}"))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(value: &GroupValue) -> Vec<String> {
        let choices = value.choices.iter();
        choices
            .map(|(file, value)| format!("{file}={value}"))
            .collect()
    }

    #[test]
    fn weights_are_those_of_the_layout() {
        assert_eq!(
            lines(&weight(false, 500)),
            ["blkio.weight=500", "blkio.bfq.weight=500"]
        );
        assert_eq!(
            lines(&weight(true, 500)),
            ["io.bfq.weight=500", "io.weight=4950"]
        );
        assert_eq!(
            lines(&disk_weight(true, "8:0", 1000)),
            ["io.bfq.weight=8:0 1000", "io.weight=8:0 10000"]
        );
        assert_eq!((of_v2(10), of_v2(1000), of_v2(0)), (1, 10_000, 1));
    }

    #[test]
    fn rates_are_those_of_the_layout() {
        let throttle = Throttle {
            disk: "/dev/vda".into(),
            what: Throttled::WriteBytes,
            rate: 1 << 20,
        };
        assert_eq!(
            lines(&throttled(false, "254:0", &throttle)),
            ["blkio.throttle.write_bps_device=254:0 1048576"]
        );
        assert_eq!(
            lines(&throttled(true, "254:0", &throttle)),
            ["io.max=254:0 wbps=1048576"]
        );
    }

    #[test]
    fn a_disk_is_a_block_device() {
        let (path, error) = number(Path::new("/dev/null")).expect_err("a character device");
        assert_eq!(path, Path::new("/dev/null"));
        assert_eq!(error.to_string(), "it is no block device");
        assert!(number(Path::new("/dev/nosuch")).is_err());
    }
}
