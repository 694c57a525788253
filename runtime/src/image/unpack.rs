//! Turns a layer's tar into a directory that overlayfs takes as a lower layer.

mod attributes;
mod error;
mod lower;
mod path;
mod settle;
pub(crate) mod tree;
mod whiteout;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{FileType, Mode, Timespec};
use rustix::io::Errno;

use super::decompress::BUFFER;
use super::limits::Limits;
use super::tarball::{Entry, Kind, TarError, TarReader};
use super::writeback::Writeback;
pub(crate) use attributes::Attributes;
pub(super) use attributes::is_portable;
pub use error::UnpackError;
use error::{failed, lost, refused};
use lower::Copied;
pub(crate) use lower::Lower;
pub(crate) use path::EntryPath;
pub use path::PathProblem;
pub(crate) use settle::Unpacked;
#[cfg(any(test, fuzzing))]
pub(crate) use settle::unpack_over;
use settle::{inode, is_replaced};
use tree::Tree;
use whiteout::WHITEOUT;

/// Bytes of directory names remembered, since a directory's time is set when it is full.
const MAX_DIRECTORY_NAMES: usize = 32 << 20;
/// Bytes of directory names remembered until the layers beneath are there: as many layers may wait as an image has.
const MAX_WAITING_NAMES: usize = 256 << 10;

/// Unpacks the plain tar `archive` into the existing directory `root`.
///
/// `lower` are the layers beneath, if they are there yet: most layers can be unpacked without.
///
/// # Errors
///
/// [`UnpackError::Beneath`] if they are needed.
pub(crate) fn unpack(
    archive: impl Read,
    root: &Path,
    lower: Option<&Lower>,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let tree = Tree::open(root).and_then(|tree| Ok((inode(tree.root())?, tree)));
    let (inode, tree) = tree.map_err(|source| UnpackError::Make {
        path: format!("{root:?}"),
        source,
    })?;
    let mut unpacker = Unpacker {
        tree,
        lower,
        limit: limits.layer_bytes,
        bytes: 0,
        parent: None,
        times: Vec::new(),
        implied: BTreeMap::from([(inode, EntryPath::root())]),
        implied_bytes: 0,
        names_bytes: 0,
        buffer: vec![0; BUFFER],
    };
    let mut reader = TarReader::new(archive, limits.entries);
    while let Some(entry) = reader.next_entry()? {
        unpacker.place(&entry, &mut reader)?;
    }
    reader.drain().map_err(TarError::Read)?;
    unpacker.finish()
}

