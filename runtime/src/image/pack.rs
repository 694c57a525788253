//! A container's changes as a layer: overlayfs's upper directory written as the tar that others unpack.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::decompress::BUFFER;
use super::tar_write::{Header, finish, pad, write_header};
use super::unpack::tree;

/// Bytes that the names of an inode's attributes, or the value of one, have at most (xattr(7)).
const MAX_XATTR: usize = 64 << 10;
/// Where the runtime itself puts files and mount points into a container: none of the container's changes.
const OURS: &[&[u8]] = &[
    b".dockerenv",
    b"dev/console",
    b"dev/mqueue",
    b"dev/pts",
    b"dev/shm",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

/// Why a container's changes could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or directory of the container cannot be read.
    #[error("read {path:?} of the container")]
    Read {
        /// Where it is in the container.
        path: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// The layer cannot be written.
    #[error("write the layer")]
    Write(#[source] io::Error),
}

/// Writes all that is in `upper` as a layer. Whether there was anything.
///
/// Names removed become `.wh.NAME`, directories that hide what is beneath hold `.wh..wh..opq`; sockets are left out.
/// Whoever changes the directory meanwhile cannot lead it elsewhere.
pub(crate) fn pack(upper: &Path, to: &mut impl Write) -> Result<bool, PackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty());
    let root = root.map_err(|errno| read_error(&[], errno.into()))?;
    let mut packer = Packer {
        root,
        to,
        links: HashMap::new(),
        buffer: vec![0; BUFFER],
        is_empty: true,
    };
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let below = packer.directory(&path)?;
        left.extend(below.into_iter().rev());
    }
    let is_empty = packer.is_empty;
    finish(to).map_err(PackError::Write)?;
    Ok(!is_empty)
}

struct Packer<'a, W> {
    root: OwnedFd,
    to: &'a mut W,
    /// Files of several names: the first one, by inode.
    links: HashMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
    is_empty: bool,
}

impl<W: Write> Packer<'_, W> {
    /// Writes what is in a directory, without what its directories hold. Gives those back.
    fn directory(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, PackError> {
        let dir = match self.open(path) {
            Ok(dir) => dir,
            // Removed, or replaced by something else, while it was on the list.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(read_error(path, errno.into())),
        };
        if !path.is_empty() && tree::is_opaque(dir.as_fd()) {
            self.whiteout(&join(path, b".wh..wh..opq"))?;
        }
        let mut below = Vec::new();
        for name in names(&dir).map_err(|source| read_error(path, source))? {
            let inside = join(path, name.as_bytes());
            let found = tree::stat(dir.as_fd(), &name);
            let found = found.map_err(|source| read_error(&inside, source))?;
            let Some(found) = found else { continue };
            if is_ours(&inside, &found) {
                continue;
            }
            if self.entry(dir.as_fd(), &name, &inside, &found)? {
                below.push(inside);
            }
        }
        Ok(below)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let relative = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(
            &self.root,
            OsStr::from_bytes(relative),
            flags,
            Mode::empty(),
            resolve,
        )
    }

    /// Writes one entry; whether it is a directory to go into.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        found: &Stat,
    ) -> Result<bool, PackError> {
        if tree::is_whiteout(found) {
            let above = &path[..path.len() - name.len()];
            self.whiteout(&[above, b".wh.", name.as_bytes()].concat())?;
            return Ok(false);
        }
        let mut header = header(path, found);
        let unread = |source| read_error(path, source);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                header.kind = b'5';
                header.path.push(b'/');
                let opened = tree::open_dir(dir, name).map_err(unread)?;
                header.xattrs = xattrs(opened.as_fd()).map_err(unread)?;
                self.write(&header)?;
                return Ok(true);
            }
            FileType::RegularFile => self.file(dir, name, header)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(dir, name, Vec::new());
                let link = link.map_err(|errno| unread(errno.into()))?;
                header.kind = b'2';
                header.link = link.into_bytes();
                self.write(&header)?;
            }
            FileType::Fifo => {
                header.kind = b'6';
                self.write(&header)?;
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                header.kind = if kind == FileType::BlockDevice {
                    b'4'
                } else {
                    b'3'
                };
                let device = found.st_rdev;
                header.device = (rustix::fs::major(device), rustix::fs::minor(device));
                self.write(&header)?;
            }
            _ => {} // a socket means nothing without who listens
        }
        Ok(false)
    }

    /// Exactly as many bytes as the header says, though the file may grow or shrink meanwhile.
    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        mut header: Header,
    ) -> Result<(), PackError> {
        let path = header.path.clone();
        let unread = |source| read_error(&path, source);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()), // it has gone meanwhile
            Err(errno) => return Err(unread(errno.into())),
        };
        let found = rustix::fs::fstat(&file).map_err(|errno| unread(errno.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        header.kind = b'0';
        if found.st_nlink > 1 {
            if let Some(first) = self.links.get(&found.st_ino) {
                header.kind = b'1';
                header.link.clone_from(first);
                return self.write(&header);
            }
            self.links.insert(found.st_ino, path.clone());
        }
        header.size = found.st_size.cast_unsigned();
        header.xattrs = xattrs(file.as_fd()).map_err(unread)?;
        self.write(&header)?;
        let (mut file, mut left) = (file, header.size);
        while left > 0 {
            let room =
                usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let mut count = file.read(&mut self.buffer[..room]).map_err(unread)?;
            if count == 0 {
                self.buffer[..room].fill(0);
                count = room;
            }
            self.to
                .write_all(&self.buffer[..count])
                .map_err(PackError::Write)?;
            left -= count as u64;
        }
        pad(self.to, header.size).map_err(PackError::Write)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), PackError> {
        self.write(&Header {
            path: path.to_vec(),
            kind: b'0',
            mode: 0o600,
            ..Header::default()
        })
    }

    fn write(&mut self, header: &Header) -> Result<(), PackError> {
        self.is_empty = false;
        write_header(self.to, header).map_err(PackError::Write)
    }
}

fn header(path: &[u8], found: &Stat) -> Header {
    Header {
        path: path.to_vec(),
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: found.st_mtime,
        ..Header::default()
    }
}

/// Whether it is there only for what the runtime mounts on it, or wrote there itself.
fn is_ours(path: &[u8], found: &Stat) -> bool {
    let kind = FileType::from_raw_mode(found.st_mode);
    let is_place =
        kind == FileType::Directory || kind == FileType::RegularFile && found.st_size == 0;
    is_place && OURS.contains(&path)
}

/// The names in a directory, sorted, so that the same changes make the same layer.
fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

/// The extended attributes that mean the same on every host.
fn xattrs(inode: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::flistxattr(inode, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    let mut value = vec![0; if length > 0 { MAX_XATTR } else { 0 }];
    for name in list[..length].split(|&byte| byte == 0) {
        if !super::unpack::is_portable(name) {
            continue;
        }
        match rustix::fs::fgetxattr(inode, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    found.sort();
    Ok(found)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path.is_empty() {
        true => name.to_vec(),
        false => [path, b"/", name].concat(),
    }
}

fn read_error(path: &[u8], source: io::Error) -> PackError {
    PackError::Read {
        path: OsString::from_vec([b"/", path].concat()),
        source,
    }
}

#[cfg(test)]
mod tests;
