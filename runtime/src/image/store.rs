//! The store on disk: where things lie, what is alive, and how garbage leaves.
//!
//! ```text
//! images.json          the catalogue; what it does not reach is garbage
//! blobs/sha256/<hex>   manifests, configurations, compressed layers
//! layers/<hex>/diff    unpacked layers, by chain ID, as overlayfs takes them
//! tmp/                 what is being made; nobody's after a crash
//! trash/               what is being deleted
//! lock                 held for as long as the store is open
//! ```

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::FlockOperation;
use tokio::sync::Semaphore;
use tracing::warn;

use super::blob::Blobs;
use super::catalog::{Catalog, FindImageError, Image, Record};
use super::digest::{Digest, LayerId};
use super::index::{self, ReadIndexError};
use super::limits::Limits;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has it open.
    #[error("the image store {} is in use by another process; give each daemon a data root of its own", root.display())]
    InUse {
        /// The store's directory.
        root: PathBuf,
    },
    /// The file system refused.
    #[error("open the image store: {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The list of images cannot be read.
    #[error("open the image store {}", root.display())]
    Index {
        /// The store's directory.
        root: PathBuf,
        /// Why not.
        source: ReadIndexError,
    },
}

/// Why the list of images could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
pub struct WriteIndexError {
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// The images of one host. Clones share one store.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) limits: Limits,
    /// Held for its lock, never read.
    _lock: File,
    /// Taken by whoever changes the catalogue, through the write to disk.
    writing: Mutex<()>,
    catalog: Mutex<Arc<Catalog>>,
    /// What work in progress needs, and how many times.
    pub(crate) pins: Mutex<HashMap<Content, usize>>,
    /// One lock for each blob or layer being made, so that it is made once.
    making: Mutex<HashMap<Content, Weak<tokio::sync::Mutex<()>>>>,
    /// A turn for each layer that is unpacked at the same time. Who has one waits for nobody.
    pub(crate) unpacking: Arc<Semaphore>,
    trashed: AtomicU64,
}

/// A thing that garbage collection decides over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Content {
    Blob(Digest),
    Layer(LayerId),
}

impl ImageStore {
    /// Opens the store in `root`, making it if need be, with the default [`Limits`].
    ///
    /// What a killed pull or load left is set aside at once and deleted in the background; the time
    /// this takes grows with the number of images, not with their size.
    ///
    /// # Errors
    ///
    /// See [`OpenStoreError`]; above all, only one process may have a store open.
    pub fn open(root: &Path) -> Result<Self, OpenStoreError> {
        Self::open_with(root, Limits::default())
    }

    /// [`ImageStore::open`] with other limits.
    ///
    /// # Errors
    ///
    /// As [`ImageStore::open`].
    pub fn open_with(root: &Path, limits: Limits) -> Result<Self, OpenStoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenStoreError::Io { path, source }
        };
        // Set-user-ID programs lie unpacked in here, of no concern to the host's users.
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(root).map_err(failed(root))?;
        // Mounts and symlinks are made from these paths whatever the working directory is then.
        let root = fs::canonicalize(root).map_err(failed(root))?;
        for part in ["blobs/sha256", "layers", "tmp", "trash", "empty"] {
            let part = root.join(part);
            make(&part).map_err(failed(&part))?;
        }
        let lock = lock(&root)?;
        let blobs = Blobs::new(root.join("blobs/sha256"), root.join("tmp"));
        let catalog = index::read(&root.join("images.json"), &blobs, limits.metadata_bytes)
            .map_err(|source| OpenStoreError::Index {
                root: root.clone(),
                source,
            })?;
        let inner = Inner {
            blobs,
            limits,
            _lock: lock,
            writing: Mutex::default(),
            catalog: Mutex::new(Arc::new(catalog)),
            pins: Mutex::default(),
            making: Mutex::default(),
            unpacking: Arc::new(Semaphore::new(limits.unpacking.max(1))),
            trashed: AtomicU64::new(0),
            root,
        };
        let left = inner.set_aside_leftovers().map_err(failed(&inner.tmp()))?;
        let inner = Arc::new(inner);
        inner.collect();
        delete_in_background(left);
        Ok(Self { inner })
    }

    /// The image with this name, name and digest, ID, or beginning of an ID.
    ///
    /// # Errors
    ///
    /// See [`FindImageError`].
    pub fn find(&self, name_or_id: &str) -> Result<Image, FindImageError> {
        self.inner.catalog().find(name_or_id).map(Record::to_image)
    }

    /// Bytes of a layer's files, if it is here.
    #[must_use]
    pub fn layer_size(&self, layer: LayerId) -> Option<u64> {
        self.inner.layer_size(layer)
    }

    /// All images, also those that lost their names.
    #[must_use]
    pub fn list(&self) -> Vec<Image> {
        self.inner
            .catalog()
            .records
            .iter()
            .map(Record::to_image)
            .collect()
    }
}

