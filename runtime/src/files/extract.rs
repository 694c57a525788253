//! A tar stream as files, none of which leads out of the root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::root::Root;
use super::view::View;
use crate::image::tarball::{Entry, Kind, TarReader};
use crate::image::{Attributes, EntryPath, PathProblem, TarError, tree};

/// Entries of one archive; its bytes are bounded by the disk.
const MAX_ENTRIES: u64 = 16 << 20;

/// How an archive is unpacked.
#[derive(Clone, Debug, Default)]
pub struct Extraction {
    /// Replace no directory by something else, nor something else by a directory.
    pub keep_kinds: bool,
    /// Who is to own all of it, instead of whom the archive names.
    pub owner: Option<(u32, u32)>,
    /// The archive is not to be trusted: all of it is whose process this is, without set-ID bits or devices, and links
    /// that are there lead no further than the directory it is unpacked into.
    pub untrusted: bool,
    /// The first part of the archive's names, and what is to stand in its place.
    pub rename: Option<(String, String)>,
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name that could lead elsewhere.
    #[error("entry {path} is refused: {problem}")]
    Refused {
        /// The name, quoted.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// Something of another kind is there.
    #[error("cannot overwrite {found} {path} with {wanted}")]
    Kind {
        /// What is there.
        found: &'static str,
        /// The name, quoted.
        path: String,
        /// What the archive has.
        wanted: &'static str,
    },
    /// A device that an archive of a container's may not make on the host.
    #[error("entry {0} is a device: it is not made here")]
    Device(String),
    /// An owner that the kernel has no number for.
    #[error("entry {0} belongs to a user or group whose number is too high")]
    Owner(String),
    /// What it is to be unpacked into is no directory.
    #[error("extraction point is not a directory")]
    NotADirectory,
    /// The root may not be written to.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    /// A volume may not be written to.
    #[error("mounted volume is marked read-only")]
    ReadOnlyVolume,
    /// The kernel refused.
    #[error("extract {path}")]
    Io {
        /// The name, quoted.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl View {
    /// Unpacks `archive` into the directory `at`, in which links are followed as the container's processes do.
    ///
    /// # Errors
    ///
    /// See [`ExtractError`]; then a part of it is there.
    pub fn extract(
        &self,
        at: &Path,
        archive: impl Read,
        how: &Extraction,
    ) -> Result<(), ExtractError> {
        let whole = |source| ExtractError::Io {
            path: format!("{at:?}"),
            source,
        };
        let found = self.root.resolve(at.as_os_str(), OFlags::PATH);
        let dir = found.map_err(|errno| whole(errno.into()))?;
        let stat = rustix::fs::statat(&dir, "", AtFlags::EMPTY_PATH)
            .map_err(|errno| whole(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(ExtractError::NotADirectory);
        }
        let writable = rustix::fs::fstatvfs(&dir).map_err(|errno| whole(errno.into()))?;
        if writable.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let root = rustix::fs::statat(&self.root, "", AtFlags::EMPTY_PATH);
            return Err(match root {
                Ok(root) if root.st_dev == stat.st_dev => ExtractError::ReadOnlyRoot,
                _ => ExtractError::ReadOnlyVolume,
            });
        }
        extract(&self.root, at, archive, how)
    }
}

/// Unpacks what came out of a container into a directory of the host.
///
/// # Errors
///
/// See [`ExtractError`]; then a part of it is there.
pub fn extract_untrusted(
    directory: &Path,
    archive: impl Read,
    how: &Extraction,
) -> Result<(), ExtractError> {
    let root = Root::open(directory).map_err(|source| ExtractError::Io {
        path: format!("{directory:?}"),
        source,
    })?;
    let how = Extraction {
        untrusted: true,
        ..how.clone()
    };
    extract(&root, Path::new("."), archive, &how)
}

fn extract(
    root: &Root,
    at: &Path,
    archive: impl Read,
    how: &Extraction,
) -> Result<(), ExtractError> {
    let mut reader = TarReader::new(archive, MAX_ENTRIES);
    let mut extractor = Extractor {
        root,
        at,
        how,
        directories: Vec::new(),
    };
    while let Some(entry) = reader.next_entry()? {
        extractor.place(entry, &mut reader)?;
    }
    reader.drain().map_err(TarError::Read)?;
    extractor.finish()
}

struct Extractor<'a> {
    root: &'a Root,
    at: &'a Path,
    how: &'a Extraction,
    /// They get their times when all that is in them is there.
    directories: Vec<(EntryPath, Attributes)>,
}

impl Extractor<'_> {
    fn place(&mut self, entry: Entry, data: &mut impl Read) -> Result<(), ExtractError> {
        let path = self.path(&entry.path)?;
        let Some((above, name)) = path.split() else {
            return Ok(()); // the directory itself stays as it is
        };
        let failed = |source: io::Error| ExtractError::Io {
            path: path.to_string(),
            source,
        };
        let attributes = self.attributes(&entry, &path)?;
        let parent = self.directory(&above).map_err(failed)?;
        let is_dir = entry.kind == Kind::Directory;
        if let Some(found) = tree::stat(parent.as_fd(), name).map_err(failed)? {
            let there = tree::is_dir(&found);
            if self.how.keep_kinds && there != is_dir {
                let kind = |is_dir| if is_dir { "directory" } else { "non-directory" };
                return Err(ExtractError::Kind {
                    found: kind(there),
                    path: path.to_string(),
                    wanted: kind(is_dir),
                });
            }
            if !(there && is_dir) {
                tree::remove(parent.as_fd(), name, &found).map_err(failed)?;
            }
        }
        let made = self.make(&entry, data, &parent, name, &attributes);
        made.map_err(|error| match error {
            Failed::Tar(error) => error.into(),
            Failed::Link(error) => error,
            Failed::Io(source) => failed(source),
        })?;
        if is_dir {
            self.directories.push((path, attributes));
        }
        Ok(())
    }

