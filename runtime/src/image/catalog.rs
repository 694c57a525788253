//! Which images there are, and under which names: everything the store decides without touching a file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use oci_spec::image::ImageConfiguration;

use super::digest::{Digest, LayerId};
use super::docker_config::DockerConfig;
use super::reference::Reference;

/// An image that is complete: all its layers are unpacked.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration, `sha256:…`: what Docker calls the image ID.
    pub id: String,
    /// Short names with tags, `redis:latest`, sorted.
    pub names: Vec<String>,
    /// Short names with the manifest's digest, `redis@sha256:…`, for what came from a registry.
    pub digests: Vec<String>,
    /// Digest of the manifest, `sha256:…`.
    pub manifest: String,
    /// Architecture, process defaults and history.
    pub config: Arc<ImageConfiguration>,
    /// What Docker added to the configuration.
    pub docker: Arc<DockerConfig>,
    /// Bytes of the unpacked files.
    pub size: u64,
    /// When it was built, if the configuration says.
    pub created: Option<SystemTime>,
    /// When it was last given a name here.
    pub last_tagged: Option<SystemTime>,
    /// ID of the image that it was made of here, if it was.
    pub parent: Option<String>,
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
}

/// Why no image was found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FindImageError {
    /// Neither a name nor the beginning of an ID.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// The beginning of several IDs.
    #[error("multiple images have an ID that begins with {0}; give more digits")]
    Ambiguous(String),
}

/// What the store keeps of one image.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: Digest,
    pub(crate) manifest: Digest,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) layers: Vec<LayerId>,
    pub(crate) size: u64,
    pub(crate) config: Arc<ImageConfiguration>,
    pub(crate) docker: Arc<DockerConfig>,
    pub(crate) parent: Option<Digest>,
    pub(crate) tagged: Option<jiff::Timestamp>,
    pub(crate) names: BTreeSet<Reference>,
    pub(crate) digests: BTreeSet<Reference>,
    /// What a later version of the program wrote beside it.
    pub(crate) unknown: BTreeMap<String, serde_json::Value>,
}

impl Record {
    pub(crate) fn to_image(&self) -> Image {
        Image {
            id: self.id.to_string(),
            names: familiar(&self.names),
            digests: familiar(&self.digests),
            manifest: self.manifest.to_string(),
            config: Arc::clone(&self.config),
            docker: Arc::clone(&self.docker),
            size: self.size,
            created: created(&self.config),
            last_tagged: self.tagged.and_then(|time| time.try_into().ok()),
            parent: self.parent.map(|parent| parent.to_string()),
            layers: self.layers.clone(),
        }
    }
}

/// The short forms, sorted.
pub(crate) fn familiar(names: &BTreeSet<Reference>) -> Vec<String> {
    let mut familiar: Vec<_> = names.iter().map(Reference::familiar).collect();
    familiar.sort();
    familiar
}

fn created(config: &ImageConfiguration) -> Option<SystemTime> {
    let stamp: jiff::Timestamp = config.created().as_deref()?.parse().ok()?;
    stamp.try_into().ok()
}

/// All images. A change is made on a copy, which takes its place once it is on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) records: Vec<Record>,
}

impl Catalog {
    /// Looks a name or an ID up in the order Docker does: whole ID, name, beginning of an ID.
    pub(crate) fn find(&self, text: &str) -> Result<&Record, FindImageError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Some(record) = self.records.iter().find(|record| record.id.hex() == hex) {
            return Ok(record);
        }
        if let Ok(name) = text.parse::<Reference>()
            && let Some(record) = self.named(&name)
        {
            return Ok(record);
        }
        let is_hex = !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut begun = self
            .records
            .iter()
            .filter(|record| is_hex && record.id.hex().starts_with(hex));
        match (begun.next(), begun.next()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(FindImageError::Ambiguous(text.to_owned())),
            (None, _) => Err(FindImageError::NoSuchImage(with_tag(text))),
        }
    }

    /// The image that bears `name`; its digest decides where it has one.
    pub(crate) fn named(&self, name: &Reference) -> Option<&Record> {
        self.records.iter().find(|record| match name.digest() {
            None => record.names.contains(name),
            Some(digest) => {
                record.digests.contains(&name.at_digest(digest))
                    || record.manifest == digest
                        && record
                            .names
                            .iter()
                            .any(|own| own.familiar_repository() == name.familiar_repository())
            }
        })
    }

    pub(crate) fn record_mut(&mut self, id: Digest) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.id == id)
    }

    /// Adds an image, or its names to the image already there. A name moves from whoever had it.
    pub(crate) fn add(&mut self, mut record: Record) {
        for name in &record.names {
            self.untag(name);
        }
        if !record.names.is_empty() {
            record.tagged = Some(jiff::Timestamp::now());
        }
        match self.record_mut(record.id) {
            None => self.records.push(record),
            Some(known) => {
                known.names.extend(record.names);
                known.digests.extend(record.digests);
                known.tagged = record.tagged.or(known.tagged);
            }
        }
    }

    /// Whether another image was made of this one here.
    pub(crate) fn has_children(&self, id: Digest) -> bool {
        self.records.iter().any(|record| record.parent == Some(id))
    }

    /// Gives the image `id` one more name, taken from whoever had it.
    pub(crate) fn tag(&mut self, id: Digest, name: Reference) {
        self.untag(&name);
        if let Some(record) = self.record_mut(id) {
            record.names.insert(name);
            record.tagged = Some(jiff::Timestamp::now());
        }
    }

    pub(crate) fn untag(&mut self, name: &Reference) {
        for record in &mut self.records {
            record.names.remove(name);
            record.digests.remove(name);
        }
    }

    /// Everything on disk that some image needs.
    pub(crate) fn live(&self) -> (HashSet<Digest>, HashSet<LayerId>) {
        let blobs = self
            .records
            .iter()
            .flat_map(|r| r.blobs.iter().copied().chain([r.id, r.manifest]));
        let layers = self.records.iter().flat_map(|r| r.layers.iter().copied());
        (blobs.collect(), layers.collect())
    }
}

/// The name as Docker repeats it in errors: with the tag it assumed.
fn with_tag(text: &str) -> String {
    text.parse()
        .map_or_else(|_| text.to_owned(), |name: Reference| name.familiar())
}

#[cfg(test)]
pub(in crate::image) mod tests;
