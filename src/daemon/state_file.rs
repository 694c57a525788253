//! State on disk: written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces `path` with `value` as JSON, so that a crash leaves the old content or the new, never a part.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(value).context("encode")?;
    replace(path, &bytes).with_context(|| format!("write {}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Reads what [`write()`] wrote; `None` when the file is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .with_context(|| format!("parse {}", path.display()))
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
