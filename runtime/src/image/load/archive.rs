//! The files of an archive, stored as they come: which of them matter is known only at the end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::ahead::Ahead;
use super::{Found, LoadError, docker, oci};
use crate::image::blob::StoreBlobError;
use crate::image::decompress::{BUFFER, decompress};
use crate::image::digest::Digest;
use crate::image::lease::Lease;
use crate::image::tarball::{BLOCK, Entry, Kind, TarError, TarReader, is_tar};

/// Symbolic links between files that are followed: `docker save` writes one for a repeated layer.
const MAX_LINKS: usize = 4;
/// Where an OCI layout keeps blobs, named by their digest.
const BLOBS: &str = "blobs/sha256/";

/// What an archive holds, by normalised name.
pub(super) struct Archive {
    files: HashMap<String, Digest>,
    links: HashMap<String, String>,
}

impl Archive {
    /// Stores the files of `stream` as blobs that `lease` holds. What looks like a layer is begun with `ahead`.
    pub(super) fn read(
        stream: impl Read + Send,
        lease: &Arc<Lease>,
        ahead: &Ahead,
    ) -> Result<Self, LoadError> {
        let limits = lease.store().limits;
        let plain = decompress(stream).map_err(TarError::Read)?;
        let mut reader = TarReader::new(plain.take(limits.blob_bytes), limits.entries);
        let mut archive = Self {
            files: HashMap::new(),
            links: HashMap::new(),
        };
        while let Some(entry) = reader.next_entry()? {
            if archive.files.len() + archive.links.len() >= limits.archive_entries {
                return Err(LoadError::TooManyFiles {
                    limit: limits.archive_entries,
                });
            }
            let name = normal(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::File => {
                    let (digest, is_layer) = store(&entry, &name, &mut reader, lease)?;
                    if is_layer {
                        ahead.begin(digest, lease);
                    }
                    archive.files.insert(name, digest);
                }
                Kind::Symlink => {
                    let target = String::from_utf8_lossy(&entry.link);
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    archive
                        .links
                        .insert(name.clone(), normal(&format!("{dir}/{target}")));
                }
                Kind::HardLink => {
                    archive
                        .links
                        .insert(name, normal(&String::from_utf8_lossy(&entry.link)));
                }
                _ => {}
            }
        }
        reader.drain().map_err(TarError::Read)?;
        Ok(archive)
    }

    /// The images in it. Newer `docker save` writes both indexes; Docker's own names more.
    pub(super) fn images(&self, lease: &Lease) -> Result<Vec<Found>, LoadError> {
        if self.file("manifest.json").is_ok() {
            return docker::images(self, lease);
        }
        if self.file("index.json").is_ok() {
            return oci::images(self, lease);
        }
        Err(LoadError::NoImage)
    }

    /// The blob that is the file `name`.
    pub(super) fn file(&self, name: &str) -> Result<Digest, LoadError> {
        let mut at = normal(name);
        for _ in 0..=MAX_LINKS {
            if let Some(&digest) = self.files.get(&at) {
                return Ok(digest);
            }
            match self.links.get(&at) {
                Some(target) => at.clone_from(target),
                None => break,
            }
        }
        Err(LoadError::Missing {
            name: name.to_owned(),
        })
    }

    /// The blob with this digest, which must have come with the archive.
    pub(super) fn blob(&self, digest: Digest) -> Result<Digest, LoadError> {
        self.file(&format!("{BLOBS}{}", digest.hex()))
    }

    /// The content of a JSON file.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        name: &str,
        lease: &Lease,
    ) -> Result<T, LoadError> {
        json(name, self.file(name)?, lease)
    }
}

/// The content of a blob, called `name` in errors, as JSON.
pub(super) fn json<T: DeserializeOwned>(
    name: &str,
    digest: Digest,
    lease: &Lease,
) -> Result<T, LoadError> {
    let limit = lease.store().limits.metadata_bytes;
    let content = lease
        .store()
        .blobs
        .read(digest, limit)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::FileTooLarge => LoadError::MetadataTooLarge {
                name: name.to_owned(),
                limit,
            },
            _ => LoadError::Io(error),
        })?;
    serde_json::from_slice(&content).map_err(|source| LoadError::Json {
        name: name.to_owned(),
        source,
    })
}

/// Stores one file. Gives back also whether it looks like a plain tar.
fn store(
    entry: &Entry,
    name: &str,
    data: &mut impl Read,
    lease: &Lease,
) -> Result<(Digest, bool), LoadError> {
    let failed = |source| LoadError::Blob {
        name: format!("{:?}", OsStr::from_bytes(&entry.path)),
        source,
    };
    let expected = name.strip_prefix(BLOBS).and_then(Digest::from_hex);
    let blobs = &lease.store().blobs;
    let mut writer = blobs
        .create(lease.store().limits.blob_bytes)
        .map_err(failed)?;
    let mut buffer = vec![0; BUFFER];
    let mut begin = Vec::with_capacity(BLOCK);
    let first = data.take(BLOCK as u64).read_to_end(&mut begin);
    first.map_err(TarError::Read)?;
    writer.write(&begin).map_err(failed)?;
    loop {
        match data.read(&mut buffer).map_err(TarError::Read)? {
            0 => break,
            count => writer.write(&buffer[..count]).map_err(failed)?,
        }
    }
    let (digest, _): (_, u64) = writer
        .commit(expected, lease)
        .map_err(|source: StoreBlobError| failed(source))?;
    Ok((digest, is_tar(&begin)))
}

/// A name without `.`, doubled slashes and `..`: two names are one file if they look the same then.
fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_are_compared_without_detours() {
        assert_eq!(normal("./blobs//sha256/x"), "blobs/sha256/x");
        assert_eq!(normal("a/../b/layer.tar"), "b/layer.tar");
        assert_eq!(normal("../../b"), "b");
    }
}
