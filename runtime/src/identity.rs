//! Whom a process runs as, looked up in the container's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Ids, supplementary groups and home directory of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Why a user could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The name stands nowhere.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The name stands nowhere.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The file is there but cannot be read.
    #[error("read {file} of the root file system {rootfs}")]
    Read {
        /// `etc/passwd` or `etc/group`.
        file: &'static str,
        /// The root file system.
        rootfs: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// More than this is no user database, and is not read.
const LARGEST: u64 = 4 << 20;

/// Looks `user` up, written as Docker writes it: `""`, `name`, `uid`, `name:group`, `uid:gid`.
/// The numbers of `user`, which is written as in [`crate::ContainerSpec::user`], by the files in `rootfs`.
///
/// # Errors
///
/// See [`IdentityError`].
pub fn owner_of(rootfs: &Path, user: &str) -> Result<(u32, u32), IdentityError> {
    resolve(rootfs, user).map(|identity| (identity.uid, identity.gid))
}

pub(crate) fn resolve(rootfs: &Path, user: &str) -> Result<Identity, IdentityError> {
    find(
        user,
        &read(rootfs, "etc/passwd")?,
        &read(rootfs, "etc/group")?,
    )
}

/// Looks further groups up, each a name or a number.
pub(crate) fn groups(rootfs: &Path, wanted: &[String]) -> Result<Vec<u32>, IdentityError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let file = read(rootfs, "etc/group")?;
    wanted.iter().map(|name| group(name, &file)).collect()
}

fn group(name: &str, file: &str) -> Result<u32, IdentityError> {
    rows(file)
        .find(|row| row[0] == name)
        .and_then(|row| row.get(2)?.parse().ok())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| IdentityError::NoGroup(name.into()))
}

pub(crate) fn find(user: &str, passwd: &str, group: &str) -> Result<Identity, IdentityError> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    // Docker: a name that is found wins over the same digits as an id
    let entry = rows(passwd)
        .find(|row| row[0] == name)
        .or_else(|| rows(passwd).find(|row| row.get(2) == Some(&name)));
    let field = |index: usize| entry.as_ref().and_then(|row| row.get(index).copied());
    let found = field(2).and_then(|uid| uid.parse().ok());
    let uid = found
        .or_else(|| name.parse().ok())
        .ok_or_else(|| IdentityError::NoUser(name.into()))?;
    let mut identity = Identity {
        uid,
        gid: field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        groups: Vec::new(),
        home: field(5)
            .filter(|home| !home.is_empty())
            .unwrap_or("/")
            .into(),
    };
    if group_name.is_empty() {
        let login = field(0).unwrap_or(name);
        identity.groups = rows(group)
            .filter(|row| {
                row.get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == login))
            })
            .filter_map(|row| row.get(2)?.parse().ok())
            .collect();
    } else {
        identity.gid = self::group(group_name, group)?;
    }
    Ok(identity)
}

fn rows(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

/// An absent file reads as empty. A symbolic link cannot lead out of the root.
fn read(rootfs: &Path, file: &'static str) -> Result<String, IdentityError> {
    let failed = |source| IdentityError::Read {
        file,
        rootfs: rootfs.display().to_string(),
        source,
    };
    let opened =
        rustix::fs::open(rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).and_then(|root| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            rustix::fs::openat2(root, file, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        });
    let fd = match opened {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    let mut bytes = Vec::new();
    File::from(fd)
        .take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/var/lib/redis:/bin/false\n1000:x:7:7::/seven:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,redis\nredis:x:998:\nlog:x:4:redis\n";

    fn identity(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = find(user, PASSWD, GROUP).expect("found");
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn names_ids_and_groups() {
        assert_eq!(identity(""), (0, 0, vec![10], "/root".into()));
        assert_eq!(
            identity("redis"),
            (999, 998, vec![10, 4], "/var/lib/redis".into())
        );
        assert_eq!(
            identity("999"),
            (999, 998, vec![10, 4], "/var/lib/redis".into())
        );
        assert_eq!(
            identity("redis:log"),
            (999, 4, vec![], "/var/lib/redis".into())
        );
        assert_eq!(identity("12:34"), (12, 34, vec![], "/".into()));
        assert_eq!(identity("12"), (12, 0, vec![], "/".into()));
        assert_eq!(identity("1000").0, 7, "a name of digits wins");
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert_eq!(
            find("nobody", PASSWD, GROUP)
                .expect_err("unknown")
                .to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            find("redis:nope", PASSWD, GROUP)
                .expect_err("unknown")
                .to_string(),
            "unable to find group nope: no matching entries in group file"
        );
    }

    #[test]
    fn a_link_cannot_leave_the_root() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("etc")).expect("etc");
        std::os::unix::fs::symlink("/../../../../etc/hostname", root.path().join("etc/passwd"))
            .expect("link");
        assert_eq!(
            read(root.path(), "etc/passwd").expect("reads as absent"),
            ""
        );
    }
}
