//! The unix socket between two processes.

use std::fs::{Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::wire::{self, Message};
use super::{HandoverError, PATIENCE};
use crate::sys;

/// Where successors knock.
#[derive(Debug)]
pub(super) struct Door {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the socket at `path`, for a successor puts its own there.
    own: (u64, u64),
}

impl Door {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        // Under another name first: at `path` there is always one that works.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        socket.bind(&SockAddr::unix(&new)?)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        socket.listen(8)?;
        let own = identity(&std::fs::metadata(&new)?);
        std::fs::rename(&new, path)?;
        Ok(Self {
            socket: sys::register(socket.into())?,
            path: path.to_owned(),
            own,
        })
    }

    pub(super) async fn accept(&self) -> Result<Channel, HandoverError> {
        let accept = || {
            use rustix::net::SocketFlags;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::accept_with(self.socket.get_ref(), flags)?)
        };
        let accepted = async {
            loop {
                let mut ready = self.socket.readable().await?;
                if let Ok(accepted) = ready.try_io(|_| accept()) {
                    return sys::register(accepted?);
                }
            }
        };
        let channel = Channel(accepted.await.map_err(|source| HandoverError::Broken {
            due: "a successor",
            source,
        })?);
        channel.check_peer()?;
        Ok(channel)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let still = std::fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.own);
        if still {
            // Who comes too late finds nothing, or nobody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The conversation of two processes.
#[derive(Debug)]
pub(super) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self(sys::register(socket.into())?))
    }

    /// Whether the process at the other end may have the sockets, or be believed about them.
    pub(super) fn check_peer(&self) -> Result<(), HandoverError> {
        let due = "the other process's user";
        let peer = socket_peercred(self.0.get_ref().as_fd());
        let peer = peer.map_err(|error| HandoverError::Broken {
            due,
            source: error.into(),
        })?;
        if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
            return Ok(());
        }
        let uid = peer.uid.as_raw();
        Err(HandoverError::Stranger { uid })
    }

    pub(super) async fn send(
        &self,
        message: &Message,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        let send = async {
            loop {
                let mut ready = self.0.writable().await?;
                if let Ok(sent) = ready.try_io(|fd| wire::send(fd.get_ref(), message, sockets)) {
                    return sent;
                }
            }
        };
        in_time("the other process's attention", send).await
    }

    /// What comes next; `due` says what that should be.
    pub(super) async fn receive(
        &self,
        due: &'static str,
    ) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        let receive = async {
            loop {
                let mut ready = self.0.readable().await?;
                if let Ok(received) = ready.try_io(|fd| wire::receive(fd.get_ref())) {
                    return received;
                }
            }
        };
        in_time(due, receive).await
    }
}

async fn in_time<T>(
    due: &'static str,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, HandoverError> {
    let done = timeout(PATIENCE, step).await;
    done.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
        .map_err(|source| HandoverError::Broken { due, source })
}
