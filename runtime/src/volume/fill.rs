//! What a new volume gets from the image that it hides.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::store::DATA;
use crate::files::{Root, copy_tree, names};
use crate::image::Attributes;

/// A whole copy, on its way into the volume.
const FILL: &str = "fill";
/// A copy in the making.
const PART: &str = "part";

/// Fills the volume in `directory` with what is at `source` in `root`, if that is a directory and the volume is empty.
pub(super) fn fill(directory: &Path, root: &Path, source: &Path) -> io::Result<()> {
    let Some(from) = source_in(root, source)? else {
        return Ok(());
    };
    if fs::read_dir(directory.join(DATA))?.next().is_some() {
        return Ok(());
    }
    let part = directory.join(PART);
    remove(&part)?;
    fs::create_dir(&part)?;
    let copied = copy(&from, &part);
    if let Err(error) = copied {
        remove(&part)?;
        return Err(error);
    }
    fs::rename(&part, directory.join(FILL))?;
    File::open(directory)?.sync_all()?;
    finish(directory)
}

/// As [`fill`], where the content is another file system's.
pub(super) fn fill_in_place(data: &Path, root: &Path, source: &Path) -> io::Result<()> {
    let Some(from) = source_in(root, source)? else {
        return Ok(());
    };
    if fs::read_dir(data)?.next().is_some() {
        return Ok(());
    }
    copy(&from, data)
}

/// Moves a whole copy to its place, and removes a part of one.
pub(super) fn finish(directory: &Path) -> io::Result<()> {
    remove(&directory.join(PART))?;
    let fill = match Root::open(&directory.join(FILL)) {
        Ok(fill) => fill,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let data = Root::open(&directory.join(DATA))?;
    for name in names(&fill)? {
        let name = OsStr::from_bytes(&name);
        match rustix::fs::renameat_with(&fill, name, &data, name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => {} // a container has made its own meanwhile
            Err(errno) => return Err(errno.into()),
        }
    }
    Attributes::of_inode(fill.as_fd())?.give(data.as_fd())?;
    rustix::fs::fsync(&data)?;
    remove(&directory.join(FILL))?;
    File::open(directory)?.sync_all()
}

fn source_in(root: &Path, source: &Path) -> io::Result<Option<Root>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match Root::open(root)?.resolve(source.as_os_str(), flags) {
        Ok(dir) => Ok(Some(Root::of(dir))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn copy(from: &Root, to: &Path) -> io::Result<()> {
    let to = File::open(to)?;
    copy_tree(from.as_fd(), to.as_fd())?;
    // One call for all of it: a sync of each file would take its time.
    Ok(rustix::fs::syncfs(&to)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
