//! `images.json`: the catalogue on disk. Its format has this one home.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::blob::{self, Blobs};
use super::catalog::{Catalog, Record};
use super::digest::{Digest, InvalidDigest, LayerId};
use super::docker_config::DockerConfig;
use super::reference::InvalidReference;

const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct IndexFile {
    v: u32,
    images: Vec<ImageEntry>,
}

#[derive(Deserialize, Serialize)]
struct ImageEntry {
    id: String,
    manifest: String,
    blobs: Vec<String>,
    layers: Vec<String>,
    size: u64,
    names: Vec<String>,
    digests: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tagged: Option<jiff::Timestamp>,
    /// Fields of a later version, kept on rewrite.
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// Why the list of images could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    /// The file system refused.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The content is not what this program writes.
    #[error("{} is damaged", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A later version wrote it.
    #[error("{} has format {found}, this program knows format {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: u32,
    },
    /// A digest in it is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A name in it is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
}

/// Reads the catalogue at `path`, and of each image its configuration; no file is no images.
pub(crate) fn read(path: &Path, blobs: &Blobs, limit: u64) -> Result<Catalog, ReadIndexError> {
    let failed = |path: &Path, source| ReadIndexError::Io {
        path: path.to_owned(),
        source,
    };
    let Some(content) = blob::read_if_present(path).map_err(|source| failed(path, source))? else {
        return Ok(Catalog::default());
    };
    let damaged = |path: PathBuf, source| ReadIndexError::Json { path, source };
    let file: IndexFile =
        serde_json::from_slice(&content).map_err(|source| damaged(path.to_owned(), source))?;
    if file.v != VERSION {
        return Err(ReadIndexError::Version {
            path: path.to_owned(),
            found: file.v,
        });
    }
    let mut records = Vec::with_capacity(file.images.len());
    for entry in file.images {
        let id: Digest = entry.id.parse()?;
        let config_path = blobs.path(id);
        let content = blobs
            .read(id, limit)
            .map_err(|source| failed(&config_path, source))?;
        let config: ImageConfiguration =
            serde_json::from_slice(&content).map_err(|source| damaged(config_path, source))?;
        let docker = DockerConfig::read(&content);
        records.push(entry.into_record(id, config, docker)?);
    }
    Ok(Catalog { records })
}

/// Replaces the catalogue at `path`, so that a reader sees the old or the new one whole.
pub(crate) fn write(catalog: &Catalog, path: &Path, tmp: &Path) -> io::Result<()> {
    let images = catalog.records.iter().map(ImageEntry::of).collect();
    let content = serde_json::to_vec_pretty(&IndexFile { v: VERSION, images })?;
    blob::replace_file(path, tmp, &content)
}

impl ImageEntry {
    fn of(record: &Record) -> Self {
        Self {
            id: record.id.to_string(),
            manifest: record.manifest.to_string(),
            blobs: record.blobs.iter().map(ToString::to_string).collect(),
            layers: record.layers.iter().map(ToString::to_string).collect(),
            size: record.size,
            names: record.names.iter().map(ToString::to_string).collect(),
            digests: record.digests.iter().map(ToString::to_string).collect(),
            parent: record.parent.map(|parent| parent.to_string()),
            tagged: record.tagged,
            unknown: record.unknown.clone(),
        }
    }

    fn into_record(
        self,
        id: Digest,
        config: ImageConfiguration,
        docker: DockerConfig,
    ) -> Result<Record, ReadIndexError> {
        let digests = |texts: Vec<String>| {
            texts
                .iter()
                .map(|text| text.parse())
                .collect::<Result<Vec<_>, _>>()
        };
        let names = |texts: Vec<String>| {
            texts
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()
        };
        Ok(Record {
            id,
            manifest: self.manifest.parse()?,
            blobs: digests(self.blobs)?,
            layers: digests(self.layers)?.into_iter().map(LayerId).collect(),
            size: self.size,
            config: Arc::new(config),
            docker: Arc::new(docker),
            parent: self.parent.map(|parent| parent.parse()).transpose()?,
            tagged: self.tagged,
            names: names(self.names)?,
            digests: names(self.digests)?,
            unknown: self.unknown,
        })
    }
}
