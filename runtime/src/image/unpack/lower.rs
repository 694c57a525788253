//! The layers beneath the one being unpacked, for the few entries that lean on them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::path::EntryPath;
use super::tree::{self, Tree};
use crate::files::names;

/// What became of a copy.
pub(super) enum Copied {
    /// There is nothing to copy.
    Nothing,
    /// It was made and has so many bytes.
    Bytes(u64),
    /// It was not made, for it has more bytes than there is room.
    TooLarge,
}

/// The layers beneath, uppermost first.
pub(crate) struct Lower(Vec<Tree>);

impl Lower {
    pub(crate) fn open(dirs: &[PathBuf]) -> io::Result<Self> {
        dirs.iter()
            .map(|dir| Tree::open(dir))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Attributes of the directory that shows through at `path`, if one does.
    pub(super) fn dir_attributes(&self, path: &EntryPath) -> Option<Attributes> {
        let (_, stat) = self.find(path).ok()??;
        tree::is_dir(&stat).then(|| Attributes::of_stat(&stat))
    }

    /// Copies the file that shows through at `target`, of at most `room` bytes, to `name` in `dir`.
    pub(super) fn copy(
        &self,
        target: &EntryPath,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        room: u64,
    ) -> io::Result<Copied> {
        let Some((found, stat)) = self.find(target)? else {
            return Ok(Copied::Nothing);
        };
        let mut attributes = Attributes::of_stat(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let size = stat.st_size.cast_unsigned();
                if size > room {
                    return Ok(Copied::TooLarge);
                }
                let mut source = File::from(reopen(&found)?);
                let mut copy = File::from(tree::create_file(dir, name)?);
                io::copy(&mut source, &mut copy)?;
                if let Some(value) = capability(&source) {
                    attributes = attributes.with_xattr("security.capability", value);
                }
                attributes.give(copy.as_fd())?;
                return Ok(Copied::Bytes(size));
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(&found, "", Vec::new())?;
                rustix::fs::symlinkat(to, dir, name)?;
                attributes.give_at(dir, name, true)?;
            }
            FileType::Directory => return Err(Errno::ISDIR.into()),
            other => {
                rustix::fs::mknodat(dir, name, other, attributes.mode(), stat.st_rdev)?;
                attributes.give_at(dir, name, false)?;
            }
        }
        Ok(Copied::Bytes(0))
    }

    /// What the inode that shows through at `path` is, if one does.
    pub(crate) fn stat(&self, path: &EntryPath) -> io::Result<Option<Stat>> {
        Ok(self.find(path)?.map(|(_, stat)| stat))
    }

    /// Names that layers have in the directory at `path`, also such as are removed by a layer above.
    pub(crate) fn names(&self, path: &EntryPath) -> io::Result<BTreeSet<Vec<u8>>> {
        let mut all = BTreeSet::new();
        for tree in &self.0 {
            if let Ok(dir) = tree.dir(path) {
                all.extend(names(&dir)?);
            }
        }
        Ok(all)
    }

    /// What shows through at `path`: the uppermost layer that has it, unless something above hides it.
    fn find(&self, path: &EntryPath) -> io::Result<Option<(OwnedFd, Stat)>> {
        for tree in &self.0 {
            match tree.look(path) {
                Ok(found) => {
                    let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
                    return Ok((!tree::is_whiteout(&stat)).then_some((found, stat)));
                }
                Err(Errno::NOENT) if hides(tree, path) => return Ok(None),
                Err(Errno::NOENT) => {}
                // A file, a whiteout or a link stands where the path needs a directory.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }
}

/// Whether a directory above `path` in this layer hides everything beneath the layer.
fn hides(tree: &Tree, path: &EntryPath) -> bool {
    path.prefixes().any(|prefix| {
        tree.dir(&prefix)
            .is_ok_and(|dir| tree::is_opaque(dir.as_fd()))
    })
}

/// Opens for reading what was opened for looking.
fn reopen(found: &OwnedFd) -> io::Result<OwnedFd> {
    let path = tree::proc_path(found.as_fd(), OsStr::new(""));
    let path = path.as_os_str().to_string_lossy();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        path.trim_end_matches('/'),
        flags,
        rustix::fs::Mode::empty(),
    )?)
}

fn capability(file: &File) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::fgetxattr(file, "security.capability", &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}
