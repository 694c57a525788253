//! The store: reads on blocking threads, writes through the writer.

use std::path::PathBuf;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{oneshot, watch};
use tonic::Status;
use tracing::error;

use super::apply::{Batch, Size};
use super::disk::{self, Disk};
use super::lease::Leases;
use super::pb::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use super::pb::mvccpb::Event;
use super::range::View;
use super::recent::Recent;
use super::tables::{
    COMPACTED, CURRENT, FORMAT, LEASE_KEYS, LEASES, LOG, MEMBER, META, REVISION, counter, decode,
};
use super::writer::Writer;

/// Layout of the tables; another one is not touched.
const FORMAT_VERSION: i64 = 1;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The request's own fault.
    Status(Status),
    /// The disk's.
    Storage(redb::Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<redb::Error> for Refusal {
    fn from(error: redb::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<redb::TransactionError> for Refusal {
    fn from(error: redb::TransactionError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<redb::TableError> for Refusal {
    fn from(error: redb::TableError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<redb::StorageError> for Refusal {
    fn from(error: redb::StorageError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Status(status) => status,
            Refusal::Storage(error) => {
                error!(%error, "store");
                disk::refusal(&error)
            }
        }
    }
}

/// The store, shared by all services.
#[derive(Clone)]
pub(super) struct Store {
    disk: Arc<Disk>, // before the writer: dropped first, the thread's is the last
    writer: Writer,
    pub(super) leases: Arc<Leases>,
    revision: watch::Receiver<i64>,
    recent: Arc<Recent>,
    member: u64,
}

/// Part of the history: whole revisions, in order.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) events: Arc<[Event]>,
    /// The last revision covered, whether or not it has events here.
    pub(super) upto: i64,
}

/// The history asked for begins before this revision, the first one kept.
pub(super) struct Compacted(pub(super) i64);

impl Store {
    /// Opens or creates the tables, and starts the writer. The receiver is told when the last clone of the
    /// store is gone and the file closed.
    pub(super) fn open(
        database: Database,
        path: PathBuf,
        quota: u64,
    ) -> Result<(Self, oneshot::Receiver<()>), redb::Error> {
        let member = initialise(&database)?;
        let read = database.begin_read()?;
        let revision = counter(&read.open_table(META)?, REVISION)?;
        let leases = Arc::new(Leases::load(&read.open_table(LEASES)?)?);
        drop(read);
        let size = Size::measure(&database)?;
        let disk = Arc::new(Disk::new(database, path, quota));
        disk.note_size(size.total());
        let recent = Arc::new(Recent::after(revision));
        let (publish, revision) = watch::channel(revision);
        let told = (publish, Arc::clone(&recent));
        let (writer, closed) = Writer::start(Arc::clone(&disk), size, told)?;
        Ok((
            Self {
                disk,
                writer,
                leases,
                revision,
                recent,
                member,
            },
            closed,
        ))
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn member(&self) -> u64 {
        self.member
    }

    /// The last committed revision, and each later one.
    pub(super) fn revision(&self) -> watch::Receiver<i64> {
        self.revision.clone()
    }

    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.member,
            member_id: self.member,
            revision,
            raft_term: 1,
        }
    }

    /// A header with the last committed revision.
    pub(super) fn header_now(&self) -> ResponseHeader {
        self.header(*self.revision.borrow())
    }

    /// Gives room in the file that is not used back to the file system.
    pub(super) async fn compact_file(&self) -> Result<(), Status> {
        let disk = Arc::clone(&self.disk);
        match tokio::task::spawn_blocking(move || disk.compact()).await {
            Ok(result) => result.map_err(Status::from),
            Err(panic) => Err(Status::internal(panic.to_string())),
        }
    }

    /// Runs `op` in the next batch, and returns what it said once that is durable.
    pub(super) async fn write<R: Send + 'static>(
        &self,
        op: impl FnOnce(&mut Batch<'_>) -> Result<R, Refusal> + Send + 'static,
    ) -> Result<R, Status> {
        self.writer.run(op).await
    }

    /// Runs `op` on what is committed, where it may block.
    pub(super) async fn read<R: Send + 'static>(
        &self,
        op: impl Fn(&ReadTransaction) -> Result<R, Refusal> + Send + 'static,
    ) -> Result<R, Status> {
        let disk = Arc::clone(&self.disk);
        let work = move || {
            let read = || disk.with(|database| op(&database.begin_read()?));
            match read() {
                // It may be a write that failed; the file has been opened anew since.
                Err(Refusal::Storage(error)) if disk::is_failure(&error) => read(),
                done => done,
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(Status::from),
            Err(panic) => Err(Status::internal(panic.to_string())),
        }
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let (revision, mut response) = self.read(move |read| view_range(read, &request)).await?;
        response.header = Some(self.header(revision));
        Ok(response)
    }

    /// Events of the revisions from `from` on, about a mebibyte of them.
    pub(super) async fn history(&self, from: i64) -> Result<Result<Page, Compacted>, Status> {
        const PAGE: usize = 1 << 20;
        if let Some(page) = self.recent.page(from) {
            return Ok(Ok(page));
        }
        self.read(move |read| {
            let meta = read.open_table(META)?;
            let (revision, compacted) = (counter(&meta, REVISION)?, counter(&meta, COMPACTED)?);
            if from < compacted {
                return Ok(Err(Compacted(compacted)));
            }
            let (mut events, mut upto) = (Vec::new(), revision);
            let (mut size, mut last) = (0, from);
            for item in read.open_table(LOG)?.range((from, 0)..)? {
                let (key, value) = item?;
                let at = key.value().0;
                if at != last && size >= PAGE {
                    upto = last;
                    break;
                }
                last = at;
                size += value.value().len();
                events.push(decode(value.value())?);
            }
            let events = events.into();
            Ok(Ok(Page { events, upto }))
        })
        .await
    }
}

/// Answers a range request, and tells the last revision there was.
pub(super) fn view_range(
    read: &ReadTransaction,
    request: &RangeRequest,
) -> Result<(i64, RangeResponse), Refusal> {
    let (current, log, meta) = (
        read.open_table(CURRENT)?,
        read.open_table(LOG)?,
        read.open_table(META)?,
    );
    let (revision, compacted) = (counter(&meta, REVISION)?, counter(&meta, COMPACTED)?);
    let view = View {
        current: &current,
        log: &log,
        revision,
        compacted,
    };
    Ok((revision, view.range(request)?))
}

/// The member's identifier, if there are tables.
fn existing(database: &Database) -> Result<Option<u64>, redb::Error> {
    let meta = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match counter(&meta, FORMAT)? {
        FORMAT_VERSION => Ok(Some(counter(&meta, MEMBER)?.unsigned_abs())),
        other => {
            let wanted = format!("format {other} is not {FORMAT_VERSION}");
            Err(redb::Error::Corrupted(wanted))
        }
    }
}

/// Makes the tables if there are none; returns the member's identifier.
fn initialise(database: &Database) -> Result<u64, redb::Error> {
    // A store that is whole is not written to: its disk may be full.
    if let Some(member) = existing(database)? {
        return Ok(member);
    }
    let write = database.begin_write()?;
    let member = {
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(REVISION, 1)?; // as etcd: the first write makes revision 2
        meta.insert(COMPACTED, 0)?;
        meta.insert(MEMBER, rand::random_range(1..i64::MAX))?;
        counter(&meta, MEMBER)?
    };
    write.open_table(CURRENT)?;
    write.open_table(LOG)?;
    write.open_table(LEASES)?;
    write.open_table(LEASE_KEYS)?;
    write.commit()?;
    Ok(member.unsigned_abs())
}
