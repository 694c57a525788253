//! The ambassador's HTTP side.

use std::fs::{Metadata, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::Router;
use nuncio_ambassador::{Control, admin};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// Where the admin side is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Not such an address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address: expected ADDR:PORT, as 127.0.0.1:9100, or unix:///PATH")]
pub(super) struct NotAnAddress(String);

impl FromStr for AdminAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Self::Unix(path.into())),
            Some(_) => Err(wrong()),
            None => {
                let text = text.strip_prefix("tcp://").unwrap_or(text);
                text.parse().map(Self::Tcp).map_err(|_| wrong())
            }
        }
    }
}

/// The admin side, while it is served.
pub(super) struct Admin {
    _task: AbortOnDropHandle<()>,
    socket: Option<UnixSocket>,
}

/// A socket in the file system, as long as no successor has put its own in its place.
struct UnixSocket {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Admin {
    /// Serves from now on, `more` besides; in the place of a predecessor, if there is one.
    ///
    /// # Errors
    ///
    /// An address that is in use, or not to be had.
    pub(super) async fn bind(
        address: &AdminAddress,
        control: Arc<Control>,
        more: Option<Router>,
        predecessor: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut router = admin::router(control);
        if let Some(more) = more {
            router = router.merge(more);
        }
        let (task, socket) = match address {
            AdminAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.with_context(|| format!("listen on --admin {address}"))?;
                info!(address = %listener.local_addr()?, "admin");
                (
                    tokio::spawn(serve(axum::serve(listener, router).into_future())),
                    None,
                )
            }
            AdminAddress::Unix(path) => {
                let (listener, socket) = bind_unix(path, predecessor == Some(path)).await?;
                (
                    tokio::spawn(serve(axum::serve(listener, router).into_future())),
                    Some(socket),
                )
            }
        };
        Ok(Self {
            _task: AbortOnDropHandle::new(task),
            socket,
        })
    }

    /// Serves no longer, and leaves no socket behind.
    pub(super) fn end(self) {
        if let Some(UnixSocket {
            path,
            device_and_inode,
        }) = &self.socket
            && std::fs::metadata(path).is_ok_and(|found| identity(&found) == *device_and_inode)
            && let Err(error) = std::fs::remove_file(path)
        {
            warn!(path = %path.display(), %error, "remove the admin socket");
        }
    }
}

async fn serve(serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        warn!(%error, "the admin side ended");
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Takes the place of a socket that nobody listens on any more, or that of a predecessor.
async fn bind_unix(path: &Path, succeeds: bool) -> anyhow::Result<(UnixListener, UnixSocket)> {
    if !succeeds && UnixStream::connect(path).await.is_ok() {
        bail!(
            "listen on --admin unix://{0}: another process serves it; to replace it, give \
             --upgrade-from unix://{0} as well",
            path.display()
        );
    }
    // under another name first: whoever asks a predecessor meanwhile is answered
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old socket {}", new.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new);
    let listener =
        listener.with_context(|| format!("listen on --admin unix://{}", path.display()))?;
    let placed = || {
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        let device_and_inode = identity(&std::fs::metadata(&new)?);
        std::fs::rename(&new, path)?;
        io::Result::Ok(device_and_inode)
    };
    let device_and_inode =
        placed().with_context(|| format!("keep others from {}", path.display()))?;
    let path = path.to_owned();
    Ok((
        listener,
        UnixSocket {
            path,
            device_and_inode,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = Some(AdminAddress::Tcp(([127, 0, 0, 1], 9100).into()));
        assert_eq!("127.0.0.1:9100".parse().ok(), tcp);
        assert_eq!("tcp://127.0.0.1:9100".parse().ok(), tcp);
        assert_eq!(
            "unix:///a/b".parse().ok(),
            Some(AdminAddress::Unix("/a/b".into()))
        );
        for wrong in ["", "unix://a", "unix:///", "localhost", "1.2.3.4"] {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong:?}");
        }
    }
}
