//! The mirror's copy on disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Keys and values of the registry as of one revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) revision: i64,
    /// When it was last known to be true.
    pub(super) written: SystemTime,
    pub(super) entries: BTreeMap<String, Vec<u8>>,
}

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the file is damaged")]
    Damaged(#[from] serde_json::Error),
    #[error("the file has version {0}, not 1")]
    Version(u64),
}

#[derive(Deserialize, Serialize)]
struct SnapshotWire {
    v: u64,
    revision: i64,
    written_ms: u64,
    /// Values are JSON texts; one that is not even text was quarantined and is not worth keeping.
    entries: BTreeMap<String, String>,
}

impl From<Snapshot> for SnapshotWire {
    fn from(snapshot: Snapshot) -> Self {
        let since = snapshot
            .written
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let text = |(key, value)| Some((key, String::from_utf8(value).ok()?));
        Self {
            v: 1,
            revision: snapshot.revision,
            written_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            entries: snapshot.entries.into_iter().filter_map(text).collect(),
        }
    }
}

/// Reads the snapshot at `path`; `None` if there is none.
pub(super) async fn load(path: PathBuf) -> Result<Option<Snapshot>, SnapshotError> {
    blocking(move || {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let wire: SnapshotWire = serde_json::from_slice(&bytes)?;
        if wire.v != 1 {
            return Err(SnapshotError::Version(wire.v));
        }
        let bytes = |(key, value): (String, String)| (key, value.into_bytes());
        Ok(Some(Snapshot {
            revision: wire.revision,
            written: UNIX_EPOCH
                .checked_add(Duration::from_millis(wire.written_ms))
                .unwrap_or(UNIX_EPOCH),
            entries: wire.entries.into_iter().map(bytes).collect(),
        }))
    })
    .await
}

/// Replaces the snapshot at `path`: after a crash there is the old one or the new one, whole.
pub(super) async fn save(path: PathBuf, snapshot: Snapshot) -> Result<(), SnapshotError> {
    blocking(move || {
        let bytes = serde_json::to_vec(&SnapshotWire::from(snapshot))?;
        let next = path.with_extension("next");
        let mut file = private(&next).map_err(failed("create", &next))?;
        file.write_all(&bytes).map_err(failed("write", &next))?;
        file.sync_all().map_err(failed("sync", &next))?;
        fs::rename(&next, &path).map_err(failed("replace", &path))
    })
    .await
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io {
        operation,
        path,
        source,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[tokio::test]
    async fn comes_back_and_says_when_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.json");
        assert!(load(path.clone()).await.unwrap().is_none());
        let snapshot = Snapshot {
            revision: 7,
            written: UNIX_EPOCH + Duration::from_millis(1234),
            entries: BTreeMap::from([("/nuncio/v1/alive/a".to_owned(), b"{}".to_vec())]),
        };
        save(path.clone(), snapshot.clone()).await.unwrap();
        save(path.clone(), snapshot.clone()).await.unwrap();
        assert_eq!(load(path.clone()).await.unwrap(), Some(snapshot));
        fs::write(&path, "{\"v\":1,").unwrap();
        assert!(matches!(
            load(path.clone()).await,
            Err(SnapshotError::Damaged(_))
        ));
        let later = r#"{"v":2,"revision":1,"written_ms":0,"entries":{}}"#;
        fs::write(&path, later).unwrap();
        assert!(matches!(load(path).await, Err(SnapshotError::Version(2))));
    }
}
