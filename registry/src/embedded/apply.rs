//! Applying writes to the tables of one transaction.

use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tonic::Status;

use super::disk::no_space;
use super::pb::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use super::pb::mvccpb::event::EventType;
use super::pb::mvccpb::{Event, KeyValue};
use super::range::View;
use super::store::Refusal;
use super::tables::{
    COMPACTED, CURRENT, Keys, LEASE_KEYS, LEASES, LOG, META, REVISION, counter, current, decode,
};

/// Revisions kept for watches that resume and for reads of the past.
const KEEP_REVISIONS: i64 = 10_000;
/// Bytes of history kept, whatever the number of revisions.
const KEEP_BYTES: u64 = 64 << 20;

/// How much there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Size {
    /// Bytes of history.
    history: u64,
    /// Bytes of what is there now.
    current: u64,
}

impl Size {
    pub(super) fn measure(database: &Database) -> Result<Self, redb::Error> {
        let read = database.begin_read()?;
        let mut size = Self::default();
        for item in read.open_table(LOG)?.iter()? {
            size.history += item?.1.value().len() as u64;
        }
        for item in read.open_table(CURRENT)?.iter()? {
            size.current += item?.1.value().len() as u64;
        }
        Ok(size)
    }

    /// Bytes of all that is kept.
    pub(super) fn total(&self) -> u64 {
        self.history + self.current
    }
}

/// What a batch has done.
pub(super) struct Done {
    /// The last revision.
    pub(super) revision: i64,
    /// The first one whose history is kept.
    pub(super) compacted: i64,
    pub(super) size: Size,
    pub(super) events: Vec<Event>,
}

/// A transaction under way. Each request in it makes at most one revision.
pub(super) struct Batch<'t> {
    current: Table<'t, &'static [u8], &'static [u8]>,
    log: Table<'t, (i64, u32), &'static [u8]>,
    leases: Table<'t, i64, i64>,
    lease_keys: Table<'t, (i64, &'static [u8]), ()>,
    meta: Table<'t, &'static str, i64>,
    revision: i64,
    compacted: i64,
    size: Size,
    /// Nothing may be added.
    full: bool,
    /// What happened, for those who watch.
    events: Vec<Event>,
    /// Events of the request under way; while there are none its revision is not taken.
    sub: u32,
    changed: bool,
}

