//! What `docker save` writes: manifest.json names configurations, layers and tags.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::archive::Archive;
use super::{Found, LoadError, MAX_IMAGES};
use crate::image::decompress::compression;
use crate::image::digest::Digest;
use crate::image::install::Plan;
use crate::image::lease::Lease;
use crate::image::reference::Reference;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

pub(super) fn images(archive: &Archive, lease: &Lease) -> Result<Vec<Found>, LoadError> {
    let saved: Vec<SavedImage> = archive.json("manifest.json", lease)?;
    if saved.len() > MAX_IMAGES {
        return Err(LoadError::TooManyImages { limit: MAX_IMAGES });
    }
    saved
        .into_iter()
        .map(|image| found(image, archive, lease))
        .collect()
}

fn found(image: SavedImage, archive: &Archive, lease: &Lease) -> Result<Found, LoadError> {
    let config = archive.file(&image.config)?;
    let layers = image.layers.unwrap_or_default();
    let layers = layers
        .iter()
        .map(|layer| archive.file(layer))
        .collect::<Result<Vec<_>, _>>()?;
    let tags = image.repo_tags.unwrap_or_default();
    let names = tags
        .iter()
        .map(|tag| tag.parse())
        .collect::<Result<BTreeSet<Reference>, _>>()?;
    let manifest = manifest(config, &layers, lease)?;
    let plan = Plan::new(lease, config, manifest, &layers);
    let plan = plan.map_err(|source| LoadError::Install {
        name: config.to_string(),
        source: Box::new(source),
    })?;
    Ok(Found { plan, names })
}

/// The format has no manifest of OCI's kind; the store keeps one for every image.
pub(crate) fn manifest(
    config: Digest,
    layers: &[Digest],
    lease: &Lease,
) -> Result<Digest, LoadError> {
    let blobs = &lease.store().blobs;
    let descriptor = |digest: Digest, media_type: &str| {
        let size = blobs.path(digest).metadata().map_err(LoadError::Io)?.len();
        Ok::<_, LoadError>(
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": size}),
        )
    };
    let layers = layers.iter().map(|&layer| {
        let compression = compression(blobs.open(layer).map_err(LoadError::Io)?);
        let suffix = compression.map_err(LoadError::Io)?;
        descriptor(
            layer,
            &format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
        )
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json")?,
        "layers": layers.collect::<Result<Vec<_>, _>>()?,
    });
    let stored = blobs.put(manifest.to_string().as_bytes(), lease);
    stored.map_err(|source| LoadError::Blob {
        name: "manifest".to_owned(),
        source,
    })
}
