//! What Docker gives every container.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::cgroups::Layout;

pub(super) const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

pub(super) const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// `(type, major, minor, access)` with `None` for any: all may be made, these may be used.
const DEVICES: [(&str, Option<i64>, Option<i64>, &str); 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"), // null
    ("c", Some(1), Some(5), "rwm"), // zero
    ("c", Some(1), Some(7), "rwm"), // full
    ("c", Some(1), Some(8), "rwm"), // random
    ("c", Some(1), Some(9), "rwm"), // urandom
    ("c", Some(5), Some(0), "rwm"), // tty
    ("c", Some(5), Some(1), "rwm"), // console
    ("c", Some(5), Some(2), "rwm"), // ptmx
    ("c", Some(136), None, "rwm"),  // pts
];

pub(super) fn device_rules(privileged: bool) -> Vec<Value> {
    if privileged {
        return vec![json!({ "allow": true, "type": "a", "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "type": "a", "access": "rwm" })];
    rules.extend(DEVICES.iter().map(|(kind, major, minor, access)| {
        let mut rule = json!({ "allow": true, "type": kind, "access": access });
        if let Some(major) = major {
            rule["major"] = (*major).into();
        }
        if let Some(minor) = minor {
            rule["minor"] = (*minor).into();
        }
        rule
    }));
    rules
}

/// Every device node of the host, for a privileged container.
pub(super) fn host_devices() -> Vec<Value> {
    let mut devices = Vec::new();
    let mut directories = vec![Path::new("/dev").to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let kind = metadata.file_type();
            let skipped = [
                "/dev/pts",
                "/dev/shm",
                "/dev/mqueue",
                "/dev/console",
                "/dev/ptmx",
                "/dev/fd",
            ];
            if skipped.iter().any(|skip| path == Path::new(skip)) {
                continue;
            }
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_char_device() || kind.is_block_device() {
                let device = metadata.rdev();
                devices.push(json!({
                    "path": path,
                    "type": if kind.is_char_device() { "c" } else { "b" },
                    "major": rustix::fs::major(device),
                    "minor": rustix::fs::minor(device),
                    "fileMode": metadata.mode() & 0o777,
                    "uid": metadata.uid(),
                    "gid": metadata.gid(),
                }));
            }
        }
    }
    devices
}

pub(super) fn mounts(cgroup: &Path, privileged: bool, shm: u64) -> Vec<Value> {
    let shm = format!("size={shm}");
    let sys = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        entry(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", sys],
        ),
    ];
    mounts.extend(cgroup_mounts(&Layout::detect(), cgroup, sys));
    mounts.push(entry(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ));
    mounts.push(entry(
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", &shm],
    ));
    mounts
}

/// The container's own groups at `/sys/fs/cgroup`, so that programs see their limits.
///
/// On v1 libcontainer mounts each hierarchy writable whatever it is told, by which a container lifts its limits: the
/// groups are bound from the host instead, where `ro` is heeded.
fn cgroup_mounts(layout: &Layout, cgroup: &Path, access: &str) -> Vec<Value> {
    const SAFE: [&str; 3] = ["nosuid", "noexec", "nodev"];
    match layout {
        Layout::Absent => Vec::new(),
        Layout::Unified => vec![entry(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[SAFE[0], SAFE[1], SAFE[2], access],
        )],
        Layout::V1 { hierarchies, .. } => {
            let mut mounts = vec![entry(
                "/sys/fs/cgroup",
                "tmpfs",
                "tmpfs",
                &[SAFE[0], SAFE[1], SAFE[2], "mode=755", "size=64k"],
            )];
            let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
            // libcontainer makes groups in the hierarchies of controllers only, not in named ones such as systemd's
            for hierarchy in hierarchies
                .iter()
                .filter(|path| path.join("cgroup.procs").exists() && !path.ends_with("systemd"))
            {
                let source = hierarchy.join(relative);
                let options = ["bind", SAFE[0], SAFE[1], SAFE[2], access];
                mounts.push(entry(
                    &hierarchy.to_string_lossy(),
                    "bind",
                    &source.to_string_lossy(),
                    &options,
                ));
            }
            mounts
        }
    }
}

fn entry(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}
