//! The volumes of a host.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::VolumeError;
use super::fill;
use super::mount::Content;
use super::name::check_name;
use crate::files::{Usage, usage};

const DESCRIPTION: &str = "volume.json";
pub(super) const DATA: &str = "_data";
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// A volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volume {
    /// Its name, which no other volume of the host has.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What the local driver is to mount there; empty: a directory of the volume's own.
    pub options: BTreeMap<String, String>,
    /// What the user notes with it.
    pub labels: BTreeMap<String, String>,
}

/// A volume as it lies on disk.
#[derive(Deserialize, Serialize)]
struct Description {
    v: u32,
    name: String,
    created: Timestamp,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

/// What a volume held that is no more.
#[derive(Debug)]
#[must_use = "it takes its room until it is deleted"]
pub struct Trash(PathBuf);

impl Trash {
    /// # Errors
    ///
    /// See [`VolumeError`]; what is left goes when the store is opened again.
    pub fn delete(self) -> Result<(), VolumeError> {
        remove_tree(&self.0)
    }
}

/// The volumes in one directory, which is this store's alone.
#[derive(Debug)]
pub struct VolumeStore {
    root: PathBuf,
    volumes: Mutex<BTreeMap<String, Volume>>,
}

impl VolumeStore {
    /// Opens the store in `root`, making it if need be, and finishes or removes what a crash left half-way.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn open(root: &Path) -> Result<Self, VolumeError> {
        let make = DirBuilder::new().recursive(true).mode(0o701).create(root);
        make.map_err(VolumeError::io("make", root))?;
        let mut volumes = BTreeMap::new();
        let entries = fs::read_dir(root).map_err(VolumeError::io("read", root))?;
        for entry in entries {
            let path = entry.map_err(VolumeError::io("read", root))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(NEW) || name.starts_with(OLD) {
                remove_tree(&path)?;
                continue;
            }
            let Some(volume) = read(&path)?.filter(|volume| volume.name == name) else {
                tracing::warn!(path = %path.display(), "this is no volume; it is left alone");
                continue;
            };
            fill::finish(&path).map_err(VolumeError::io("finish to fill", &path))?;
            volumes.insert(volume.name.clone(), volume);
        }
        Ok(Self {
            root: root.to_owned(),
            volumes: Mutex::new(volumes),
        })
    }

    /// The directory that containers see, whatever it holds now.
    #[must_use]
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    /// The volume of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Volume> {
        self.all().get(name).cloned()
    }

    /// All volumes, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Volume> {
        self.all().values().cloned().collect()
    }

    /// Makes a volume; one of that name that is there already is given back as it is.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`]; then there is none.
    pub fn create(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume, VolumeError> {
        check_name(name)?;
        Content::of(&options)?;
        let mut volumes = self.all();
        if let Some(found) = volumes.get(name) {
            return Ok(found.clone());
        }
        let volume = Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            options,
            labels,
        };
        self.make(&volume)?;
        volumes.insert(name.to_owned(), volume.clone());
        Ok(volume)
    }

    fn make(&self, volume: &Volume) -> Result<(), VolumeError> {
        let target = self.root.join(&volume.name);
        let failed = |source| VolumeError::io("make", &target)(source);
        let made = tempfile::Builder::new()
            .prefix(NEW)
            .tempdir_in(&self.root)
            .map_err(failed)?;
        let build = || -> io::Result<()> {
            fs::set_permissions(made.path(), fs::Permissions::from_mode(0o701))?;
            let data = made.path().join(DATA);
            DirBuilder::new().mode(0o755).create(&data)?;
            fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?; // whatever the umask
            let mut file = File::create_new(made.path().join(DESCRIPTION))?;
            file.write_all(&serde_json::to_vec_pretty(&describe(volume))?)?;
            file.sync_all()?;
            File::open(made.path())?.sync_all()?;
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                made.path(),
                rustix::fs::CWD,
                &target,
                rustix::fs::RenameFlags::NOREPLACE,
            )?;
            File::open(&self.root)?.sync_all()
        };
        build().map_err(failed)
    }

    /// Removes a volume; what it holds is for the caller to delete, which can take a while. So is it to know whether
    /// anybody uses it.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn remove(&self, name: &str) -> Result<Trash, VolumeError> {
        let mut volumes = self.all();
        let volume = volumes.get(name).ok_or(VolumeError::NotFound)?;
        let path = self.root.join(name);
        if let Ok(content) = Content::of(&volume.options) {
            content
                .unmount(&path.join(DATA))
                .map_err(VolumeError::io("unmount", &path))?;
        }
        let aside = tempfile::Builder::new()
            .prefix(OLD)
            .tempdir_in(&self.root)
            .map_err(VolumeError::io("remove", &path))?
            .keep();
        let renamed = fs::rename(&path, &aside).and_then(|()| File::open(&self.root)?.sync_all());
        renamed.map_err(VolumeError::io("remove", &path))?;
        volumes.remove(name);
        Ok(Trash(aside))
    }

    /// Makes the volume's content be at its mount point, for a container that is to use it.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn attach(&self, name: &str) -> Result<PathBuf, VolumeError> {
        let volume = self.find(name).ok_or(VolumeError::NotFound)?;
        let path = self.mountpoint(name);
        let device = volume.options.get("device").cloned().unwrap_or_default();
        let mounted = Content::of(&volume.options)?.mount(&path);
        mounted.map_err(|source| VolumeError::Mount {
            device,
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Undoes [`VolumeStore::attach`], after the last container that used it.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn detach(&self, name: &str) -> Result<(), VolumeError> {
        let Some(volume) = self.find(name) else {
            return Ok(());
        };
        let path = self.mountpoint(name);
        Content::of(&volume.options)?
            .unmount(&path)
            .map_err(VolumeError::io("unmount", path))
    }

    /// Gives the volume the content of the directory `source` of `root`, with its owner and mode, if it is empty and
    /// there is such a directory; the volume has it as a whole or not at all.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn fill(&self, name: &str, root: &Path, source: &Path) -> Result<(), VolumeError> {
        let volume = self.find(name).ok_or(VolumeError::NotFound)?;
        let path = self.root.join(name);
        let filled = match Content::of(&volume.options)? {
            Content::Own => fill::fill(&path, root, source),
            Content::Bind { .. } => fill::fill_in_place(&path.join(DATA), root, source),
            Content::Tmpfs { .. } => Ok(()), // it is gone before a container comes to see it
        };
        filled.map_err(VolumeError::io("fill", path))
    }

    /// What the volume takes on disk.
    ///
    /// # Errors
    ///
    /// See [`VolumeError`].
    pub fn usage(&self, name: &str) -> Result<Usage, VolumeError> {
        let path = self.mountpoint(name);
        usage(&path).map_err(VolumeError::io("read", path))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(volume: &Volume) -> Description {
    Description {
        v: 1,
        name: volume.name.clone(),
        created: volume.created,
        options: volume.options.clone(),
        labels: volume.labels.clone(),
    }
}

/// The volume in a directory; `None` if none is there.
fn read(directory: &Path) -> Result<Option<Volume>, VolumeError> {
    let path = directory.join(DESCRIPTION);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(VolumeError::io("read", path)(error)),
    };
    let found: Description =
        serde_json::from_slice(&bytes).map_err(|source| VolumeError::Parse { path, source })?;
    Ok(Some(Volume {
        name: found.name,
        created: found.created,
        options: found.options,
        labels: found.labels,
    }))
}

fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