fn lock(root: &Path) -> Result<File, OpenStoreError> {
    let path = root.join("lock");
    let open = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = open.map_err(|source| OpenStoreError::Io {
        path: path.clone(),
        source,
    })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenStoreError::InUse {
            root: root.to_owned(),
        }),
        Err(errno) => Err(OpenStoreError::Io {
            path,
            source: errno.into(),
        }),
    }
}

impl Inner {
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn layer_dir(&self, layer: LayerId) -> PathBuf {
        self.root.join("layers").join(layer.0.hex())
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&hold(&self.catalog))
    }

    /// Changes the catalogue: on disk first, then in memory, or not at all. Blocks on the disk.
    pub(crate) fn change<T, E>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<WriteIndexError>,
    {
        let _writing = hold(&self.writing);
        let mut next = Catalog::clone(&self.catalog());
        let outcome = change(&mut next)?;
        let path = self.root.join("images.json");
        index::write(&next, &path, &self.tmp())
            .map_err(|source| WriteIndexError { path, source })?;
        *hold(&self.catalog) = Arc::new(next);
        Ok(outcome)
    }

    /// The lock under which one blob or layer is made.
    pub(crate) fn maker(&self, content: Content) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = hold(&self.making);
        making.retain(|_, lock| lock.strong_count() > 0);
        let known = making.get(&content).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            making.insert(content, Arc::downgrade(&lock));
            lock
        })
    }

    /// Sets aside what neither an image nor work in progress needs, and has it deleted.
    ///
    /// Gives back the layers that went. A failure is logged: the next collection tries again.
    pub(crate) fn collect(self: &Arc<Self>) -> Vec<LayerId> {
        let _writing = hold(&self.writing);
        let pins = hold(&self.pins); // held through, so that nobody comes to need what is leaving
        let (mut blobs, mut layers) = self.catalog().live();
        for content in pins.keys() {
            match *content {
                Content::Blob(digest) => drop(blobs.insert(digest)),
                Content::Layer(layer) => drop(layers.insert(layer)),
            }
        }
        let mut gone = Vec::new();
        let mut aside = Vec::new();
        let mut sweep = |dir: &Path, keep: &dyn Fn(Digest) -> bool, is_layer: bool| {
            for (path, digest) in entries(dir) {
                if digest.is_some_and(keep) {
                    continue;
                }
                match self.set_aside(&path) {
                    Ok(trash) => aside.push(trash),
                    Err(error) => {
                        warn!(%error, path = %path.display(), "set unused image content aside");
                    }
                }
                if is_layer {
                    gone.extend(digest.map(LayerId));
                }
            }
        };
        sweep(self.blobs.dir(), &|digest| blobs.contains(&digest), false);
        sweep(
            &self.root.join("layers"),
            &|digest| layers.contains(&LayerId(digest)),
            true,
        );
        drop(pins);
        delete_in_background(aside);
        gone
    }

    /// What is in tmp/ and trash/ when the store is opened.
    fn set_aside_leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        // The names in trash/ are numbers; begin past those that a killed process left.
        for entry in fs::read_dir(self.root.join("trash"))? {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            self.trashed
                .fetch_max(number.unwrap_or(0), Ordering::Relaxed);
            left.push(entry.path());
        }
        for entry in fs::read_dir(self.tmp())? {
            left.push(self.set_aside(&entry?.path())?);
        }
        Ok(left)
    }

    /// Sets a directory aside that may be there, and has it deleted.
    pub(crate) fn discard(&self, path: &Path) {
        match self.set_aside(path) {
            Ok(trash) => delete_in_background(vec![trash]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, path = %path.display(), "set aside what was unpacked"),
        }
    }

    /// Moves a file or directory to trash/, where nothing looks for it.
    fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let number = self.trashed.fetch_add(1, Ordering::Relaxed) + 1;
        let trash = self.root.join("trash").join(number.to_string());
        fs::rename(path, &trash)?;
        Ok(trash)
    }
}

/// Directory entries; an unreadable directory has none and is complained about.
fn entries(dir: &Path) -> Vec<(PathBuf, Option<Digest>)> {
    let read = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = read.unwrap_or_else(|error| {
        warn!(%error, dir = %dir.display(), "look for unused image content");
        Vec::new()
    });
    let named = |entry: fs::DirEntry| {
        let digest = entry.file_name().to_str().and_then(Digest::from_hex);
        (entry.path(), digest)
    };
    entries.into_iter().map(named).collect()
}

/// Deletes what was set aside. It may take long, and if it is cut short the next open goes on.
fn delete_in_background(trash: Vec<PathBuf>) {
    if trash.is_empty() {
        return;
    }
    let delete = move || {
        for path in trash {
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let deleted = if is_dir {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            if let Err(error) = deleted {
                warn!(%error, path = %path.display(), "delete unused image content");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("image-trash".into())
        .spawn(delete)
    {
        warn!(%error, "delete unused image content: the next start will");
    }
}

/// Locks; the data behind these locks is whole even if a holder panicked.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
