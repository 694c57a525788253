//! Blobs: files named by the digest of their content, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::digest::Digest;
use super::lease::Lease;
use super::store::Content;
use super::writeback::Writeback;

/// Why a blob could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreBlobError {
    /// The content is not what was announced.
    #[error("content has digest {found}, but {expected} was announced")]
    Mismatch {
        /// What the manifest or the file's name says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than announced or allowed.
    #[error("content is larger than the {limit} bytes announced or allowed")]
    TooLarge {
        /// The bytes that were expected at most.
        limit: u64,
    },
    /// The file system refused.
    #[error("store a blob under {}", path.display())]
    Io {
        /// The directory of the blobs.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The directory `blobs/sha256`.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    tmp: PathBuf,
}

impl Blobs {
    pub(crate) fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    pub(crate) fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// Reads a small blob, at most `limit` bytes.
    pub(crate) fn read(&self, digest: Digest, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open(digest)?
            .take(limit + 1)
            .read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {limit} bytes"),
            ));
        }
        Ok(content)
    }

    /// Starts a blob of at most `limit` bytes. Dropping the writer removes what it wrote.
    pub(crate) fn create(&self, limit: u64) -> Result<BlobWriter, StoreBlobError> {
        let file = NamedTempFile::new_in(&self.tmp).map_err(|source| self.failed(source))?;
        Ok(BlobWriter {
            file,
            hasher: Sha256::new(),
            written: 0,
            writeback: Writeback::default(),
            limit,
            blobs: self.clone(),
        })
    }

    /// Stores bytes already in memory.
    pub(crate) fn put(&self, content: &[u8], lease: &Lease) -> Result<Digest, StoreBlobError> {
        let mut writer = self.create(content.len() as u64)?;
        writer.write(content)?;
        Ok(writer.commit(None, lease)?.0)
    }

    fn failed(&self, source: io::Error) -> StoreBlobError {
        StoreBlobError::Io {
            path: self.dir.clone(),
            source,
        }
    }
}

/// A blob in the making.
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    hasher: Sha256,
    written: u64,
    writeback: Writeback,
    limit: u64,
    blobs: Blobs,
}

impl BlobWriter {
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<(), StoreBlobError> {
        self.written += content.len() as u64;
        if self.written > self.limit {
            return Err(StoreBlobError::TooLarge { limit: self.limit });
        }
        self.hasher.update(content);
        self.file
            .write_all(content)
            .map_err(|source| self.blobs.failed(source))?;
        self.writeback.written(self.file.as_file(), self.written);
        Ok(())
    }

    /// Makes the blob visible, if it is the one `expected`. Its bytes are on the disk when an image of it is recorded: a
    /// blob of which no image tells does not outlive the process.
    pub(crate) fn commit(
        self,
        expected: Option<Digest>,
        lease: &Lease,
    ) -> Result<(Digest, u64), StoreBlobError> {
        let found = Digest::from_hasher(self.hasher);
        if let Some(expected) = expected.filter(|&expected| expected != found) {
            return Err(StoreBlobError::Mismatch { expected, found });
        }
        lease.pin(Content::Blob(found));
        let path = self.blobs.path(found);
        self.writeback.end(self.file.as_file(), self.written);
        let persisted = self.file.persist(&path);
        persisted.map_err(|failed| self.blobs.failed(failed.error))?;
        Ok((found, self.written))
    }
}

/// Makes names created in or moved to `dir` outlive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces `path` by a file with `content`; at any moment the old or the new one is whole.
pub(crate) fn replace_file(path: &Path, tmp: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(tmp)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|failed| failed.error)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// A file's content, or nothing where there is no file.
pub(crate) fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
