//! One blob on its way to a registry.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::Client;
use oci_client::errors::OciDistributionError;
use reqwest::header::HeaderValue;
use tokio_util::io::ReaderStream;
use tracing::warn;

use super::error::PushError;
use crate::image::digest::Digest;
use crate::image::progress::{LayerProgress, ProgressStatus};
use crate::image::reference::Reference;
use crate::image::registry::{Trouble, trouble};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// How often a blob is tried, and how long the first pause between two tries is.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// A repository that is pushed to.
pub(super) struct Target {
    pub(super) client: Client,
    name: Reference,
    address: oci_client::Reference,
}

/// A name as the protocol's client has it.
pub(super) fn address(reference: &Reference) -> oci_client::Reference {
    oci_client::Reference::with_tag(
        reference.registry().to_owned(),
        reference.repository().to_owned(),
        reference.tag().unwrap_or("latest").to_owned(),
    )
}

impl Target {
    pub(super) fn new(client: Client, name: &Reference) -> Self {
        Self {
            client,
            name: name.clone(),
            address: address(name),
        }
    }

    /// Brings a blob there, unless it is there or the registry takes it from one of the repositories `sources`.
    pub(super) async fn put(
        &self,
        blob: Digest,
        path: PathBuf,
        sources: &[Reference],
        progress: Option<LayerProgress>,
    ) -> Result<(), PushError> {
        let digest = blob.to_string();
        let say = |status| {
            if let Some(progress) = &progress {
                progress.say(status);
            }
        };
        let failed = |error| PushError::of(error, &self.name);
        if self.exists(&digest).await.map_err(failed)? {
            say(ProgressStatus::LayerExists);
            return Ok(());
        }
        for source in sources {
            // A registry that does not mount is sent the blob.
            let from = address(source);
            let mounted = self.client.mount_blob(&self.address, &from, &digest);
            if mounted.await.is_ok() {
                say(ProgressStatus::Mounted(source.repository().to_owned()));
                return Ok(());
            }
        }
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            match self.send(blob, &path, progress.as_ref()).await {
                Ok(()) => break,
                Err(Failed::Registry(error)) if left > 0 && may_pass(&error) => {
                    warn!(%error, %blob, "send again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(Failed::Registry(error)) => return Err(failed(error)),
                Err(Failed::Read(source)) => return Err(PushError::Read { blob, source }),
            }
        }
        say(ProgressStatus::Pushed);
        Ok(())
    }

    /// Some registries want to be asked for what they lack in other words than 404.
    async fn exists(&self, digest: &str) -> Result<bool, OciDistributionError> {
        match self.client.blob_exists(&self.address, digest).await {
            Err(error) if trouble(&error) == Trouble::Absent => Ok(false),
            found => found,
        }
    }

    async fn send(
        &self,
        blob: Digest,
        path: &PathBuf,
        progress: Option<&LayerProgress>,
    ) -> Result<(), Failed> {
        let file = tokio::fs::File::open(path).await.map_err(Failed::Read)?;
        let total = file.metadata().await.map_err(Failed::Read)?.len();
        let mut progress = progress.map(LayerProgress::again);
        let mut sent = 0;
        let count = move |chunk: std::io::Result<bytes::Bytes>| {
            let chunk = chunk.map_err(OciDistributionError::from)?;
            sent += chunk.len() as u64;
            if let Some(progress) = &mut progress {
                progress.tick(ProgressStatus::Pushing, sent, total);
            }
            Ok(chunk)
        };
        let stream = ReaderStream::with_capacity(file, CHUNK).map(count);
        let digest = blob.to_string();
        let pushed = self
            .client
            .push_blob_stream(&self.address, stream, &digest, Some(total));
        pushed.await.map(drop).map_err(Failed::Registry)
    }

    /// Puts the manifest there under its tag, which makes the image whole.
    pub(super) async fn put_manifest(
        &self,
        content: Vec<u8>,
        media_type: &str,
    ) -> Result<(), PushError> {
        let media_type = HeaderValue::from_str(media_type)
            .unwrap_or_else(|_| HeaderValue::from_static(super::MANIFEST));
        let pushed = self
            .client
            .push_manifest_raw(&self.address, content, media_type);
        pushed
            .await
            .map(drop)
            .map_err(|error| PushError::of(error, &self.name))
    }
}

/// Why a blob did not get there.
enum Failed {
    Read(std::io::Error),
    Registry(OciDistributionError),
}

/// Whether another try may go better.
fn may_pass(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => *code >= 500,
        error => trouble(error) == Trouble::Unreachable,
    }
}
