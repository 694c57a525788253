//! The namespaces that a container shares with its host or with another container.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nuncio_runtime::{BindOptions, Mount, MountKind, Namespace};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Daemon;
use super::config::{HostOptions, Ipc, Shared};
use super::container::Container;
use super::record::Phase;
use super::refusal::Refusal;

/// Bytes of `/dev/shm` unless the user says otherwise; Docker's.
pub(super) const SHM_SIZE: u64 = 64 << 20;

impl Daemon {
    /// Where the processes of a container of that option get their numbers.
    pub(super) fn pidns(&self, of: &Shared) -> anyhow::Result<Namespace> {
        match of {
            Shared::Own => Ok(Namespace::Own),
            Shared::Host => Ok(Namespace::Host),
            Shared::Container(name) => {
                let other = self.container(name)?;
                Ok(Namespace::Of(namespace(&other, "PID", "pid")?))
            }
        }
    }

    /// The same for shared memory, and what it mounts at `/dev/shm` for that.
    pub(super) fn ipcns(
        &self,
        container: &Container,
        host: &HostOptions,
    ) -> anyhow::Result<(Namespace, Option<Mount>)> {
        let shared = |source: PathBuf| Mount {
            kind: MountKind::Bind {
                source,
                options: BindOptions::default(),
            },
            target: "/dev/shm".to_owned(),
            read_only: false,
        };
        Ok(match &host.ipc {
            Ipc::Private | Ipc::None => (Namespace::Own, None),
            Ipc::Shareable => {
                let directory = shm_directory(container);
                mount_shm(&directory, host)
                    .with_context(|| format!("mount {}", directory.display()))?;
                (Namespace::Own, Some(shared(directory)))
            }
            Ipc::Host => (Namespace::Host, Some(shared("/dev/shm".into()))),
            Ipc::Container(name) => {
                let other = self.container(name)?;
                if other.view().config.host.ipc != Ipc::Shareable {
                    return Err(Refusal::invalid(format!(
                        "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                        other.id
                    ))
                    .into());
                }
                let path = namespace(&other, "IPC", "ipc")?;
                (Namespace::Of(path), Some(shared(shm_directory(&other))))
            }
        })
    }
}

/// The path of a running container's namespace.
fn namespace(other: &Container, what: &str, file: &str) -> Result<PathBuf, Refusal> {
    match other.view().phase {
        Phase::Running { pid, .. } => Ok(format!("/proc/{pid}/ns/{file}").into()),
        _ => Err(Refusal::conflict(format!(
            "cannot join {what} namespace of a non running container: {}",
            other.id
        ))),
    }
}

fn shm_directory(container: &Container) -> PathBuf {
    container.directory.join("shm")
}

fn mount_shm(directory: &Path, host: &HostOptions) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let size = if host.shm_size == 0 {
        SHM_SIZE
    } else {
        host.shm_size
    };
    let options = std::ffi::CString::new(format!("mode=1777,size={size}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    Ok(mount("shm", directory, "tmpfs", flags, options.as_c_str())?)
}

/// Gives back the memory that a container shares; one that shares none is no error.
pub(super) fn unmount_shm(container: &Container) -> anyhow::Result<()> {
    use rustix::io::Errno;
    match unmount(shm_directory(container), UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
