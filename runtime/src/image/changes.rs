//! What a container has changed in its image's files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use super::catalog::Image;
use super::store::ImageStore;
use super::unpack::{EntryPath, Lower, tree};
use crate::files::{Found, Root, walk};

/// What became of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// The image has it, and so has the container, but not the same.
    Modified,
    /// The image has it not.
    Added,
    /// The container has it no more.
    Deleted,
}

/// A path that is not as in the image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Absolute.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What the runtime makes to mount something there; it is not the container's doing.
const OURS: [&[u8]; 8] = [
    b"dev",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sbin/docker-init",
    b"sys",
];

impl ImageStore {
    /// What the container in `container_dir` has changed, by path.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn changes(&self, image: &Image, container_dir: &Path) -> io::Result<Vec<Change>> {
        let layers = image.layers.iter().rev();
        let layers: Vec<PathBuf> = layers.map(|&layer| self.inner.layer_diff(layer)).collect();
        let upper = container_dir.join("diff");
        let compare = move || compare(&upper, &layers);
        let compared = tokio::task::spawn_blocking(compare).await;
        compared.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn compare(upper: &Path, layers: &[PathBuf]) -> io::Result<Vec<Change>> {
    let root = match Root::open(upper) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut comparison = Comparison {
        lower: Lower::open(layers)?,
        changes: BTreeMap::new(),
        excused: BTreeSet::new(),
    };
    walk(root.as_fd(), |found| comparison.look(found))?;
    Ok(comparison.finish())
}

struct Comparison {
    lower: Lower,
    /// By path without the slash before it.
    changes: BTreeMap<Vec<u8>, ChangeKind>,
    /// Directories whose time has changed by what the runtime made in them.
    excused: BTreeSet<Vec<u8>>,
}

impl Comparison {
    fn look(&mut self, found: &Found<'_>) -> io::Result<bool> {
        let path = EntryPath::parse(found.path).map_err(io::Error::other)?;
        let below = self.lower.stat(&path)?;
        if OURS.contains(&found.path) && (below.is_none() || tree::is_dir(&found.stat)) {
            self.excused.insert(above(found.path).to_vec());
            return Ok(true);
        }
        if tree::is_whiteout(&found.stat) {
            if below.is_some() {
                self.note(found.path, ChangeKind::Deleted);
            }
            return Ok(false);
        }
        match below {
            None => self.note(found.path, ChangeKind::Added),
            Some(below) if tree::is_dir(&below) && tree::is_dir(&found.stat) => {
                let dir = tree::open_dir(found.dir, found.name)?;
                if tree::is_opaque(dir.as_fd()) {
                    self.hidden(found.path, &path)?;
                    self.note(found.path, ChangeKind::Modified);
                } else if !same(&below, &found.stat) {
                    self.note(found.path, ChangeKind::Modified);
                }
            }
            Some(_) => self.note(found.path, ChangeKind::Modified),
        }
        Ok(true)
    }

    /// All that the image has in a directory which was removed and made anew; what is there again is looked at later.
    fn hidden(&mut self, path: &[u8], directory: &EntryPath) -> io::Result<()> {
        for name in self.lower.names(directory)? {
            let child = [path, b"/", &name].concat();
            let entry = EntryPath::parse(&child).map_err(io::Error::other)?;
            if self.lower.stat(&entry)?.is_some() {
                self.note(&child, ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.insert(path.to_vec(), kind);
    }

    /// Adds the directories above all changes, and leaves out those that only the runtime has changed.
    fn finish(mut self) -> Vec<Change> {
        let paths: Vec<Vec<u8>> = self.changes.keys().cloned().collect();
        let has_more = |path: &[u8]| {
            let below = [path, b"/"].concat();
            let mut after = paths
                .iter()
                .skip_while(|other| other.as_slice() < below.as_slice());
            after.next().is_some_and(|next| next.starts_with(&below))
        };
        for path in &self.excused {
            if !has_more(path) {
                self.changes.remove(path);
            }
        }
        for path in &paths {
            if !self.changes.contains_key(path) {
                continue;
            }
            let mut parent = above(path);
            while !parent.is_empty() {
                self.changes
                    .entry(parent.to_vec())
                    .or_insert(ChangeKind::Modified);
                parent = above(parent);
            }
        }
        let changes = self.changes.into_iter().map(|(path, kind)| Change {
            path: format!("/{}", OsStr::from_bytes(&path).to_string_lossy()),
            kind,
        });
        changes.collect()
    }
}

fn above(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    &path[..slash.unwrap_or(0)]
}

fn same(one: &Stat, other: &Stat) -> bool {
    let key = |stat: &Stat| {
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_mode, stat.st_uid, stat.st_gid, time)
    };
    key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{FileType, Mode};

    use super::*;

    #[test]
    fn what_is_added_changed_and_gone() -> io::Result<()> {
        let (lower, upper) = (tempfile::tempdir()?, tempfile::tempdir()?);
        for path in [
            "etc/old",
            "etc/kept",
            "srv/deep/file",
            "gone/x",
            "new/y",
            "new/z",
        ] {
            let path = lower.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, "of the image")?;
        }
        for path in ["etc/old", "srv/deep/added", "etc/hosts", "dev/x", "new/y"] {
            let path = upper.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, "of the container")?;
        }
        let whiteout = |path: &str| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                upper.path().join(path),
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
        };
        whiteout("gone")?;
        tree::make_opaque(fs::File::open(upper.path().join("new"))?.as_fd())?;
        let changes = compare(upper.path(), &[lower.path().to_owned()])?;
        let told: Vec<String> = changes
            .iter()
            .map(|change| {
                let kind = match change.kind {
                    ChangeKind::Modified => 'C',
                    ChangeKind::Added => 'A',
                    ChangeKind::Deleted => 'D',
                };
                format!("{kind} {}", change.path)
            })
            .collect();
        assert_eq!(
            told,
            [
                "C /dev",
                "A /dev/x",
                "C /etc",
                "C /etc/old",
                "D /gone",
                "C /new",
                "C /new/y",
                "D /new/z",
                "C /srv",
                "C /srv/deep",
                "A /srv/deep/added",
            ]
        );
        Ok(())
    }
}
