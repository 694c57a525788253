//! File operations below one directory that neither names nor symbolic links can lead out of.
//!
//! Every parent directory is opened with `openat2` and `RESOLVE_BENEATH`, so that the kernel itself refuses
//! a way out; the last part of a name is then handled relative to that descriptor and never followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::path::EntryPath;

/// The extended attribute by which overlayfs hides all that lower layers have in a directory.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Tries to get past a rename that raced with the walk.
const WALK_TRIES: usize = 16;

/// The root that paths are relative to.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::openat(CWD, root, flags, Mode::empty())?,
        })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory, following only links that stay below the root.
    pub(crate) fn dir(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        self.walk(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY,
            ResolveFlags::BENEATH,
        )
    }

    /// Opens what is at `path` itself for looking only; no part of `path` may be a link.
    pub(crate) fn look(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        self.walk(
            path,
            OFlags::PATH | OFlags::NOFOLLOW,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn walk(
        &self,
        path: &EntryPath,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        let mut outcome = Err(Errno::AGAIN);
        for _ in 0..WALK_TRIES {
            outcome =
                rustix::fs::openat2(&self.root, path.as_os_str(), flags, Mode::empty(), resolve);
            if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        outcome
    }
}

/// What is at `name` in `dir`; a link is not followed.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether this is overlayfs's mark for a removed name: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        dir,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

pub(crate) fn make_opaque(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        OPAQUE,
        b"y",
        XattrFlags::empty(),
    )?)
}

pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(dir, OPAQUE, &mut value[..])
        .is_ok_and(|length| length == 1 && value == *b"y")
}

/// Opens a directory for its own sake, never through a link.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Makes a file that was not there.
pub(crate) fn create_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?)
}

/// Removes what is at `name`, directories with all they hold.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &OsStr, found: &Stat) -> io::Result<()> {
    if is_dir(found) {
        // std removes trees by descriptors, without following links.
        std::fs::remove_dir_all(proc_path(dir, name))
    } else {
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }
}

/// A path for calls that take no directory descriptor; its last part is the only one looked up.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_fd().as_raw_fd().to_string())
        .join(name)
}
