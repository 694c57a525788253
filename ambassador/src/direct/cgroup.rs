//! The directories of cgroup2.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::DirectError;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: i64 = 0x6367_7270;

/// Opens a cgroup's directory. Also returns its number, which the kernel uses as inode number.
pub(super) fn open(cgroup: &Path) -> Result<(File, u64), DirectError> {
    let failed = |source: io::Error| DirectError::Cgroup {
        cgroup: cgroup.to_owned(),
        source,
    };
    let directory = File::open(cgroup).map_err(failed)?;
    let filesystem = rustix::fs::fstatfs(&directory).map_err(|errno| failed(errno.into()))?;
    let metadata = directory.metadata().map_err(failed)?;
    // The type is a signed or an unsigned word, as the architecture will have it.
    #[allow(clippy::unnecessary_cast, reason = "not on every architecture")]
    if filesystem.f_type as i64 != CGROUP2 || !metadata.is_dir() {
        return Err(DirectError::NotCgroup2(cgroup.to_owned()));
    }
    Ok((directory, metadata.ino()))
}

/// The number of the cgroup at a path that was one of cgroup2 when it was opened; none if it is gone.
pub(super) fn number(cgroup: &Path) -> Option<u64> {
    cgroup.metadata().ok().map(|metadata| metadata.ino())
}

/// Where cgroup2 is mounted.
pub(super) fn mount() -> Result<PathBuf, DirectError> {
    let mounts = std::fs::read("/proc/self/mountinfo").map_err(DirectError::Mounts)?;
    mount_in(&String::from_utf8_lossy(&mounts)).ok_or(DirectError::NoCgroup2)
}

/// proc_pid_mountinfo(5): after six fields and any number of optional ones stands `-`, then the
/// type.
fn mount_in(mounts: &str) -> Option<PathBuf> {
    let of_cgroup2 = |line: &&str| {
        let kind = line.split_once(" - ").map(|(_, after)| after);
        kind.is_some_and(|kind| kind.starts_with("cgroup2 "))
    };
    let line = mounts.lines().find(of_cgroup2)?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_among_others() {
        let hybrid = "\
25 20 0:21 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory
26 20 0:22 / /sys/fs/cgroup/unified rw,nosuid shared:8 master:1 - cgroup2 cgroup2 rw
";
        let found = mount_in(hybrid);
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(
            mount_in("25 20 0:21 / /cgroup2 rw - cgroup cgroup2 rw\n"),
            None
        );
        assert_eq!(mount_in(""), None);
    }

    #[test]
    fn other_directories_are_refused() {
        let other = open(Path::new("/proc"));
        assert!(
            matches!(other, Err(DirectError::NotCgroup2(_))),
            "{other:?}"
        );
        let missing = open(Path::new("/no/such/cgroup"));
        assert!(
            matches!(missing, Err(DirectError::Cgroup { .. })),
            "{missing:?}"
        );
    }
}
