//! What is at a path of a container.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::path::ContainerPath;
use super::view::View;

/// Links followed before it is said that they lead nowhere (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What is known of a file without reading it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathStat {
    /// The last part of its path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Type and permissions as stat(2) has them.
    pub mode: u32,
    /// Seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Where a link leads, all links on the way followed; else empty.
    pub link_target: String,
}

/// Something found at a path.
#[derive(Debug)]
pub struct Look {
    pub(super) inode: OwnedFd,
    pub(super) base: Vec<u8>,
    /// What is known of it.
    pub stat: PathStat,
}

impl View {
    /// Looks at what is at `path`; a link at its end is not followed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::NotADirectory`] if nothing is there, else what the kernel says.
    pub fn look(&self, path: &ContainerPath) -> io::Result<Look> {
        let inode = self
            .root
            .resolve(path.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW)?;
        let found = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)?;
        let link_target = match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => self.evaluate(path.as_str())?,
            _ => String::new(),
        };
        Ok(Look {
            inode,
            base: path.base().into(),
            stat: describe(path.base(), &found, link_target),
        })
    }

    /// `path` without links, as far as it leads to something.
    fn evaluate(&self, path: &str) -> io::Result<String> {
        let mut done: Vec<String> = Vec::new();
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = format!("/{}", done.join("/"));
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let inode = match self.root.resolve(OsStr::new(&here), flags) {
                Ok(inode) => inode,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Ok(target) = rustix::fs::readlinkat(&inode, "", Vec::new()) else {
                continue; // it is no link
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
            match target.starts_with('/') {
                true => done.clear(),
                false => drop(done.pop()),
            }
            ahead.extend(target.split('/').rev().map(str::to_owned));
        }
        Ok(format!("/{}", done.join("/")))
    }
}

fn describe(name: &str, found: &Stat, link_target: String) -> PathStat {
    PathStat {
        name: name.to_owned(),
        size: found.st_size.cast_unsigned(),
        mode: found.st_mode,
        modified: (
            found.st_mtime,
            u32::try_from(found.st_mtime_nsec).unwrap_or_default(),
        ),
        link_target,
    }
}

impl Look {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.mode) == FileType::Directory
    }

    /// What is at a path of this process, which is followed at its end only if `follow`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn at(path: &std::path::Path, follow: bool) -> io::Result<Self> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let inode = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        let found = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)?;
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            inode,
            base: name.as_bytes().to_vec(),
            stat: describe(&name.to_string_lossy(), &found, String::new()),
        })
    }

    /// The same under another name.
    #[must_use]
    pub fn called(self, name: &str) -> Self {
        Self {
            base: name.into(),
            ..self
        }
    }
}
