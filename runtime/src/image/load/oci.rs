//! An OCI image layout: index.json leads to manifests, perhaps through further indexes.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::archive::{Archive, json};
use super::{Found, LoadError, MAX_IMAGES, digest_of};
use crate::image::digest::Digest;
use crate::image::install::Plan;
use crate::image::lease::Lease;
use crate::image::platform::Platform;
use crate::image::reference::Reference;

/// Indexes that may lie within each other.
const MAX_DEPTH: usize = 4;
/// The full name, as containerd and BuildKit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The name, or only the tag, as the specification leaves it open.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn images(archive: &Archive, lease: &Lease) -> Result<Vec<Found>, LoadError> {
    let index: ImageIndex = archive.json("index.json", lease)?;
    if index.manifests().len() > MAX_IMAGES {
        return Err(LoadError::TooManyImages { limit: MAX_IMAGES });
    }
    let platform = Platform::host();
    let mut found: Vec<Found> = Vec::new();
    for entry in index.manifests() {
        let Some(manifest) = resolve(entry, archive, lease, &platform)? else {
            continue;
        };
        let names = names(entry)?;
        let plan = plan(manifest, archive, lease)?;
        match found.iter_mut().find(|known| known.plan.id == plan.id) {
            Some(known) => known.names.extend(names), // one image under several names
            None => found.push(Found { plan, names }),
        }
    }
    if found.is_empty() {
        return Err(LoadError::Platform { platform });
    }
    Ok(found)
}

/// The manifest that an entry stands for, by way of indexes the one for `platform`.
fn resolve(
    entry: &Descriptor,
    archive: &Archive,
    lease: &Lease,
    platform: &Platform,
) -> Result<Option<Digest>, LoadError> {
    let mut digest = archive.blob(digest_of(entry)?)?;
    for _ in 0..MAX_DEPTH {
        let content: serde_json::Value = json(&digest.to_string(), digest, lease)?;
        if content.get("manifests").is_none() {
            return Ok(content.get("config").is_some().then_some(digest));
        }
        let name = digest.to_string();
        let index: ImageIndex =
            serde_json::from_value(content).map_err(|source| LoadError::Json { name, source })?;
        let Some(chosen) = platform.choose(&index) else {
            return Ok(None);
        };
        digest = archive.blob(digest_of(chosen)?)?;
    }
    Ok(None)
}

fn plan(digest: Digest, archive: &Archive, lease: &Lease) -> Result<Plan, LoadError> {
    let manifest: ImageManifest = json(&digest.to_string(), digest, lease)?;
    let config = archive.blob(digest_of(manifest.config())?)?;
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| archive.blob(digest_of(layer)?));
    let layers = layers.collect::<Result<Vec<_>, LoadError>>()?;
    let planned = Plan::new(lease, config, digest, &layers);
    planned.map_err(|source| LoadError::Install {
        name: config.to_string(),
        source: Box::new(source),
    })
}

fn names(entry: &Descriptor) -> Result<BTreeSet<Reference>, LoadError> {
    let Some(annotations) = entry.annotations() else {
        return Ok(BTreeSet::new());
    };
    let full = annotations.get(CONTAINERD_NAME);
    // A word without a separator is only a tag, of a repository that the archive does not tell.
    let open = annotations
        .get(REF_NAME)
        .filter(|name| name.contains(['/', ':', '@']));
    let name = full
        .or(open)
        .map(|name| name.parse::<Reference>())
        .transpose()?;
    Ok(name.and_then(|name| name.tagged()).into_iter().collect())
}
