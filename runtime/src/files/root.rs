//! A directory that paths cannot leave.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Tries to get past a rename that raced with the walk.
const TRIES: usize = 32;

/// A directory that stands for `/`: links and `..` in the paths looked up are resolved as if it were the root, which
/// they cannot leave, whatever changes meanwhile.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

impl Root {
    /// # Errors
    ///
    /// What the kernel says if `path` is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            dir: rustix::fs::openat(CWD, path, flags, Mode::empty())?,
        })
    }

    /// Whether a directory is at `path`; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// What the kernel says if it cannot be told.
    pub fn is_directory(&self, path: &Path) -> io::Result<Option<bool>> {
        match self.resolve(path.as_os_str(), OFlags::PATH) {
            Ok(found) => {
                let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                Ok(Some(kind == FileType::Directory))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn of(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Opens `path`, absolute or not, as a process would whose root this is.
    pub(crate) fn resolve(&self, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.lookup(path, flags, ResolveFlags::IN_ROOT)
    }

    /// Opens the directory at the relative `path`, no part of which may be a link.
    pub(crate) fn beneath(&self, path: &OsStr) -> Result<OwnedFd, Errno> {
        self.lookup(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Opens the directory at `path` as [`Root::resolve`] does; what is not there of it is made.
    pub(crate) fn make_directories(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make(path, ResolveFlags::IN_ROOT)
    }

    /// As [`Root::make_directories`], but links that lead out of the root are an error.
    pub(crate) fn make_directories_beneath(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make(path, ResolveFlags::BENEATH)
    }

    fn make(&self, path: &Path, how: ResolveFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.lookup(path.as_os_str(), flags, how) {
            Err(Errno::NOENT) => {}
            found => return Ok(found?),
        }
        let mut prefix = PathBuf::new();
        let mut dir = self.lookup(OsStr::new("."), flags, how)?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            prefix.push(name);
            dir = match self.lookup(prefix.as_os_str(), flags, how) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    self.lookup(prefix.as_os_str(), flags, how)?
                }
                found => found?,
            };
        }
        Ok(dir)
    }

    fn lookup(&self, path: &OsStr, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let how = how | ResolveFlags::NO_MAGICLINKS;
        let mut outcome = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            outcome =
                rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), how);
            if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        outcome
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}
