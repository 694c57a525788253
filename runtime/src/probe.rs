//! What this machine must have for containers, and whether it has it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cgroups::Layout;

/// One thing that containers need of the machine.
#[derive(Debug)]
pub struct Probe {
    /// Its name.
    pub feature: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Why it is not there, and what to do.
    pub available: Result<(), String>,
}

/// Looks for each.
#[must_use]
pub fn probe() -> Vec<Probe> {
    let mut probes = vec![
        Probe {
            feature: "root",
            purpose: "making namespaces, mounts and cgroups",
            available: root(),
        },
        Probe {
            feature: "overlayfs",
            purpose: "the layers of images",
            available: filesystem("overlay"),
        },
        Probe {
            feature: "seccomp filters",
            purpose: "refusing system calls that containers do not need",
            available: seccomp(),
        },
        Probe {
            feature: "pidfd",
            purpose: "never signalling a process that took over a number",
            available: pidfd(),
        },
        Probe {
            feature: "cgroups",
            purpose: "limits, and finding a container's processes",
            available: cgroups(),
        },
    ];
    const NAMESPACES: [(&str, &str, &str); 6] = [
        ("pid", "PID namespaces", "processes of their own"),
        ("mnt", "mount namespaces", "a root file system of their own"),
        ("uts", "UTS namespaces", "a host name of their own"),
        ("ipc", "IPC namespaces", "shared memory of their own"),
        ("net", "network namespaces", "addresses of their own"),
        ("cgroup", "cgroup namespaces", "hiding the host's cgroups"),
    ];
    probes.extend(NAMESPACES.map(|(file, feature, purpose)| Probe {
        feature,
        purpose,
        available: namespace(file),
    }));
    const CONTROLLERS: [(&str, &str, &str); 3] = [
        ("memory", "memory controller", "--memory"),
        ("cpu", "cpu controller", "--cpus and --cpu-shares"),
        ("pids", "pids controller", "--pids-limit"),
    ];
    let layout = Layout::detect();
    probes.extend(CONTROLLERS.map(|(name, feature, purpose)| Probe {
        feature,
        purpose,
        available: controller(&layout, name),
    }));
    probes.push(Probe {
        feature: "device control",
        purpose: "keeping containers from the host's disks",
        available: devices(&layout),
    });
    probes
}

fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("not root: use sudo".into())
    }
}

fn filesystem(name: &str) -> Result<(), String> {
    let known = fs::read_to_string("/proc/filesystems")
        .map_err(|error| format!("read /proc/filesystems: {error}"))?;
    if known
        .lines()
        .any(|line| line.ends_with(&format!("\t{name}")))
    {
        Ok(())
    } else {
        Err(format!(
            "the kernel does not know {name}: try `modprobe {name}`"
        ))
    }
}

fn seccomp() -> Result<(), String> {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.contains("errno") {
        Ok(())
    } else {
        Err("the kernel is built without CONFIG_SECCOMP_FILTER".into())
    }
}

fn pidfd() -> Result<(), String> {
    pidfd_open(getpid(), PidfdFlags::empty())
        .map(drop)
        .map_err(|errno| format!("pidfd_open: {errno}; Linux 5.3 or newer has it"))
}

fn namespace(name: &str) -> Result<(), String> {
    let path = Path::new("/proc/self/ns").join(name);
    path.symlink_metadata().map(drop).map_err(|error| {
        format!(
            "{}: {error}; the kernel is built without it",
            path.display()
        )
    })
}

fn cgroups() -> Result<(), String> {
    match Layout::detect() {
        Layout::Unified | Layout::V1 { .. } => Ok(()),
        Layout::Absent if ancestors().any(|pid| has_cgroups(&format!("/proc/{pid}/mounts"))) => {
            Err(
                "/sys/fs/cgroup is hidden in this mount namespace, as under \
             `ip netns exec`, which mounts /sys anew: use `nsenter --net=/run/netns/NAME` instead"
                    .into(),
            )
        }
        Layout::Absent => Err(
            "nothing is mounted at /sys/fs/cgroup: try `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
                .into(),
        ),
    }
}

fn controller(layout: &Layout, name: &str) -> Result<(), String> {
    match layout {
        Layout::Absent => Err("there are no cgroups".into()),
        Layout::V1 { hierarchies, .. } => {
            let found = hierarchies
                .iter()
                .filter_map(|path| path.file_name()?.to_str())
                .any(|mounted| mounted.split(',').any(|one| one == name));
            if found {
                Ok(())
            } else {
                Err(format!(
                    "no cgroup v1 hierarchy has it: try `mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}`"
                ))
            }
        }
        Layout::Unified => {
            let file = "/sys/fs/cgroup/cgroup.controllers";
            let known =
                fs::read_to_string(file).map_err(|error| format!("read {file}: {error}"))?;
            if known.split_ascii_whitespace().any(|one| one == name) {
                Ok(())
            } else {
                Err(format!(
                    "{file} does not list it: is it taken by cgroup v1, or disabled on the kernel's command line?"
                ))
            }
        }
    }
}

fn devices(layout: &Layout) -> Result<(), String> {
    match layout {
        Layout::V1 { .. } => controller(layout, "devices"),
        Layout::Unified => {
            Err("not done on pure cgroup2 yet, so containers go without CAP_MKNOD there".into())
        }
        Layout::Absent => Err("there are no cgroups".into()),
    }
}

/// Moves this process into the mount namespace of its nearest ancestor that sees cgroups, if it sees none itself, as
/// is so under `ip netns exec`. To be called before there is any thread. Returns whether it moved.
///
/// # Errors
///
/// What the kernel says when it refuses.
pub fn enter_init_mounts() -> io::Result<bool> {
    if Layout::detect() != Layout::Absent {
        return Ok(false);
    }
    let Some(ancestor) = ancestors().find(|pid| has_cgroups(&format!("/proc/{pid}/mounts"))) else {
        return Ok(false);
    };
    let directory = std::env::current_dir()?;
    let namespace = fs::File::open(format!("/proc/{ancestor}/ns/mnt"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    // entering leaves one at the root
    std::env::set_current_dir(directory)?;
    Ok(true)
}

/// Parent, grandparent and so on, to pid 1.
fn ancestors() -> impl Iterator<Item = i32> {
    let parent = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let parent = after_name.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (parent > 0).then_some(parent)
    };
    std::iter::successors(parent(&getpid().as_raw_nonzero().get()), parent)
}

fn has_cgroups(mounts: &str) -> bool {
    fs::read_to_string(mounts).is_ok_and(|mounts| {
        mounts
            .lines()
            .any(|line| line.contains(" /sys/fs/cgroup") && line.contains(" cgroup"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_says_what_for() {
        for probe in probe() {
            assert!(!probe.purpose.is_empty());
            if let Err(hint) = probe.available {
                assert!(!hint.is_empty(), "{}", probe.feature);
            }
        }
    }

    #[test]
    fn an_unknown_file_system_names_the_module() {
        assert_eq!(
            filesystem("nosuchfs"),
            Err("the kernel does not know nosuchfs: try `modprobe nosuchfs`".into())
        );
    }
}
