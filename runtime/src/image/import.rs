//! `import`: an image of one layer from the tar of a root file system.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::catalog::Image;
use super::commit::install_quietly;
use super::compose::{About, ComposeError, LayerWriter, NewLayer, compose};
use super::decompress::{BUFFER, decompress};
use super::install::InstallError;
use super::lease::Lease;
use super::pipe::pipe;
use super::platform::Platform;
use super::reference::Reference;
use super::store::ImageStore;

/// Why an archive could not be made an image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The sender failed.
    #[error("receive the archive")]
    Receive(#[source] io::Error),
    /// It cannot be decompressed, or not be stored.
    #[error("store the archive")]
    Store(#[source] io::Error),
    /// The image cannot be put together.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// What is in the archive makes no image.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The thread that did it died.
    #[error("the import stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl ImageStore {
    /// Makes an image of a tar stream, plain or compressed by gzip or zstd, for `platform` or this host's.
    ///
    /// # Errors
    ///
    /// See [`ImportError`]; then nothing stays.
    pub async fn import(
        &self,
        archive: impl AsyncRead + Unpin,
        name: Option<Reference>,
        about: About,
        platform: Option<Platform>,
    ) -> Result<Image, ImportError> {
        let lease = Arc::new(Lease::new(&self.inner));
        let (writer, reader) = pipe();
        let store = {
            let lease = Arc::clone(&lease);
            move || store_layer(reader, &lease)
        };
        let stored = lease.spawn_blocking(store);
        let sent = writer
            .send_all(ReaderStream::with_capacity(archive, BUFFER))
            .await;
        let stored = stored.await?;
        sent.map_err(ImportError::Receive)?;
        let layer = stored?;
        let platform = platform.unwrap_or_else(Platform::host);
        let prepare = {
            let lease = Arc::clone(&lease);
            move || compose(&lease, None, Some(&layer), &about, &platform)
        };
        let plan = lease.spawn_blocking(prepare).await??;
        Ok(install_quietly(&lease, plan, name).await?)
    }
}

fn store_layer(archive: impl Read + Send, lease: &Lease) -> Result<NewLayer, ImportError> {
    let limit = lease.store().limits.layer_bytes;
    let store = || -> io::Result<NewLayer> {
        let mut writer = LayerWriter::new(lease).map_err(io::Error::other)?;
        let mut plain = decompress(archive)?.take(limit + 1);
        let copied = io::copy(&mut plain, &mut writer)?;
        if copied > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {limit} bytes"),
            ));
        }
        writer.finish(lease)
    };
    store().map_err(ImportError::Store)
}
