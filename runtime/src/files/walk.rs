//! Walking a tree that may change meanwhile.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::root::Root;

/// Something in a directory of the tree.
pub(crate) struct Found<'a> {
    /// The directory it is in.
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// Where it is below the top, without a slash before it.
    pub(crate) path: &'a [u8],
    pub(crate) stat: Stat,
}

impl Found<'_> {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Shows `visit` all that is below the directory `top`, a directory before what it holds and names in their order. What
/// vanishes meanwhile is left out, and links are not followed. `visit` says whether to look into a directory.
///
/// # Errors
///
/// The first of `visit` or the kernel.
pub(crate) fn walk<E: From<io::Error>>(
    top: BorrowedFd<'_>,
    mut visit: impl FnMut(&Found<'_>) -> Result<bool, E>,
) -> Result<(), E> {
    let root = Root::of(top.try_clone_to_owned()?);
    // One directory is open at a time, so that a deep tree costs no descriptors.
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let dir = match open(&root, &path) {
            Ok(dir) => dir,
            Err(errno) if vanished(errno) && !path.is_empty() => continue,
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let mut below = Vec::new();
        for name in names(&dir)? {
            let name = OsStr::from_bytes(&name);
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(io::Error::from(errno).into()),
            };
            let mut whole = path.clone();
            if !whole.is_empty() {
                whole.push(b'/');
            }
            whole.extend_from_slice(name.as_bytes());
            let found = Found {
                dir: dir.as_fd(),
                name,
                path: &whole,
                stat,
            };
            if visit(&found)? && found.kind() == FileType::Directory {
                below.push(whole);
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

fn open(root: &Root, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    root.beneath(OsStr::from_bytes(path))
}

/// Whether a directory seen before is none any more.
fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What a tree takes on its disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Bytes of all files, each counted once however many names it has.
    pub bytes: u64,
    /// Files, directories and all else.
    pub entries: u64,
}

/// Adds up what is below `top`; a directory that is not there takes nothing.
///
/// # Errors
///
/// What the kernel says if it cannot be read.
pub fn usage(top: &std::path::Path) -> io::Result<Usage> {
    let root = match Root::open(top) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Usage::default()),
        Err(error) => return Err(error),
    };
    let mut sum = Usage::default();
    let mut linked = HashSet::new();
    walk::<io::Error>(root.as_fd(), |found| {
        sum.entries += 1;
        let first = found.stat.st_nlink < 2
            || found.kind() == FileType::Directory
            || linked.insert((found.stat.st_dev, found.stat.st_ino));
        if first && found.kind() == FileType::RegularFile {
            sum.bytes = sum.bytes.saturating_add(found.stat.st_size.cast_unsigned());
        }
        Ok(true)
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_comes_before_what_it_holds_and_links_are_not_followed() -> io::Result<()> {
        let top = tempfile::tempdir()?;
        fs::create_dir_all(top.path().join("b/c"))?;
        fs::write(top.path().join("b/c/file"), "four")?;
        fs::hard_link(top.path().join("b/c/file"), top.path().join("z"))?;
        symlink("/", top.path().join("a"))?;
        let root = Root::open(top.path())?;
        let mut seen = Vec::new();
        walk::<io::Error>(root.as_fd(), |found| {
            seen.push(String::from_utf8_lossy(found.path).into_owned());
            Ok(true)
        })?;
        assert_eq!(seen, ["a", "b", "z", "b/c", "b/c/file"]);
        let counted = usage(top.path())?;
        assert_eq!((counted.bytes, counted.entries), (4, 5));
        assert_eq!(usage(&top.path().join("absent"))?, Usage::default());
        Ok(())
    }
}