impl<'t> Batch<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        size: Size,
        full: bool,
    ) -> Result<Self, redb::Error> {
        let meta = transaction.open_table(META)?;
        Ok(Self {
            revision: counter(&meta, REVISION)?,
            compacted: counter(&meta, COMPACTED)?,
            current: transaction.open_table(CURRENT)?,
            log: transaction.open_table(LOG)?,
            leases: transaction.open_table(LEASES)?,
            lease_keys: transaction.open_table(LEASE_KEYS)?,
            meta,
            size,
            full,
            events: Vec::new(),
            sub: 0,
            changed: false,
        })
    }

    /// Compacts what is too much and writes the counters. `None` if nothing has changed and there is nothing to commit.
    pub(super) fn finish(mut self) -> Result<Option<Done>, redb::Error> {
        if !self.changed {
            return Ok(None);
        }
        // A tenth more than is kept, so that it is not done in every batch.
        if self.revision - self.compacted > KEEP_REVISIONS + KEEP_REVISIONS / 10 {
            self.forget(self.revision - KEEP_REVISIONS)?;
        }
        while self.size.history > KEEP_BYTES && self.compacted < self.revision {
            let kept = (self.revision - self.compacted.max(1)) / 2;
            self.forget(self.revision - kept)?;
        }
        self.meta.insert(REVISION, self.revision)?;
        self.meta.insert(COMPACTED, self.compacted)?;
        Ok(Some(Done {
            revision: self.revision,
            compacted: self.compacted,
            size: self.size,
            events: self.events,
        }))
    }

    /// The last revision; within a request that has written, its own.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// The first revision whose history is kept.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Ends a request: the next write makes a new revision.
    pub(super) fn seal(&mut self) {
        self.sub = 0;
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let (revision, compacted) = (self.revision, self.compacted);
        View {
            current: &self.current,
            log: &self.log,
            revision,
            compacted,
        }
        .range(request)
    }

    pub(super) fn values(&self, keys: &Keys) -> Result<Vec<KeyValue>, redb::Error> {
        current(&self.current, keys)
    }

    /// Refuses a request that no state of the store could carry out.
    pub(super) fn check_put_alone(request: &PutRequest) -> Result<(), Status> {
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        if request.ignore_value && !request.value.is_empty() {
            return Err(Status::invalid_argument("etcdserver: value is provided"));
        }
        if request.ignore_lease && request.lease != 0 {
            return Err(Status::invalid_argument("etcdserver: lease is provided"));
        }
        Ok(())
    }

    /// Whether `request` could be carried out. All operations of a transaction are checked before the first
    /// is applied, so that a refused one leaves nothing behind.
    pub(super) fn check_put(&self, request: &PutRequest) -> Result<(), Refusal> {
        Self::check_put_alone(request)?;
        if self.full {
            return Err(no_space().into());
        }
        if request.lease != 0 && !self.lease_exists(request.lease)? {
            return Err(lease_not_found().into());
        }
        let needs_previous = request.ignore_value || request.ignore_lease;
        if needs_previous && self.current.get(request.key.as_slice())?.is_none() {
            return Err(Status::invalid_argument("etcdserver: key not found").into());
        }
        Ok(())
    }

    /// Carries out a request that was checked.
    pub(super) fn put(&mut self, request: PutRequest) -> Result<PutResponse, Refusal> {
        let (previous, was): (Option<KeyValue>, usize) =
            match self.current.get(request.key.as_slice())? {
                Some(bytes) => (Some(decode(bytes.value())?), bytes.value().len()),
                None => (None, 0),
            };
        let revision = self.next_revision();
        let former = previous.clone().unwrap_or(KeyValue {
            create_revision: revision,
            ..KeyValue::default()
        });
        let kv = KeyValue {
            create_revision: former.create_revision,
            mod_revision: revision,
            version: former.version + 1,
            value: if request.ignore_value {
                former.value
            } else {
                request.value
            },
            lease: if request.ignore_lease {
                former.lease
            } else {
                request.lease
            },
            key: request.key,
        };
        if former.lease != kv.lease {
            self.detach(former.lease, &kv.key)?;
            if kv.lease != 0 {
                self.lease_keys.insert((kv.lease, kv.key.as_slice()), ())?;
            }
        }
        let bytes = kv.encode_to_vec();
        self.current.insert(kv.key.as_slice(), bytes.as_slice())?;
        self.size.current = (self.size.current + bytes.len() as u64).saturating_sub(was as u64);
        self.record(EventType::Put, kv, previous.clone())?;
        Ok(PutResponse {
            header: None,
            prev_kv: previous.filter(|_| request.prev_kv),
        })
    }

    pub(super) fn delete(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Refusal> {
        let found = self.values(&Keys::new(&request.key, &request.range_end))?;
        let deleted = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let prev_kvs = if request.prev_kv {
            found.clone()
        } else {
            Vec::new()
        };
        for previous in found {
            let revision = self.next_revision();
            self.detach(previous.lease, &previous.key)?;
            let removed = self.current.remove(previous.key.as_slice())?;
            let length = removed.map_or(0, |bytes| bytes.value().len() as u64);
            self.size.current = self.size.current.saturating_sub(length);
            let kv = KeyValue {
                key: previous.key.clone(),
                mod_revision: revision,
                ..KeyValue::default()
            };
            self.record(EventType::Delete, kv, Some(previous))?;
        }
        Ok(DeleteRangeResponse {
            header: None,
            deleted,
            prev_kvs,
        })
    }

    /// Gives up the history before `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision > self.revision {
            let future = "etcdserver: mvcc: required revision is a future revision";
            return Err(Status::out_of_range(future).into());
        }
        if revision <= self.compacted {
            let gone = "etcdserver: mvcc: required revision has been compacted";
            return Err(Status::out_of_range(gone).into());
        }
        self.forget(revision)?;
        Ok(())
    }

    fn lease_exists(&self, id: i64) -> Result<bool, redb::Error> {
        Ok(self.leases.get(id)?.is_some())
    }

    /// Adds a lease whose id is known to be free: that is for the deadlines to tell.
    pub(super) fn grant(&mut self, id: i64, ttl: i64) -> Result<(), Refusal> {
        if self.full {
            return Err(no_space().into());
        }
        self.leases.insert(id, ttl)?;
        self.changed = true;
        Ok(())
    }

    /// Ends a lease and deletes its keys, in one revision.
    pub(super) fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        if self.leases.remove(id)?.is_none() {
            return Err(lease_not_found().into());
        }
        self.changed = true;
        let mut keys = Vec::new();
        for item in self.lease_keys.range((id, &[][..])..)? {
            let key = item?.0;
            let (lease, key) = key.value();
            if lease != id {
                break;
            }
            keys.push(key.to_vec());
        }
        for key in keys {
            self.delete(&DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            })?;
        }
        Ok(())
    }

    fn next_revision(&mut self) -> i64 {
        if self.sub == 0 {
            self.revision += 1;
        }
        self.revision
    }

    fn detach(&mut self, lease: i64, key: &[u8]) -> Result<(), redb::Error> {
        if lease != 0 {
            self.lease_keys.remove((lease, key))?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        kind: EventType,
        kv: KeyValue,
        prev_kv: Option<KeyValue>,
    ) -> Result<(), redb::Error> {
        let event = Event {
            r#type: kind.into(),
            kv: Some(kv),
            prev_kv,
        };
        let bytes = event.encode_to_vec();
        self.size.history += bytes.len() as u64;
        self.log
            .insert((self.revision, self.sub), bytes.as_slice())?;
        self.events.push(event);
        self.sub += 1;
        self.changed = true;
        Ok(())
    }

    fn forget(&mut self, before: i64) -> Result<(), redb::Error> {
        let mut bytes = 0;
        for item in self.log.extract_from_if(..(before, 0), |_, _| true)? {
            bytes += item?.1.value().len() as u64;
        }
        self.size.history = self.size.history.saturating_sub(bytes);
        self.compacted = before;
        self.changed = true;
        Ok(())
    }
}

