//! Files as a tar stream, while they may change.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::copy::open;
use super::stat::Look;
use super::walk::walk;
use crate::image::{Attributes, tree};

/// Bytes of a name that fit the header.
const SHORT_NAME: usize = 100;

impl Look {
    /// Writes what was found, and all below it if it is a directory, under its own name.
    ///
    /// # Errors
    ///
    /// What the kernel says, and of `out`. What vanishes meanwhile is left out; a file that shrinks is an error.
    pub fn pack(self, out: impl Write) -> io::Result<()> {
        let name = match self.base.as_slice() {
            b"/" => Vec::new(), // so that the names below it begin with a slash
            base => base.to_vec(),
        };
        self.pack_as(&name, true, out)
    }

    /// Writes what is below a directory, with names relative to it.
    ///
    /// # Errors
    ///
    /// As [`Look::pack`].
    pub fn pack_content(self, out: impl Write) -> io::Result<()> {
        self.pack_as(b"", false, out)
    }

    fn pack_as(self, name: &[u8], itself: bool, out: impl Write) -> io::Result<()> {
        let mut packer = Packer {
            out: Builder::new(out),
            linked: HashMap::new(),
        };
        if !self.is_dir() {
            let inode = match FileType::from_raw_mode(self.stat.mode) {
                FileType::RegularFile => reopen(self.inode.as_fd(), OFlags::RDONLY)?,
                _ => self.inode,
            };
            packer.add(name, inode)?;
            return packer.finish();
        }
        let top = reopen(self.inode.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        if itself {
            packer.add(name, top.try_clone()?)?;
        }
        walk::<io::Error>(top.as_fd(), |found| {
            let inode = match open(found) {
                Ok(inode) => inode,
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            };
            let mut whole = name.to_vec();
            if itself {
                whole.push(b'/');
            }
            whole.extend_from_slice(found.path);
            packer.add(&whole, inode)?;
            Ok(true)
        })?;
        packer.finish()
    }
}

/// Opens for use what was opened for looking.
fn reopen(inode: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let path = tree::proc_path(inode, OsStr::new(""));
    let path = path.to_string_lossy();
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = path.trim_end_matches('/');
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

struct Packer<W: Write> {
    out: Builder<W>,
    /// Under which names files of several names were written.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn finish(mut self) -> io::Result<()> {
        self.out.finish()?;
        self.out.get_mut().flush()
    }

    /// Writes one inode, which is open for reading if it is a file.
    fn add(&mut self, name: &[u8], inode: OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)?;
        let mut header = header(&stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut link = Vec::new();
        match kind {
            FileType::RegularFile => {
                let number = (stat.st_dev, stat.st_ino);
                match self.linked.get(&number) {
                    Some(first) => {
                        header.set_entry_type(EntryType::Link);
                        link.clone_from(first);
                    }
                    None => {
                        if stat.st_nlink > 1 {
                            self.linked.insert(number, name.to_vec());
                        }
                        header.set_entry_type(EntryType::Regular);
                        header.set_size(stat.st_size.cast_unsigned());
                    }
                }
            }
            FileType::Directory => header.set_entry_type(EntryType::Directory),
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                link = rustix::fs::readlinkat(&inode, "", Vec::new())?.into_bytes();
            }
            FileType::Fifo => header.set_entry_type(EntryType::Fifo),
            FileType::CharacterDevice | FileType::BlockDevice => {
                header.set_entry_type(match kind {
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Char,
                });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
            }
            _ => return Ok(()), // an archive has no place for sockets
        }
        self.extensions(&inode)?;
        let mut name = name.to_vec();
        if kind == FileType::Directory {
            name.push(b'/');
        }
        self.name(&name, EntryType::GNULongName)?;
        self.name(&link, EntryType::GNULongLink)?;
        let fields = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidData)?;
        let short = |text: &[u8]| text.len().min(SHORT_NAME);
        fields.name[..short(&name)].copy_from_slice(&name[..short(&name)]);
        fields.linkname[..short(&link)].copy_from_slice(&link[..short(&link)]);
        header.set_cksum();
        match header.entry_type() {
            EntryType::Regular => {
                let size = header.size()?;
                let exact = Exact {
                    file: File::from(inode).take(size),
                    left: size,
                };
                self.out.append(&header, exact)
            }
            _ => self.out.append(&header, io::empty()),
        }
    }

    /// Extended attributes that mean the same elsewhere, in front of the entry.
    fn extensions(&mut self, inode: &OwnedFd) -> io::Result<()> {
        let attributes = Attributes::of_inode(inode.as_fd())?;
        let named: Vec<(String, &[u8])> = attributes
            .xattrs()
            .iter()
            .filter_map(|(name, value)| {
                let name = std::str::from_utf8(name).ok()?;
                Some((format!("SCHILY.xattr.{name}"), value.as_slice()))
            })
            .collect();
        if named.is_empty() {
            return Ok(());
        }
        let named = named.iter().map(|(name, value)| (name.as_str(), *value));
        self.out.append_pax_extensions(named)
    }

    /// A name that is too long for the header, in a record of its own.
    fn name(&mut self, name: &[u8], kind: EntryType) -> io::Result<()> {
        if name.len() <= SHORT_NAME {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidData)?;
        fields.name[..13].copy_from_slice(b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        self.out.append(&header, [name, b"\0"].concat().as_slice())
    }
}

fn header(stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}

/// A file that must have all the bytes its header announced.
struct Exact {
    file: io::Take<File>,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            let problem = "a file became shorter while it was read";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
