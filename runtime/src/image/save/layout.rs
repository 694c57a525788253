//! The files of a saved archive, and what is in those that describe it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Chosen, SaveError, once};
use crate::image::digest::Digest;
use crate::image::lease::Lease;
use crate::image::reference::Reference;

/// What a manifest is if it does not say.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A member of the archive.
pub(super) enum Part {
    Directory(&'static str),
    File {
        name: &'static str,
        content: Vec<u8>,
    },
    /// A blob of the store, of so many bytes.
    Blob {
        digest: Digest,
        size: u64,
    },
}

/// The name of a blob in the archive.
pub(super) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// All members, those that describe the others last, as their content is known only then to who writes a stream.
pub(super) fn parts(images: &[Chosen], lease: &Lease) -> Result<Vec<Part>, SaveError> {
    let blobs = images.iter().flat_map(|image| {
        let record = &image.record;
        let layers = record.blobs.iter().copied();
        layers.chain([record.id, record.manifest])
    });
    let mut parts = vec![Part::Directory("blobs/"), Part::Directory("blobs/sha256/")];
    for digest in once(blobs) {
        let size = size(digest, lease)?;
        parts.push(Part::Blob { digest, size });
    }
    let mut entries = Vec::new();
    for image in images {
        entries.extend(index_entries(image, lease)?);
    }
    let saved: Vec<Value> = images.iter().map(saved_image).collect();
    let file = |name, content: Value| Part::File {
        name,
        content: content.to_string().into_bytes(),
    };
    parts.push(file(
        "index.json",
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}),
    ));
    parts.push(file("manifest.json", saved.into()));
    parts.push(file("oci-layout", json!({"imageLayoutVersion": "1.0.0"})));
    let repositories = repositories(images);
    if !repositories.is_empty() {
        parts.push(file("repositories", json!(repositories)));
    }
    Ok(parts)
}

fn size(digest: Digest, lease: &Lease) -> Result<u64, SaveError> {
    let found = lease.store().blobs.path(digest).metadata();
    match found {
        Ok(found) => Ok(found.len()),
        Err(source) => Err(SaveError::Read {
            blob: digest,
            source,
        }),
    }
}

/// The image in index.json: once for each of its names.
fn index_entries(image: &Chosen, lease: &Lease) -> Result<Vec<Value>, SaveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        media_type: Option<String>,
    }
    let blob = image.record.manifest;
    let limit = lease.store().limits.metadata_bytes;
    let content = lease.store().blobs.read(blob, limit);
    let content = content.map_err(|source| SaveError::Read { blob, source })?;
    let manifest: Manifest =
        serde_json::from_slice(&content).map_err(|source| SaveError::Manifest { blob, source })?;
    let media_type = manifest.media_type.unwrap_or_else(|| MANIFEST.to_owned());
    let entry = json!({
        "mediaType": media_type,
        "digest": blob.to_string(),
        "size": content.len(),
        "platform": {
            "architecture": image.record.config.architecture().to_string(),
            "os": image.record.config.os().to_string(),
        },
    });
    let named = |name: &Reference| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": name.to_string(),
            "org.opencontainers.image.ref.name": name.tag(),
        });
        entry
    };
    match image.names.is_empty() {
        true => Ok(vec![entry]),
        false => Ok(image.names.iter().map(named).collect()),
    }
}

/// The image in manifest.json.
fn saved_image(image: &Chosen) -> Value {
    let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
    json!({
        "Config": blob_name(image.record.id),
        "RepoTags": (!names.is_empty()).then_some(names),
        "Layers": image.record.blobs.iter().map(|&layer| blob_name(layer)).collect::<Vec<_>>(),
    })
}

/// Names as Docker before 1.10 looked for them: repository, tag, uppermost layer.
fn repositories(images: &[Chosen]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let top = image.record.layers.last().map(|layer| layer.0.hex());
        for name in &image.names {
            if let (Some(tag), Some(top)) = (name.tag(), &top) {
                let tags = repositories.entry(name.familiar_repository()).or_default();
                tags.insert(tag.to_owned(), top.clone());
            }
        }
    }
    repositories
}
