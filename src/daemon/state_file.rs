//! State on disk: written whole or not at all.

mod soon;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// What begins the name of a file that is to take another's place.
const DRAFT: &str = ".new-";

/// Replaces `path` with `value` as JSON, so that a crash leaves the old content or the new, never a part.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(value).context("encode")?;
    replace(path, &bytes).with_context(|| format!("write {}", path.display()))
}

/// As [`write()`], but returns before the disk has it: a daemon that is killed then has lost nothing, a power cut takes
/// back the last moment. For what is written with every container that comes and goes.
pub(crate) fn write_soon<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(value).context("encode")?;
    write_bytes_soon(path, &bytes).with_context(|| format!("write {}", path.display()))
}

/// As [`write_soon`], of what is JSON already.
pub(crate) fn write_bytes_soon(path: &Path, bytes: &[u8]) -> io::Result<()> {
    soon::replace(path, bytes)
}

/// As [`write()`], but only a crash of this process is survived, not one of the machine.
pub(crate) fn write_unsynced<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(value).context("encode")?;
    let written = draft(path, &bytes).and_then(|file| Ok(file.persist(path)?));
    written
        .map(drop)
        .with_context(|| format!("write {}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = draft(path, bytes)?;
    file.as_file().sync_all()?;
    soon::overtake(path, || Ok(file.persist(path).map(drop)?))?;
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// A file beside `path` that is to take its place.
fn draft(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new()
        .prefix(DRAFT)
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Removes what a process left in `directory` that was killed while it wrote there.
pub(crate) fn remove_drafts(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_draft = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(DRAFT.as_bytes());
        if is_draft {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Reads what [`write()`] or [`write_soon`] wrote; `None` when the file is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let bytes = read_bytes(path).with_context(|| format!("read {}", path.display()))?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .with_context(|| format!("parse {}", path.display()))
}

/// As [`read`], for others to make sense of.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if let Some(waiting) = soon::waiting(path)? {
        return Ok(Some(waiting));
    }
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Removes a directory and, before all else in it, the state that says what the directory is.
pub(crate) fn remove_with(directory: &Path, state: &Path) -> io::Result<()> {
    soon::overtake(state, || remove(state))?;
    remove(directory)
}

/// Removes a file or directory tree; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written_and_leaves_no_other_file() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        write(&path, &vec![1, 2])?;
        write(&path, &vec![3])?;
        assert_eq!(read::<Vec<u32>>(&path)?, Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn names_the_file_that_does_not_parse() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        fs::write(&path, "{")?;
        let error = read::<Vec<u32>>(&path).expect_err("half a document");
        assert!(format!("{error:#}").contains("value.json"), "{error:#}");
        Ok(())
    }

    #[test]
    fn an_absent_file_is_none_and_removing_it_no_error() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        assert_eq!(read::<u32>(&path)?, None);
        remove(&path)?;
        Ok(())
    }
}
