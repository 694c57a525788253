use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, fstatfs},
};
use tokio::sync::oneshot;

use crate::netlink::Netlink;

/// Type of the file system that namespaces appear on (`NSFS_MAGIC` in linux/magic.h).
const NSFS: FsType = FsType(0x6e73_6673);

/// The calling thread's own network namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive while this is.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

/// Why a network namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenNetNsError {
    /// The file cannot be opened or looked at.
    #[error("open network namespace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing is mounted there, as after [`NetNs::remove`] was cut short.
    #[error("{} is a file, but no namespace is mounted on it", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
}

/// Why a network namespace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateNetNsError {
    /// The file to mount it on cannot be made, mostly since it exists.
    #[error("make {} for a network namespace", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel makes no namespace, mostly for lack of CAP_SYS_ADMIN.
    #[error("make a network namespace and mount it on {}", path.display())]
    Namespace {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The new namespace cannot be entered.
    #[error("open the new network namespace")]
    Open(#[from] OpenNetNsError),
    /// Its loopback device stays down.
    #[error("set lo up in network namespace {}", path.display())]
    Loopback {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetNs {
    /// Makes a namespace that lives until [`NetNs::remove`], with lo up. On failure nothing is left.
    ///
    /// # Errors
    ///
    /// [`CreateNetNsError::File`] also if `path` exists already.
    pub async fn create(path: &Path) -> Result<Self, CreateNetNsError> {
        File::create_new(path).map_err(|source| CreateNetNsError::File {
            path: path.to_owned(),
            source,
        })?;
        let unfinished = Unfinished(path);
        let target = path.to_owned();
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some(CURRENT),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        })
        .await
        .and_then(|done| done.map_err(io::Error::from))
        .map_err(|source| CreateNetNsError::Namespace {
            path: path.to_owned(),
            source,
        })?;
        let namespace = Self::open(path)?;
        namespace
            .set_loopback_up()
            .await
            .map_err(|source| CreateNetNsError::Loopback {
                path: path.to_owned(),
                source,
            })?;
        std::mem::forget(unfinished);
        Ok(namespace)
    }

    /// Unmounts the namespace and removes its file; it is no error if either is gone.
    ///
    /// The kernel ends the namespace with its last process, socket and mount.
    ///
    /// # Errors
    ///
    /// The system call's.
    pub fn remove(path: &Path) -> io::Result<()> {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens the namespace mounted on `path`, or a `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    ///
    /// Also if `path` is a file that is no namespace.
    pub fn open(path: &Path) -> Result<Self, OpenNetNsError> {
        let wrong = |source| OpenNetNsError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(wrong)?;
        let kind = fstatfs(&file).map_err(|errno| wrong(errno.into()))?;
        if kind.filesystem_type() == NSFS {
            Ok(Self { file })
        } else {
            Err(OpenNetNsError::NotANamespace {
                path: path.to_owned(),
            })
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`NetNs::open`].
    pub fn current() -> Result<Self, OpenNetNsError> {
        Self::open(Path::new(CURRENT))
    }

    /// Runs `work` inside the namespace, on a thread of its own, for a worker of the async runtime
    /// that changed its namespace would carry every later task along.
    ///
    /// # Errors
    ///
    /// The kernel's if the namespace cannot be entered or no thread is to be had.
    pub async fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let file = self.file.try_clone()?;
        on_a_thread(move || setns(file, CloneFlags::CLONE_NEWNET).map(|()| work()))
            .await?
            .map_err(io::Error::from)
    }

    /// Device and inode: two files of one namespace agree in them.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|meta| (meta.dev(), meta.ino()))
    }

    async fn set_loopback_up(&self) -> io::Result<()> {
        let netlink = Netlink::open_in(self).await?;
        let lo = netlink.link("lo").await?.ok_or(Errno::ENODEV)?;
        netlink.set_up(lo.index).await
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Device and inode of the namespace at `path`, if one is there.
pub(crate) fn identity_at(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Takes a half-made namespace back.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Err(error) = NetNs::remove(self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove a half-made network namespace");
        }
    }
}

/// Runs `work` on a thread that ends with it, so that what it unshares or enters ends with it too.
pub(crate) async fn on_a_thread<T, F>(work: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            let _ = sender.send(work()); // fails if the caller was cancelled: nobody asks any more
        })?;
    receiver
        .await
        .map_err(|_| io::Error::other("the thread in the network namespace panicked"))
}
