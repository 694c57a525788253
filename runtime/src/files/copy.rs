//! Copying a tree with all that its inodes have.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::Root;
use super::walk::{Found, walk};
use crate::image::{Attributes, tree};

/// Copies what is in the directory `from` into the empty directory `to`, and gives `to` the attributes of `from`:
/// owners, modes, times, extended attributes and hard links are kept. Sockets are left out, and what vanishes meanwhile.
///
/// # Errors
///
/// What the kernel says; then `to` holds a part.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let target = Root::of(to.try_clone_to_owned()?);
    let mut copier = Copier {
        target,
        above: None,
        linked: HashMap::new(),
        directories: Vec::new(),
    };
    walk(from, |found| copier.place(found))?;
    for (path, attributes) in copier.directories.iter().rev() {
        attributes.give(copier.target.beneath(OsStr::from_bytes(path))?.as_fd())?;
    }
    Attributes::of_inode(from)?.give(to)
}

struct Copier {
    target: Root,
    /// The directory last copied into.
    above: Option<(Vec<u8>, OwnedFd)>,
    /// Where files of several names were copied to.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// They get their times when all that is in them is there.
    directories: Vec<(Vec<u8>, Attributes)>,
}

impl Copier {
    fn place(&mut self, found: &Found<'_>) -> io::Result<bool> {
        let inode = match open(found) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(false),
            opened => opened?,
        };
        let above = found.path.len() - found.name.len();
        let above = &found.path[..above.saturating_sub(1)];
        let known = self.above.as_ref().is_some_and(|(path, _)| path == above);
        if !known {
            let path: &[u8] = if above.is_empty() { b"." } else { above };
            let dir = self.target.beneath(OsStr::from_bytes(path))?;
            self.above = Some((above.to_vec(), dir));
        }
        let Some((_, dir)) = &self.above else {
            return Ok(false);
        };
        let name = found.name;
        let attributes = Attributes::of_inode(inode.as_fd())?;
        match found.kind() {
            FileType::Directory => {
                rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
                self.directories.push((found.path.to_vec(), attributes));
                return Ok(true);
            }
            FileType::RegularFile => {
                let inode_number = (found.stat.st_dev, found.stat.st_ino);
                if found.stat.st_nlink > 1 {
                    if let Some(first) = self.linked.get(&inode_number) {
                        let first = OsStr::from_bytes(first);
                        rustix::fs::linkat(&self.target, first, dir, name, AtFlags::empty())?;
                        return Ok(false);
                    }
                    self.linked.insert(inode_number, found.path.to_vec());
                }
                let mut source = File::from(inode);
                let mut copy = File::from(tree::create_file(dir.as_fd(), name)?);
                io::copy(&mut source, &mut copy)?;
                attributes.give(copy.as_fd())?;
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(&inode, "", Vec::new())?;
                rustix::fs::symlinkat(to, dir, name)?;
                attributes.give_at(dir.as_fd(), name, true)?;
            }
            FileType::Socket | FileType::Unknown => {}
            other => {
                rustix::fs::mknodat(dir, name, other, Mode::RUSR, found.stat.st_rdev)?;
                attributes.give_at(dir.as_fd(), name, false)?;
            }
        }
        Ok(false)
    }
}

/// Opens what was found: to read it if it is a file or a directory, else to look at it.
pub(super) fn open(found: &Found<'_>) -> Result<OwnedFd, Errno> {
    let flags = match found.kind() {
        FileType::RegularFile => OFlags::RDONLY | OFlags::NONBLOCK,
        FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        _ => OFlags::PATH,
    };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inode = rustix::fs::openat(found.dir, found.name, flags, Mode::empty())?;
    let stat = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)?;
    // Something else has taken its name meanwhile.
    if FileType::from_raw_mode(stat.st_mode) != found.kind() {
        return Err(Errno::NOENT);
    }
    Ok(inode)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_copy_has_all_that_the_original_has() -> io::Result<()> {
        let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let path = from.path();
        fs::create_dir_all(path.join("d/e"))?;
        fs::write(path.join("d/file"), "text")?;
        fs::hard_link(path.join("d/file"), path.join("d/e/same"))?;
        symlink("/etc/passwd", path.join("link"))?;
        fs::set_permissions(path.join("d"), fs::Permissions::from_mode(0o1751))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o710))?;
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77);
        File::open(path.join("d"))?.set_modified(time)?;
        copy_tree(File::open(path)?.as_fd(), File::open(to.path())?.as_fd())?;
        let copy = to.path();
        assert_eq!(fs::read_to_string(copy.join("d/file"))?, "text");
        assert_eq!(fs::metadata(copy)?.mode() & 0o7777, 0o710);
        let d = fs::metadata(copy.join("d"))?;
        assert_eq!((d.mode() & 0o7777, d.mtime()), (0o1751, 77));
        let (one, other) = (copy.join("d/file"), copy.join("d/e/same"));
        assert_eq!(fs::metadata(one)?.ino(), fs::metadata(other)?.ino());
        assert_eq!(
            fs::read_link(copy.join("link"))?.to_str(),
            Some("/etc/passwd")
        );
        Ok(())
    }
}
