//! What is left to do for a layer's files once the layers beneath are there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::error::{UnpackError, failed};
use super::lower::Lower;
use super::path::EntryPath;
use super::tree::Tree;

/// The files of an archive, all but finished: some directories are to look as they do in the layers beneath.
pub(crate) struct Unpacked {
    pub(super) tree: Tree,
    pub(super) bytes: u64,
    /// Directories that only the names below them tell of, by inode.
    pub(super) implied: BTreeMap<u64, EntryPath>,
}

impl Unpacked {
    /// Finishes them, now that `lower`, the layers beneath, are there. Gives back the bytes of all files.
    pub(crate) fn settle(self, lower: &Lower) -> Result<u64, UnpackError> {
        for (known, path) in &self.implied {
            let Some(attributes) = lower.dir_attributes(path) else {
                continue;
            };
            let give = |dir: OwnedFd| match inode(dir.as_fd())? == *known {
                true => attributes.give(dir.as_fd()),
                false => Ok(()), // a later entry took its place
            };
            match self.tree.dir(path) {
                Ok(dir) => give(dir).map_err(|source| failed(path, source))?,
                Err(errno) if is_replaced(errno) => {}
                Err(errno) => return Err(failed(path, errno.into())),
            }
        }
        Ok(self.bytes)
    }
}

/// Whether a directory that was there is not any more, since a later entry took its place or led elsewhere.
pub(super) fn is_replaced(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP
    )
}

pub(super) fn inode(dir: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(dir)?.st_ino)
}

/// [`unpack`] over layers that are there, uppermost first. Gives back the bytes of all files.
#[cfg(any(test, fuzzing))]
pub(crate) fn unpack_over(
    archive: impl io::Read,
    root: &std::path::Path,
    lower: &[std::path::PathBuf],
    limits: &crate::image::Limits,
) -> Result<u64, UnpackError> {
    let lower = Lower::open(lower).expect("the layers beneath are there");
    super::unpack(archive, root, Some(&lower), limits)?.settle(&lower)
}
