//! What holds of each parser of what registries, archives and images hold, whatever bytes it is given.
//!
//! As in the other crates: the tests try what lies in `runtime/corpus`, and what small changes make of it; the targets in
//! `fuzz/` go on from there. Each function panics when something does not hold, and tells whether the bytes were taken.

use std::io;

use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

use super::digest::Digest;
use super::docker_config::DockerConfig;
use super::limits::Limits;
use super::platform::Platform;
use super::reference::Reference;
use super::registry;
use super::tarball::TarReader;
use super::unpack::unpack_over;
use crate::identity;

/// A name of an image: what is taken is the same when it is read again as people write it.
#[must_use]
pub fn reference(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(reference) = text.parse::<Reference>() else {
        return false;
    };
    for again in [reference.to_string(), reference.familiar()] {
        assert_eq!(
            again.parse::<Reference>().as_ref(),
            Ok(&reference),
            "{again}"
        );
        assert!(!again.contains(char::is_whitespace), "{again:?}");
    }
    assert!(
        !reference
            .repository()
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    );
    true
}

/// A manifest, an index or a configuration, which registries and archives give as the one they like.
#[must_use]
pub fn manifest(bytes: &[u8]) -> bool {
    let _ = DockerConfig::read(bytes);
    if let Ok(index) = serde_json::from_slice::<ImageIndex>(bytes) {
        let chosen = Platform::host().choose(&index);
        let _ = chosen.map(|chosen| chosen.digest().to_string().parse::<Digest>());
        return true;
    }
    if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(bytes) {
        let digests = manifest
            .layers()
            .iter()
            .map(|layer| layer.digest().to_string());
        for digest in digests.filter_map(|digest| digest.parse::<Digest>().ok()) {
            assert_eq!(digest.hex().len(), 64);
        }
        return true;
    }
    serde_json::from_slice::<ImageConfiguration>(bytes).is_ok()
}

/// A plain tar, as an archive's or a layer's is: it has no more entries and no more bytes than allowed.
#[must_use]
pub fn tar(bytes: &[u8]) -> bool {
    const MOST: u64 = 50;
    let mut reader = TarReader::new(bytes, MOST);
    let (mut entries, mut stored) = (0, 0);
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => entries += 1,
            Ok(None) => return entries > 0,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        }
        assert!(entries <= MOST);
        stored += io::copy(&mut reader, &mut io::sink()).unwrap_or_default();
        assert!(stored <= bytes.len() as u64);
    }
}

/// A layer, which is unpacked: nothing of it comes to lie outside.
///
/// # Panics
///
/// Also where no temporary directory is to be had.
#[must_use]
pub fn layer(bytes: &[u8]) -> bool {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = place.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    let limits = Limits {
        entries: 50,
        layer_bytes: 1 << 20,
        ..Limits::default()
    };
    let unpacked = unpack_over(bytes, &root, &[], &limits);
    let outside = std::fs::read_dir(place.path()).expect("it is there");
    assert_eq!(outside.count(), 1);
    match unpacked {
        Ok(size) => size <= limits.layer_bytes,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// A `WWW-Authenticate` header.
#[must_use]
pub fn challenge(bytes: &[u8]) -> bool {
    registry::is_challenge(&String::from_utf8_lossy(bytes))
}

/// An image's `passwd` and `group`, one after the other: whoever is found has the numbers that stand there.
#[must_use]
pub fn accounts(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (passwd, group) = text.split_once("--\n").unwrap_or((&text, ""));
    let mut found = false;
    for user in ["", "redis", "redis:log", "1000", "nobody:12"] {
        found |= identity::find(user, passwd, group).is_ok();
    }
    found
}

#[cfg(test)]
mod tests;
