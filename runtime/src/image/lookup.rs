//! What a registry has under a name, without pulling it.

use futures_util::StreamExt as _;
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

use super::digest::Digest;
use super::platform::Platform;
use super::pull::{PullError, PullOptions, Source};
use super::reference::Reference;
use super::store::ImageStore;

/// A manifest or an index of several, as a registry has it.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// What the content is.
    pub media_type: String,
    /// By which the registry knows it.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// What it runs on; empty if it is no image of files.
    pub platforms: Vec<Platform>,
}

impl ImageStore {
    /// Asks the image's own registry for it.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    pub async fn look_up(
        &self,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<RemoteImage, PullError> {
        let source = Source::of(reference, options).await?;
        let limit = self.inner.limits.metadata_bytes;
        let content = source.manifest(reference, limit).await?;
        let malformed = |source| PullError::Manifest {
            name: reference.familiar(),
            source,
        };
        let value: serde_json::Value = serde_json::from_slice(&content).map_err(malformed)?;
        let told = value["mediaType"].as_str().map(str::to_owned);
        let (usual, platforms) = if value.get("manifests").is_some() {
            let index: ImageIndex = serde_json::from_value(value).map_err(malformed)?;
            let platforms = index.manifests().iter();
            let platforms = platforms.filter_map(|entry| entry.platform().as_ref());
            (INDEX, platforms.map(Platform::from).collect())
        } else {
            let manifest: ImageManifest = serde_json::from_value(value).map_err(malformed)?;
            (MANIFEST, platform(&source, &manifest, limit).await?)
        };
        Ok(RemoteImage {
            media_type: told.unwrap_or_else(|| usual.to_owned()),
            digest: Digest::of(&content),
            size: content.len() as u64,
            platforms,
        })
    }
}

/// What is meant where nothing is said.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The platform that an image's configuration names, if it is one.
async fn platform(
    source: &Source,
    manifest: &ImageManifest,
    limit: u64,
) -> Result<Vec<Platform>, PullError> {
    let id: Digest = manifest.config().digest().to_string().parse()?;
    let mut blob = source.blob(id, 0).await?;
    let mut content = Vec::new();
    while let Some(piece) = blob.stream.next().await {
        content.extend_from_slice(&piece.map_err(|error| source.broken(id, error))?);
        if content.len() as u64 > limit {
            return Ok(Vec::new());
        }
    }
    let config = serde_json::from_slice::<ImageConfiguration>(&content);
    Ok(config.iter().map(Platform::from).collect())
}
