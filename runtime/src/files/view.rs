//! The files of a container as its processes see them, whether it runs or not.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount,
    move_mount, open_tree,
};

use super::root::Root;
use crate::image::tree;

/// A root with all that is mounted below it.
#[derive(Debug)]
pub struct View {
    pub(super) root: Root,
    path: PathBuf,
    /// Keeps what is mounted in there until the view is done with, though its last process ends.
    _mounts: Option<File>,
}

impl View {
    /// What the process `pid` sees, whose root is mounted at `merged` in this mount namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says; [`io::ErrorKind::NotFound`] if the process has ended, and another one has its number.
    pub fn of_process(pid: u32, merged: &Path) -> io::Result<Self> {
        let mounts = File::open(format!("/proc/{pid}/ns/mnt"))?;
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        let root = Root::open(&path)?;
        let seen = rustix::fs::statat(&root, "", AtFlags::EMPTY_PATH)?;
        let expected = rustix::fs::statat(CWD, merged, AtFlags::SYMLINK_NOFOLLOW)?;
        if (seen.st_dev, seen.st_ino) != (expected.st_dev, expected.st_ino) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self {
            root,
            path,
            _mounts: Some(mounts),
        })
    }

    /// What is in a directory.
    ///
    /// # Errors
    ///
    /// What the kernel says if it is none.
    pub fn of_directory(path: &Path) -> io::Result<Self> {
        Ok(Self {
            root: Root::open(path)?,
            path: path.to_owned(),
            _mounts: None,
        })
    }

    /// A path by which the root is reached from here; what is below it is not to be trusted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts `source` of the host at `target` of the view, in the mount namespace of this thread.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn bind(&self, source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, source, flags)?;
        let stat = rustix::fs::statat(&tree, "", AtFlags::EMPTY_PATH)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let at = match self.root.resolve(target.as_os_str(), OFlags::PATH) {
            Err(rustix::io::Errno::NOENT) => self.make(target, is_dir)?,
            found => found?,
        };
        let empty =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &at, "", empty)?;
        if read_only {
            let mounted = self.root.resolve(target.as_os_str(), OFlags::PATH)?;
            let path = tree::proc_path(mounted.as_fd(), "".as_ref());
            let path = path.to_string_lossy();
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(path.trim_end_matches('/'), flags, "")?;
        }
        Ok(())
    }

    /// Makes a place to mount at, as the container's start does.
    fn make(&self, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
        let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = self.root.make_directories(above)?;
        if is_dir {
            rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
        } else {
            drop(tree::create_file(dir.as_fd(), name)?);
        }
        Ok(self.root.resolve(target.as_os_str(), OFlags::PATH)?)
    }
}

/// Does `work` on a thread with mounts of its own: what it mounts nobody else sees, and it is gone with the thread, even
/// if that is killed.
///
/// # Errors
///
/// What the kernel says if there can be no such thread.
pub fn with_own_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("own-mounts".into());
        let running = thread.spawn_scoped(scope, || -> io::Result<T> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?;
            Ok(work())
        })?;
        let ended = running.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
