//! An image made here: a new layer, and a configuration and a manifest that have it on top.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::blob::{BlobWriter, StoreBlobError};
use super::digest::Digest;
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::platform::Platform;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Why an image could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The image beneath cannot be read.
    #[error("read {blob} of the image store")]
    Read {
        /// The blob.
        blob: Digest,
        /// What the kernel said.
        source: io::Error,
    },
    /// The image beneath is not what it should be.
    #[error("{blob} of the image store is malformed")]
    Json {
        /// The blob.
        blob: Digest,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A part of it cannot be stored.
    #[error(transparent)]
    Blob(#[from] StoreBlobError),
    /// What was put together makes no image.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// What is said of a new image.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Process defaults, as Docker's JSON has them.
    pub config: Value,
    /// Who made it.
    pub author: String,
    /// What for.
    pub comment: String,
    /// By which command.
    pub created_by: String,
}

/// A layer that was stored.
pub(super) struct NewLayer {
    pub(super) blob: Digest,
    /// Digest of its plain tar.
    pub(super) diff: Digest,
    pub(super) size: u64,
}

/// Compresses and stores a layer's tar as it is written.
pub(super) struct LayerWriter {
    encoder: GzEncoder<Sink>,
    hasher: Sha256,
}

struct Sink(BlobWriter);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LayerWriter {
    pub(super) fn new(lease: &Lease) -> Result<Self, StoreBlobError> {
        let store = lease.store();
        let blob = store.blobs.create(store.limits.blob_bytes)?;
        Ok(Self {
            encoder: GzEncoder::new(Sink(blob), Compression::fast()),
            hasher: Sha256::new(),
        })
    }

    /// Makes the layer one of the store's blobs.
    pub(super) fn finish(self, lease: &Lease) -> io::Result<NewLayer> {
        let Sink(blob) = self.encoder.finish()?;
        let (blob, size) = blob.commit(None, lease).map_err(io::Error::other)?;
        Ok(NewLayer {
            blob,
            diff: Digest::from_hasher(self.hasher),
            size,
        })
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// The image beneath: its configuration and its manifest.
pub(super) struct Base {
    pub(super) id: Digest,
    pub(super) manifest: Digest,
    pub(super) layers: Vec<Digest>,
}

/// Stores the configuration and the manifest of `layer` on top of `base`; without a layer of its own the image differs
/// by what is said of it.
pub(super) fn compose(
    lease: &Arc<Lease>,
    base: Option<&Base>,
    layer: Option<&NewLayer>,
    about: &About,
    platform: &Platform,
) -> Result<Plan, ComposeError> {
    let read = |blob: Digest| -> Result<Value, ComposeError> {
        let store = lease.store();
        let content = store.blobs.read(blob, store.limits.metadata_bytes);
        let content = content.map_err(|source| ComposeError::Read { blob, source })?;
        serde_json::from_slice(&content).map_err(|source| ComposeError::Json { blob, source })
    };
    let (config, manifest) = match base {
        Some(base) => (read(base.id)?, read(base.manifest)?),
        None => (
            json!({"architecture": platform.architecture(), "os": platform.os()}),
            json!({}),
        ),
    };
    let now = jiff::Timestamp::now().to_string();
    let config = describe(config, layer, about, &now).to_string();
    let blobs = &lease.store().blobs;
    let id = blobs.put(config.as_bytes(), lease)?;
    let manifest = stack(manifest, layer, id, config.len()).to_string();
    let manifest = blobs.put(manifest.as_bytes(), lease)?;
    let mut layers = base.map(|base| base.layers.clone()).unwrap_or_default();
    layers.extend(layer.map(|layer| layer.blob));
    let mut plan = Plan::new(lease, id, manifest, &layers)?;
    plan.parent = base.map(|base| base.id);
    Ok(plan)
}

/// The configuration of the image beneath, made that of the new one.
fn describe(mut config: Value, layer: Option<&NewLayer>, about: &About, now: &str) -> Value {
    let Some(fields) = config.as_object_mut() else {
        return config;
    };
    // What older engines wrote of the container that it was made in.
    for stale in [
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
    ] {
        fields.shift_remove(stale);
    }
    let mut step = Map::new();
    step.insert("created".to_owned(), now.into());
    for (key, text) in [
        ("author", &about.author),
        ("created_by", &about.created_by),
        ("comment", &about.comment),
    ] {
        if !text.is_empty() {
            step.insert(key.to_owned(), text.clone().into());
        }
    }
    for (key, text) in [("author", &about.author), ("comment", &about.comment)] {
        match text.as_str() {
            "" => drop(fields.shift_remove(key)),
            text => drop(fields.insert(key.to_owned(), text.into())),
        }
    }
    if layer.is_none() {
        step.insert("empty_layer".to_owned(), true.into());
    }
    fields.insert("created".to_owned(), now.into());
    fields.insert("config".to_owned(), about.config.clone());
    let mut diffs = match fields
        .get("rootfs")
        .and_then(|rootfs| rootfs.get("diff_ids"))
    {
        Some(Value::Array(diffs)) => diffs.clone(),
        _ => Vec::new(),
    };
    diffs.extend(layer.map(|layer| layer.diff.to_string().into()));
    let rootfs = json!({"type": "layers", "diff_ids": diffs});
    fields.insert("rootfs".to_owned(), rootfs);
    match fields.get_mut("history") {
        Some(Value::Array(history)) => history.push(step.into()),
        _ => drop(fields.insert("history".to_owned(), json!([step]))),
    }
    config
}

/// The manifest of the image beneath, made that of the new one: in Docker's words if it has those, else in OCI's.
fn stack(base: Value, layer: Option<&NewLayer>, id: Digest, config_size: usize) -> Value {
    let is_dockers = base.get("mediaType").and_then(Value::as_str) == Some(DOCKER_MANIFEST);
    let (manifest, layer_type) = match is_dockers {
        true => (DOCKER_MANIFEST, DOCKER_LAYER),
        false => (OCI_MANIFEST, OCI_LAYER),
    };
    let config_type = base.pointer("/config/mediaType").and_then(Value::as_str);
    let mut layers = match base.get("layers") {
        Some(Value::Array(layers)) => layers.clone(),
        _ => Vec::new(),
    };
    layers.extend(layer.map(|layer| {
        json!({"mediaType": layer_type, "digest": layer.blob.to_string(), "size": layer.size})
    }));
    json!({
        "schemaVersion": 2,
        "mediaType": manifest,
        "config": {
            "mediaType": config_type.unwrap_or(OCI_CONFIG),
            "digest": id.to_string(),
            "size": config_size,
        },
        "layers": layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> NewLayer {
        NewLayer {
            blob: Digest::of(b"blob"),
            diff: Digest::of(b"diff"),
            size: 7,
        }
    }

    #[test]
    fn a_layer_and_a_step_are_added_and_the_rest_stays() {
        let base = json!({"architecture": "arm64", "os": "linux", "container": "x", "own": 1,
            "comment": "old", "rootfs": {"type": "layers", "diff_ids": ["sha256:a"]},
            "history": [{"created_by": "first"}]});
        let about = About {
            config: json!({"Cmd": ["a"]}),
            author: "me".to_owned(),
            created_by: "sh".to_owned(),
            ..About::default()
        };
        let layer = layer();
        let config = describe(base, Some(&layer), &about, "now");
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!(["sha256:a", layer.diff.to_string()])
        );
        assert_eq!(
            config["history"],
            json!([{"created_by": "first"}, {"created": "now", "author": "me", "created_by": "sh"}])
        );
        assert_eq!(
            (&config["own"], &config["author"]),
            (&json!(1), &json!("me"))
        );
        assert_eq!(config["config"], about.config);
        assert!(config.get("container").is_none() && config.get("comment").is_none());

        let same = describe(config, None, &about, "later");
        assert_eq!(same["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2));
        assert_eq!(same["history"][2]["empty_layer"], true);
    }

    #[test]
    fn a_manifest_keeps_to_the_words_of_the_one_beneath() {
        let id = Digest::of(b"config");
        let docker = stack(json!({"mediaType": DOCKER_MANIFEST}), Some(&layer()), id, 5);
        assert_eq!(docker["layers"][0]["mediaType"], DOCKER_LAYER);
        let oci = stack(json!({"layers": [{"digest": "sha256:a"}]}), None, id, 5);
        assert_eq!(oci["layers"], json!([{"digest": "sha256:a"}]));
        assert_eq!(oci["config"]["digest"], id.to_string());
    }
}