    /// An entry's name below the directory; a slash before it means nothing.
    fn path(&self, raw: &[u8]) -> Result<EntryPath, ExtractError> {
        let refused = |problem| ExtractError::Refused {
            path: format!("{:?}", OsStr::from_bytes(raw)),
            problem,
        };
        let mut name = raw.to_vec();
        if let Some((from, to)) = &self.how.rename {
            let from = if from == "/" { "" } else { from };
            if let Some(rest) = raw.strip_prefix(from.as_bytes())
                && (rest.is_empty() || rest.starts_with(b"/"))
            {
                name = [to.as_bytes(), rest].concat();
            }
        }
        let start = name.iter().position(|&byte| byte != b'/');
        let relative = start.map_or(&b"."[..], |start| &name[start..]);
        EntryPath::parse(relative).map_err(refused)
    }

    fn attributes(&self, entry: &Entry, path: &EntryPath) -> Result<Attributes, ExtractError> {
        let found = Attributes::of_entry(entry);
        let attributes = found.ok_or_else(|| ExtractError::Owner(path.to_string()))?;
        let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
        Ok(match (self.how.untrusted, self.how.owner) {
            (true, _) if is_device => return Err(ExtractError::Device(path.to_string())),
            (true, _) => attributes.unprivileged(),
            (false, Some((uid, gid))) => attributes.owned_by(uid, gid),
            (false, None) => attributes,
        })
    }

    /// Opens a directory below the one that is unpacked into, made if it is not there.
    fn directory(&self, path: &EntryPath) -> io::Result<OwnedFd> {
        if self.how.untrusted {
            return self
                .root
                .make_directories_beneath(Path::new(path.as_os_str()));
        }
        self.root.make_directories(&self.whole(path))
    }

    fn whole(&self, path: &EntryPath) -> PathBuf {
        self.at.join(path.as_os_str())
    }

    fn make(
        &self,
        entry: &Entry,
        data: &mut impl Read,
        parent: &OwnedFd,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Failed> {
        match entry.kind {
            Kind::Directory => match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            },
            Kind::File => {
                let file = File::from(tree::create_file(parent.as_fd(), name)?);
                fill(&file, entry, data)?;
                attributes.give(file.as_fd())?;
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name)
                    .map_err(io::Error::from)?;
                attributes.give_at(parent.as_fd(), name, true)?;
            }
            Kind::HardLink => {
                let target = self.path(&entry.link).map_err(Failed::Link)?;
                let (above, old) = target.split().ok_or(io::Error::from(Errno::ISDIR))?;
                let dir = self.directory(&above)?;
                rustix::fs::linkat(dir, old, parent, name, AtFlags::empty())
                    .map_err(io::Error::from)?;
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                let kind = match entry.kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                rustix::fs::mknodat(parent, name, kind, Mode::RUSR, device)
                    .map_err(io::Error::from)?;
                attributes.give_at(parent.as_fd(), name, false)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), ExtractError> {
        for (path, attributes) in self.directories.iter().rev() {
            let given = self
                .directory(path)
                .and_then(|dir| attributes.give(dir.as_fd()));
            given.map_err(|source| ExtractError::Io {
                path: path.to_string(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Why one entry could not be made.
enum Failed {
    Io(io::Error),
    Tar(TarError),
    Link(ExtractError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn fill(mut file: &File, entry: &Entry, data: &mut impl Read) -> Result<(), Failed> {
    let Some(map) = &entry.sparse else {
        return copy(file, entry.size, data);
    };
    for &(offset, length) in map {
        file.seek(SeekFrom::Start(offset))?;
        copy(file, length, data)?;
    }
    Ok(file.set_len(entry.size)?)
}

fn copy(mut file: &File, length: u64, data: &mut impl Read) -> Result<(), Failed> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = data.read_exact(&mut buffer[..room]);
        read.map_err(|error| Failed::Tar(error.into()))?;
        io::Write::write_all(&mut file, &buffer[..room])?;
        left -= room as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