struct Unpacker<'a> {
    tree: Tree,
    lower: Option<&'a Lower>,
    limit: u64,
    bytes: u64,
    /// The directory of the last entry, since neighbours follow each other.
    parent: Option<(EntryPath, Rc<OwnedFd>)>,
    times: Vec<(EntryPath, Timespec)>,
    /// Directories that only the names below them tell of, by inode.
    implied: BTreeMap<u64, EntryPath>,
    implied_bytes: usize,
    /// Bytes that all these names take.
    names_bytes: usize,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn place(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), UnpackError> {
        let path = parse(&entry.path, &entry.path)?;
        let attributes = Attributes::of_entry(entry).ok_or_else(|| UnpackError::Owner {
            path: path.to_string(),
            uid: entry.uid,
            gid: entry.gid,
        })?;
        let Some((above, name)) = path.split() else {
            if entry.kind != Kind::Directory {
                return Err(refused(&entry.path, PathProblem::Empty));
            }
            let root = self.tree.root().try_clone_to_owned();
            let given = root.and_then(|root| self.describe(root.as_fd(), &attributes));
            given.map_err(|source| failed(&path, source))?;
            return self.remember_time(path, attributes.modified());
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&path, &above, name);
        }
        if entry.kind == Kind::HardLink && parse(&entry.link, &entry.path)? == path {
            return Ok(()); // some tars list a file's first name again
        }
        let parent = self.parent(&path, &above)?;
        let made = |done: io::Result<()>| done.map_err(|source| failed(&path, source));
        match entry.kind {
            Kind::Directory => {
                let dir = self
                    .directory(&parent, name)
                    .map_err(|source| failed(&path, source))?;
                made(self.describe(dir.as_fd(), &attributes))?;
                self.remember_time(path, attributes.modified())
            }
            Kind::HardLink => {
                made(self.make_room(&parent, name))?;
                self.hard_link(entry, &path, &parent, name)
            }
            Kind::File => {
                made(self.make_room(&parent, name))?;
                let file = tree::create_file(parent.as_fd(), name)
                    .map_err(|source| failed(&path, source))?;
                let mut file = File::from(file);
                self.fill(&mut file, &path, entry, data)?;
                made(attributes.give(file.as_fd()))
            }
            Kind::Symlink => {
                made(self.make_room(&parent, name))?;
                let target = OsStr::from_bytes(&entry.link);
                made(rustix::fs::symlinkat(target, &*parent, name).map_err(Into::into))?;
                made(attributes.give_at(parent.as_fd(), name, true))
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                made(self.make_room(&parent, name))?;
                made(make_node(entry, &attributes, &parent, name))?;
                made(attributes.give_at(parent.as_fd(), name, false))
            }
        }
    }

    /// Sets the times of directories, now that nothing more is put into them.
    fn finish(self) -> Result<Unpacked, UnpackError> {
        for (path, modified) in self.times.iter().rev() {
            match self.tree.dir(path) {
                Ok(dir) => {
                    let set = rustix::fs::futimens(dir, &attributes::times(*modified));
                    set.map_err(|errno| failed(path, errno.into()))?;
                }
                Err(errno) if is_replaced(errno) => {}
                Err(errno) => return Err(failed(path, errno.into())),
            }
        }
        Ok(Unpacked {
            tree: self.tree,
            bytes: self.bytes,
            implied: self.implied,
        })
    }

    fn remember_time(&mut self, path: EntryPath, modified: Timespec) -> Result<(), UnpackError> {
        self.count_name(&path)?;
        self.times.push((path, modified));
        Ok(())
    }

    /// Has a directory look as the archive says.
    fn describe(&mut self, dir: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
        self.implied.remove(&inode(dir)?);
        attributes.give(dir)
    }

    fn count_name(&mut self, path: &EntryPath) -> Result<(), UnpackError> {
        self.names_bytes += path.len() + size_of::<(EntryPath, Timespec)>();
        match self.names_bytes > MAX_DIRECTORY_NAMES {
            true => Err(UnpackError::TooManyDirectories),
            false => Ok(()),
        }
    }

    /// The directory `above`, in which `path` is to be made; made itself if the archive left it out.
    fn parent(&mut self, path: &EntryPath, above: &EntryPath) -> Result<Rc<OwnedFd>, UnpackError> {
        if let Some((known, dir)) = &self.parent
            && known == above
        {
            return Ok(Rc::clone(dir));
        }
        let dir = match self.tree.dir(above) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path, above)?,
            opened => opened.map_err(|errno| lost(path, errno))?,
        };
        let dir = Rc::new(dir);
        self.parent = Some((above.clone(), Rc::clone(&dir)));
        Ok(dir)
    }

    fn make_parents(
        &mut self,
        path: &EntryPath,
        above: &EntryPath,
    ) -> Result<OwnedFd, UnpackError> {
        let root = EntryPath::root();
        let mut dir = self.tree.dir(&root).map_err(|errno| lost(path, errno))?;
        for prefix in above.prefixes() {
            dir = match self.tree.dir(&prefix) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let Some((_, name)) = prefix.split() else {
                        continue;
                    };
                    let made = self.implied_directory(&dir, name);
                    let (made, inode) = made.map_err(|source| failed(&prefix, source))?;
                    self.remember_implied(prefix, inode)?;
                    made
                }
                Err(errno) => return Err(lost(path, errno)),
            };
        }
        Ok(dir)
    }

    /// A directory that only the names below it tell of, and its inode: in the end it looks as it did in the layers beneath.
    fn implied_directory(&mut self, above: &OwnedFd, name: &OsStr) -> io::Result<(OwnedFd, u64)> {
        if let Some(found) = tree::stat(above.as_fd(), name)?
            && !tree::is_whiteout(&found)
        {
            return Err(Errno::NOTDIR.into()); // a file, or a link that leads nowhere
        }
        let dir = self.directory(above, name)?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        let inode = inode(dir.as_fd())?;
        Ok((dir, inode))
    }

    fn remember_implied(&mut self, path: EntryPath, inode: u64) -> Result<(), UnpackError> {
        let before = self.names_bytes;
        self.count_name(&path)?;
        self.implied_bytes += self.names_bytes - before;
        if self.lower.is_none() && self.implied_bytes > MAX_WAITING_NAMES {
            return Err(UnpackError::Beneath {
                path: path.to_string(),
            });
        }
        self.implied.insert(inode, path);
        Ok(())
    }

    /// Opens the directory `name`, making it if need be. In place of a whiteout it hides what is beneath.
    fn directory(&mut self, above: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
        let found = tree::stat(above.as_fd(), name)?;
        if found.is_some_and(|found| tree::is_dir(&found)) {
            return tree::open_dir(above.as_fd(), name);
        }
        self.make_room(above, name)?;
        rustix::fs::mkdirat(above, name, Mode::RWXU)?;
        let dir = tree::open_dir(above.as_fd(), name)?;
        if found.is_some_and(|found| tree::is_whiteout(&found)) {
            tree::make_opaque(dir.as_fd())?;
        }
        Ok(dir)
    }

    /// Removes what an earlier entry of this layer put at `name`.
    fn make_room(&mut self, above: &OwnedFd, name: &OsStr) -> io::Result<()> {
        if let Some(found) = tree::stat(above.as_fd(), name)? {
            self.parent = None; // it may have been, or have led to, the directory remembered
            tree::remove(above.as_fd(), name, &found)?;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        path: &EntryPath,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        let target = parse(&entry.link, &entry.path)?;
        let missing = || UnpackError::NoTarget {
            path: path.to_string(),
            target: target.to_string(),
        };
        let (above, target_name) = target.split().ok_or_else(missing)?;
        let linked = self.tree.dir(&above).and_then(|dir| {
            rustix::fs::linkat(dir, target_name, parent, name, rustix::fs::AtFlags::empty())
        });
        match linked {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => {
                let lower = self.lower.ok_or_else(|| UnpackError::Beneath {
                    path: path.to_string(),
                })?;
                let room = self.limit - self.bytes;
                let copied = lower.copy(&target, parent.as_fd(), name, room);
                match copied.map_err(|source| failed(path, source))? {
                    Copied::Bytes(size) => {
                        self.bytes += size;
                        Ok(())
                    }
                    Copied::TooLarge => Err(UnpackError::TooLarge { limit: self.limit }),
                    Copied::Nothing => Err(missing()),
                }
            }
            Err(errno) => Err(lost(path, errno)),
        }
    }

    fn fill(
        &mut self,
        file: &mut File,
        path: &EntryPath,
        entry: &Entry,
        data: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let Some(map) = &entry.sparse else {
            self.copy(file, path, entry.size, data)?;
            Writeback::default().end(file, entry.size);
            return Ok(());
        };
        for &(offset, length) in map {
            file.seek(SeekFrom::Start(offset))
                .map_err(|source| failed(path, source))?;
            self.copy(file, path, length, data)?;
        }
        file.set_len(entry.size)
            .map_err(|source| failed(path, source))
    }

    fn copy(
        &mut self,
        file: &mut File,
        path: &EntryPath,
        length: u64,
        data: &mut impl Read,
    ) -> Result<(), UnpackError> {
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.limit {
            return Err(UnpackError::TooLarge { limit: self.limit });
        }
        let mut left = length;
        while left > 0 {
            let room =
                usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let chunk = &mut self.buffer[..room];
            data.read_exact(chunk).map_err(TarError::Read)?;
            file.write_all(chunk)
                .map_err(|source| failed(path, source))?;
            left -= room as u64;
        }
        Ok(())
    }
}

fn make_node(
    entry: &Entry,
    attributes: &Attributes,
    parent: &OwnedFd,
    name: &OsStr,
) -> io::Result<()> {
    let kind = match entry.kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = rustix::fs::makedev(entry.device.0, entry.device.1);
    Ok(rustix::fs::mknodat(
        parent,
        name,
        kind,
        attributes.mode(),
        device,
    )?)
}

fn parse(raw: &[u8], entry: &[u8]) -> Result<EntryPath, UnpackError> {
    EntryPath::parse(raw).map_err(|problem| refused(entry, problem))
}

#[cfg(test)]
mod tests;
