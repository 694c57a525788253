//! The file of the store: opened, and after a failure opened anew, so that reads go on.
//!
//! redb does not touch a file again on which something failed. What was committed is whole all the same, so
//! the file is closed and opened. Blocks are reserved as the file grows: a full disk is told then, before
//! anything of a commit is written, and never on the way.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tonic::Status;
use tracing::{error, info, warn};

use super::store::Refusal;

/// Pages kept in memory; the kernel's cache has the others.
const CACHE: usize = 32 << 20;
/// How long writes are refused without trying, once the disk was found full.
const FULL_FOR: Duration = Duration::from_secs(1);

/// The file, shared by all who read and the one who writes.
pub(super) struct Disk {
    path: PathBuf,
    opened: RwLock<Opened>,
    /// When it was last found to be full; none once a write has succeeded.
    full: Mutex<Option<Instant>>,
    /// Bytes of keys, values and history at which nothing may be added.
    quota: u64,
    /// Whether there are as many.
    over: AtomicBool,
}

struct Opened {
    database: Option<Database>,
    /// Counts how often it was opened, so that of many who find it failed one opens it anew.
    generation: u64,
}

/// Opens the database at `path`, or makes one in an empty file.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false);
    let backend = Reserving::new(file.open(path)?)?;
    Builder::new()
        .set_cache_size(CACHE)
        .create_with_backend(backend)
}

impl Disk {
    pub(super) fn new(database: Database, path: PathBuf, quota: u64) -> Self {
        let opened = Opened {
            database: Some(database),
            generation: 0,
        };
        Self {
            path,
            opened: RwLock::new(opened),
            full: Mutex::new(None),
            quota,
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `op` on the database. After a failure of the disk the next call finds it opened anew.
    pub(super) fn with<R>(
        &self,
        op: impl FnOnce(&Database) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let (failure, generation) = {
            let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
            let result = match &opened.database {
                Some(database) => op(database),
                None => Err(Refusal::Storage(redb::Error::PreviousIo)),
            };
            match result {
                Err(Refusal::Storage(error)) if is_failure(&error) => (error, opened.generation),
                done => return done,
            }
        };
        self.reopen(generation);
        Err(Refusal::Storage(failure))
    }

    fn reopen(&self, failed: u64) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.generation != failed {
            return;
        }
        opened.database = None; // lets go of the file
        match open(&self.path) {
            Ok(database) => {
                info!(path = %self.path.display(), "opened the registry again after a failure");
                opened.database = Some(database);
                opened.generation += 1;
            }
            Err(error) => {
                error!(path = %self.path.display(), %error, "cannot open the registry again");
            }
        }
    }

    /// Gives room that is not used back to the file system. Everything else waits meanwhile.
    pub(super) fn compact(&self) -> Result<(), Refusal> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &mut opened.database else {
            return Err(Refusal::Storage(redb::Error::PreviousIo));
        };
        database.compact().map_err(redb::Error::from)?;
        Ok(())
    }

    /// Whether the last write found the disk full, or as much there as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.full().is_some() || self.is_over()
    }

    /// Whether there is as much as there may be.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes how many bytes of keys, values and history there are.
    pub(super) fn note_size(&self, bytes: u64) {
        let over = bytes >= self.quota;
        if self.over.swap(over, Ordering::Relaxed) == over {
            return;
        }
        let quota = self.quota;
        match over {
            true => warn!(
                bytes,
                quota, "the embedded registry is full: nothing is added"
            ),
            false => info!(bytes, quota, "the embedded registry has room again"),
        }
    }

    /// Whether that was a moment ago, and need not be tried.
    pub(super) fn refuses(&self) -> bool {
        self.full().is_some_and(|since| since.elapsed() < FULL_FOR)
    }

    fn full(&self) -> Option<Instant> {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a write went.
    pub(super) fn note(&self, result: Result<(), &redb::Error>) {
        let full = match result {
            Ok(()) => None,
            Err(error) if is_full(error) => Some(Instant::now()),
            Err(_) => return,
        };
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
    }
}

/// What a client is told of a failure: of a full disk what etcd says.
pub(super) fn refusal(error: &redb::Error) -> Status {
    if is_full(error) {
        no_space()
    } else {
        Status::unavailable(format!("the embedded registry's store failed: {error}"))
    }
}

pub(super) fn no_space() -> Status {
    Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
}

fn is_full(error: &redb::Error) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    matches!(error, redb::Error::Io(error) if full.contains(&error.kind()))
}

/// Whether nothing more can be done with what is open.
pub(super) fn is_failure(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo)
}

/// A file whose blocks are there before they are written.
#[derive(Debug)]
struct Reserving {
    inner: FileBackend,
    file: File,
}

impl Reserving {
    fn new(file: File) -> Result<Self, DatabaseError> {
        Ok(Self {
            file: file.try_clone()?,
            inner: FileBackend::new(file)?,
        })
    }
}

impl StorageBackend for Reserving {
    fn set_len(&self, length: u64) -> io::Result<()> {
        let now = self.file.metadata()?.len();
        if length <= now {
            return self.inner.set_len(length);
        }
        match fallocate(&self.file, FallocateFlags::empty(), now, length - now) {
            Ok(()) => Ok(()),
            // Some file systems cannot.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.inner.set_len(length),
            Err(errno) => {
                self.file.set_len(now)?; // a part may have been reserved
                Err(errno.into())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
