//! Owner, mode, extended attributes and time of what was unpacked.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tracing::warn;

use super::tree;
use crate::image::tarball::Entry;

/// Bytes that the names of an inode's extended attributes take at most, and the value of one (Linux's own limits).
const XATTR_LIST: usize = 64 << 10;
const XATTR_VALUE: usize = 64 << 10;

/// What an inode has besides its content.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    /// `None`: whose process this is.
    uid: Option<Uid>,
    gid: Option<Gid>,
    mode: Mode,
    modified: Timespec,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// As the archive has them; nothing if an owner is beyond what the kernel knows.
    pub(crate) fn of_entry(entry: &Entry) -> Option<Self> {
        // The highest number means "leave as it is" to chown.
        let id = |raw: u64| u32::try_from(raw).ok().filter(|&raw| raw != u32::MAX);
        Some(Self {
            uid: Some(Uid::from_raw(id(entry.uid)?)),
            gid: Some(Gid::from_raw(id(entry.gid)?)),
            mode: Mode::from_raw_mode(entry.mode),
            modified: Timespec {
                tv_sec: entry.mtime.0,
                tv_nsec: entry.mtime.1.into(),
            },
            xattrs: entry.xattrs.clone(),
        })
    }

    /// As an inode has them, without its extended attributes.
    pub(crate) fn of_stat(stat: &Stat) -> Self {
        Self {
            uid: Some(Uid::from_raw(stat.st_uid)),
            gid: Some(Gid::from_raw(stat.st_gid)),
            mode: Mode::from_raw_mode(stat.st_mode),
            modified: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec as _,
            },
            xattrs: Vec::new(),
        }
    }

    /// As an inode has them, with those of its extended attributes that mean the same on every host.
    pub(crate) fn of_inode(inode: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::statat(inode, "", AtFlags::EMPTY_PATH)?;
        let mut attributes = Self::of_stat(&stat);
        // By this path also what was opened for looking only has its attributes, a link its own.
        let path = tree::proc_path(inode, OsStr::new(""));
        let path = path.as_os_str().as_bytes();
        let path = OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path));
        let mut list = vec![0; XATTR_LIST];
        let length = match rustix::fs::listxattr(path, &mut list[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            length => length?,
        };
        let names = list[..length].split(|&byte| byte == 0);
        for name in names.filter(|name| is_portable(name)) {
            let mut value = vec![0; XATTR_VALUE];
            match rustix::fs::getxattr(path, OsStr::from_bytes(name), &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    attributes.xattrs.push((name.to_vec(), value));
                }
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(attributes)
    }

    pub(crate) fn xattrs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.xattrs
    }

    /// The same, but for its owner.
    pub(crate) fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self {
            uid: Some(Uid::from_raw(uid)),
            gid: Some(Gid::from_raw(gid)),
            ..self
        }
    }

    /// What of them anybody may give to a file of his own.
    pub(crate) fn unprivileged(self) -> Self {
        Self {
            uid: None,
            gid: None,
            mode: self.mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO),
            xattrs: Vec::new(),
            ..self
        }
    }

    pub(super) fn with_xattr(mut self, name: &str, value: Vec<u8>) -> Self {
        self.xattrs.push((name.into(), value));
        self
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn modified(&self) -> Timespec {
        self.modified
    }

    /// Gives them to an open file or directory.
    pub(crate) fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        // In this order: a new owner takes away set-user-ID bits and capabilities.
        rustix::fs::fchown(file, self.uid, self.gid)?;
        self.each_xattr(|name, value| {
            rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
        })?;
        rustix::fs::fchmod(file, self.mode)?;
        Ok(rustix::fs::futimens(file, &times(self.modified))?)
    }

    /// Gives them to what cannot be opened: a link, a device, a fifo.
    pub(crate) fn give_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        is_link: bool,
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, self.uid, self.gid, nofollow)?;
        let path = tree::proc_path(dir, name);
        self.each_xattr(|name, value| {
            rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty())
        })?;
        if !is_link {
            rustix::fs::chmodat(dir, name, self.mode, AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(
            dir,
            name,
            &times(self.modified),
            nofollow,
        )?)
    }

    fn each_xattr(&self, set: impl Fn(&OsStr, &[u8]) -> Result<(), Errno>) -> io::Result<()> {
        for (name, value) in self.xattrs.iter().filter(|(name, _)| is_portable(name)) {
            let name = OsStr::from_bytes(name);
            match set(name, value) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => {
                    warn!(
                        ?name,
                        "the file system of the data root keeps no such attribute; the image goes without"
                    );
                }
                // A user's attributes belong to files and directories alone.
                Err(Errno::PERM) if name.as_bytes().starts_with(b"user.") => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Whether an attribute means the same on every host. `trusted.overlay.*` would forge the overlay's own marks,
/// and other security labels belong to the host that built the image.
pub(in crate::image) fn is_portable(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
}

pub(super) fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}
