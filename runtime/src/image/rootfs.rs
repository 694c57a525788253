//! A container's root: the image's layers with a writable one on top, put together by overlayfs.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::catalog::Image;
use super::store::{ImageStore, Inner};

/// Bytes of options that mount(2) takes, with the zero at the end.
const MAX_OPTIONS: usize = 4096;

/// A root that is mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rootfs {
    /// The directory that a container sees as `/`.
    pub merged: PathBuf,
}

/// Why a root could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A directory for it cannot be made.
    #[error("prepare {}", path.display())]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer of the image is gone.
    #[error("layer {} of image {image} is missing; remove the image and pull or load it again", path.display())]
    LayerMissing {
        /// The image.
        image: String,
        /// Where the layer should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error(
        "mount overlay with {layers} layers on {}; the data root must lie on a file system that overlayfs can write to, such as ext4, xfs, btrfs or tmpfs",
        path.display()
    )]
    Mount {
        /// Where it should appear.
        path: PathBuf,
        /// How many layers.
        layers: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that did it died.
    #[error("mounting stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Why a root could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// The kernel refused.
    #[error("unmount {}", path.display())]
    Unmount {
        /// Where it is mounted.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its files cannot be removed.
    #[error("remove {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that did it died.
    #[error("unmounting stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl ImageStore {
    /// Mounts the image's files for one container, whose changes go to `container_dir`.
    ///
    /// Uses `diff` (the changes), `work` (overlayfs's own) and `merged` (the result) in there. Mounted already, it
    /// stays; failed, nothing is mounted.
    ///
    /// # Errors
    ///
    /// See [`MountError`].
    pub async fn mount(&self, image: &Image, container_dir: &Path) -> Result<Rootfs, MountError> {
        let (inner, image, dir) = (self.inner.clone(), image.clone(), container_dir.to_owned());
        tokio::task::spawn_blocking(move || mount_now(&inner, &image, &dir)).await?
    }

    /// As [`ImageStore::mount`], on the calling thread and in its mount namespace.
    ///
    /// # Errors
    ///
    /// See [`MountError`].
    pub fn mount_here(&self, image: &Image, container_dir: &Path) -> Result<Rootfs, MountError> {
        mount_now(&self.inner, image, container_dir)
    }

    /// Takes down what [`ImageStore::mount`] put up; the changes stay. Fine if nothing is mounted.
    ///
    /// # Errors
    ///
    /// See [`UnmountError`].
    pub async fn unmount(&self, container_dir: &Path) -> Result<(), UnmountError> {
        let merged = container_dir.join("merged");
        tokio::task::spawn_blocking(move || unmount_now(&merged)).await?
    }

    /// Takes down what [`ImageStore::mount`] put up and removes the container's changes. Fine if there is nothing.
    ///
    /// # Errors
    ///
    /// See [`UnmountError`].
    pub async fn remove_rootfs(&self, container_dir: &Path) -> Result<(), UnmountError> {
        let dir = container_dir.to_owned();
        let remove = move || {
            unmount_now(&dir.join("merged"))?;
            for part in ["merged", "work", "diff"] {
                let path = dir.join(part);
                match fs::remove_dir_all(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(UnmountError::Remove { path, source });
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(remove).await?
    }
}

fn mount_now(store: &Inner, image: &Image, dir: &Path) -> Result<Rootfs, MountError> {
    let prepare = |path: &Path| {
        let path = path.to_owned();
        move |source| MountError::Prepare { path, source }
    };
    fs::create_dir_all(dir).map_err(prepare(dir))?;
    let dir = fs::canonicalize(dir).map_err(prepare(dir))?;
    let [upper, work, merged] = ["diff", "work", "merged"].map(|part| dir.join(part));
    if is_mount_root(&merged) {
        return Ok(Rootfs { merged });
    }
    let mut lower: Vec<_> = image
        .layers
        .iter()
        .rev()
        .map(|&layer| store.layer_diff(layer))
        .collect();
    if lower.is_empty() {
        lower.push(store.root.join("empty")); // an image from scratch has no layer, overlayfs wants one
    }
    for path in &lower {
        let missing = |source| MountError::LayerMissing {
            image: image.id.clone(),
            path: path.clone(),
            source,
        };
        fs::metadata(path).map_err(missing)?;
    }
    for path in [&work, &merged] {
        fs::create_dir_all(path).map_err(prepare(path))?;
    }
    make_upper(&upper, &lower[0]).map_err(prepare(&upper))?;

    let failed = |source| MountError::Mount {
        path: merged.clone(),
        layers: lower.len(),
        source,
    };
    let (options, _held) = options(&lower, &upper, &work).map_err(failed)?;
    let mounted = rustix::mount::mount(
        "overlay",
        &merged,
        "overlay",
        MountFlags::empty(),
        &*options,
    );
    mounted.map_err(|errno| failed(errno.into()))?;
    Ok(Rootfs { merged })
}

/// The root directory of a mount shows the attributes of its writable layer: they must be the image's.
fn make_upper(upper: &Path, top: &Path) -> io::Result<()> {
    match fs::create_dir(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let like = fs::metadata(top)?;
    std::os::unix::fs::chown(upper, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(like.mode()))
}

/// The mount's options, and descriptors to hold until it is made.
///
/// Paths stand as they are, for people to read in the mount table, unless there are too many for the page that
/// mount(2) takes, or one has a character with a meaning of its own; then short paths by descriptor stand in.
fn options(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<(CString, Vec<File>)> {
    let all = || lower.iter().map(PathBuf::as_path).chain([upper, work]);
    let special = all().any(|path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| b":,\\\"".contains(byte))
    });
    let spelled = spell(
        &all()
            .map(|path| path.as_os_str().to_owned())
            .collect::<Vec<_>>(),
    );
    if !special && spelled.len() < MAX_OPTIONS {
        return Ok((CString::new(spelled)?, Vec::new()));
    }
    let held = all().map(File::open).collect::<io::Result<Vec<_>>>()?;
    let by_descriptor = held
        .iter()
        .map(|file| OsString::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
    let spelled = spell(&by_descriptor.collect::<Vec<_>>());
    if spelled.len() >= MAX_OPTIONS {
        return Err(Errno::TOOBIG.into());
    }
    Ok((CString::new(spelled)?, held))
}

/// `paths` are the lower layers, uppermost first, then the upper one and overlayfs's own directory.
fn spell(paths: &[OsString]) -> Vec<u8> {
    let [lower @ .., upper, work] = paths else {
        return Vec::new();
    };
    let mut options = OsString::from("lowerdir=");
    options.push(lower.join(":".as_ref()));
    // Upper layers of containers are remounted over other copies of a layer; the index would refuse that. What is in
    // them must be whole by itself, for images are made of it.
    options.push(",index=off,redirect_dir=off,metacopy=off,upperdir=");
    options.push(upper);
    options.push(",workdir=");
    options.push(work);
    options.into_vec()
}

fn is_mount_root(path: &Path) -> bool {
    let found = rustix::fs::statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    );
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn unmount_now(merged: &Path) -> Result<(), UnmountError> {
    // Detached, so that a process still in there does not hold up the container's removal.
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    loop {
        match rustix::mount::unmount(merged, flags) {
            Ok(()) => {} // perhaps there is another below it
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => {
                return Err(UnmountError::Unmount {
                    path: merged.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}
