//! Layers that are stored as plain tars go out compressed, as Docker's do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use serde_json::Value;

use super::error::PushError;
use crate::image::compose::{LayerWriter, NewLayer};
use crate::image::digest::Digest;
use crate::image::lease::Lease;

/// Media types of plain tars, and what they are called compressed.
const PLAIN: [(&str, &str); 2] = [
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
];

/// The manifest `blob` as a registry is to have it: the same, unless a layer had to be compressed. Such layers are blobs
/// for as long as `lease`. Blocks.
pub(super) fn shrunk(lease: &Lease, blob: Digest, content: Vec<u8>) -> Result<Vec<u8>, PushError> {
    let manifest = serde_json::from_slice(&content);
    let mut manifest: Value = manifest.map_err(|source| PushError::Manifest { blob, source })?;
    let mut made = HashMap::new();
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut);
    for layer in layers.into_iter().flatten() {
        let media_type = layer["mediaType"].as_str();
        let Some((_, compressed)) = PLAIN.iter().find(|(plain, _)| media_type == Some(*plain))
        else {
            continue;
        };
        let plain: Digest = layer["digest"].as_str().unwrap_or_default().parse()?;
        let NewLayer { blob, size, .. } = match made.entry(plain) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(room) => {
                let read = |source| PushError::Read {
                    blob: plain,
                    source,
                };
                room.insert(compress(lease, plain).map_err(read)?)
            }
        };
        layer["mediaType"] = (*compressed).into();
        layer["digest"] = blob.to_string().into();
        layer["size"] = (*size).into();
    }
    match made.is_empty() {
        true => Ok(content),
        false => Ok(manifest.to_string().into_bytes()),
    }
}

fn compress(lease: &Lease, plain: Digest) -> io::Result<NewLayer> {
    let mut file = lease.store().blobs.open(plain)?;
    let mut writer = LayerWriter::new(lease).map_err(io::Error::other)?;
    io::copy(&mut file, &mut writer)?;
    writer.finish(lease)
}