pub(super) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn put(key: &str, value: Vec<u8>) -> PutRequest {
        PutRequest {
            key: key.into(),
            value,
            ..PutRequest::default()
        }
    }

    /// Puts `count` values of `size` bytes, `each` to a commit, and returns the last revision, the first kept
    /// and the bytes of history.
    fn fill(count: usize, length: usize, each: usize) -> (i64, i64, u64) {
        let database = redb::Builder::new()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .unwrap();
        let mut size = Size::default();
        for _ in 0..count / each {
            let transaction = database.begin_write().unwrap();
            let mut batch = Batch::open(&transaction, size.clone(), false).unwrap();
            for _ in 0..each {
                batch.put(put("k", vec![7; length])).unwrap();
                batch.seal();
            }
            size = batch.finish().unwrap().unwrap().size;
            transaction.commit().unwrap();
        }
        let read = database.begin_read().unwrap();
        let meta = read.open_table(META).unwrap();
        let measured = Size::measure(&database).unwrap();
        assert_eq!(
            (measured.history, measured.current),
            (size.history, size.current)
        );
        (
            counter(&meta, REVISION).unwrap(),
            counter(&meta, COMPACTED).unwrap(),
            size.history,
        )
    }

    #[test]
    fn history_is_bounded_in_revisions() {
        let (revision, compacted, _) = fill(12_000, 1, 1_000);
        assert_eq!(revision, 12_000);
        assert!(compacted > 0);
        assert!((KEEP_REVISIONS..=KEEP_REVISIONS * 11 / 10).contains(&(revision - compacted)));
    }

    #[test]
    fn history_is_bounded_in_bytes() {
        let (revision, compacted, bytes) = fill(40, 1 << 20, 10);
        assert!(bytes <= KEEP_BYTES, "{bytes}");
        assert!(compacted < revision, "something is kept");
    }

    #[test]
    fn nothing_written_is_nothing_to_commit() {
        let database = redb::Builder::new()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .unwrap();
        let transaction = database.begin_write().unwrap();
        let mut batch = Batch::open(&transaction, Size::default(), false).unwrap();
        let absent = DeleteRangeRequest {
            key: b"k".to_vec(),
            ..DeleteRangeRequest::default()
        };
        assert_eq!(batch.delete(&absent).unwrap().deleted, 0);
        assert!(batch.finish().unwrap().is_none());
    }
}
