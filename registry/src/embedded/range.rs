//! Reading ranges, now or as of an older revision.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use redb::ReadableTable;
use tonic::Status;

use super::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use super::pb::etcdserverpb::{RangeRequest, RangeResponse};
use super::pb::mvccpb::KeyValue;
use super::store::Refusal;
use super::tables::{Keys, decode, newest_first};

/// The least one needs to read: the values, their history, and which revisions that covers.
pub(super) struct View<'a, C, L> {
    pub(super) current: &'a C,
    pub(super) log: &'a L,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

/// Keys whose value was another one at an older revision, and that value if there was one.
type Undone = BTreeMap<Vec<u8>, Option<KeyValue>>;

impl<C, L> View<'_, C, L>
where
    C: ReadableTable<&'static [u8], &'static [u8]>,
    L: ReadableTable<(i64, u32), &'static [u8]>,
{
    /// Answers a range request; the header is left to the caller.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        check_revision(request.revision, self.revision, self.compacted)?;
        let keys = Keys::new(&request.key, &request.range_end);
        let past = request.revision > 0 && request.revision < self.revision;
        let undone = if past {
            self.undone(request.revision, &keys)?
        } else {
            Undone::new()
        };
        let mut answer = Answer::new(request);
        self.walk(&keys, undone, &mut answer)?;
        Ok(answer.finish())
    }

    /// What has happened to `keys` since `revision`, undone.
    fn undone(&self, revision: i64, keys: &Keys) -> Result<Undone, Refusal> {
        let mut undone = Undone::new();
        newest_first(self.log, revision, |event| {
            if let Some(kv) = event.kv.filter(|kv| keys.contains(&kv.key)) {
                undone.insert(kv.key, event.prev_kv);
            }
        })?;
        Ok(undone)
    }

    /// Hands out the values of `keys` in order: those of now, but for what is undone.
    fn walk(
        &self,
        keys: &Keys,
        mut undone: Undone,
        answer: &mut Answer<'_>,
    ) -> Result<(), Refusal> {
        let Some(bounds) = keys.bounds() else {
            return Ok(());
        };
        for item in self.current.range::<&[u8]>(bounds)? {
            let (key, value) = item?;
            while let Some(entry) = undone.first_entry() {
                match entry.key().as_slice().cmp(key.value()) {
                    Ordering::Less => answer.add_undone(entry.remove()),
                    Ordering::Equal | Ordering::Greater => break,
                }
            }
            match undone.remove(key.value()) {
                Some(then) => answer.add_undone(then),
                None => answer.add(|| decode(value.value()))?,
            }
        }
        undone
            .into_values()
            .for_each(|then| answer.add_undone(then));
        Ok(())
    }
}

pub(super) fn check_revision(asked: i64, revision: i64, compacted: i64) -> Result<(), Status> {
    if asked > revision {
        return Err(Status::out_of_range(
            "etcdserver: mvcc: required revision is a future revision",
        ));
    }
    if asked > 0 && asked < compacted {
        return Err(Status::out_of_range(
            "etcdserver: mvcc: required revision has been compacted",
        ));
    }
    Ok(())
}

/// An answer in the making. It holds no more than it has to look at: all values only if they are to be sorted.
struct Answer<'r> {
    request: &'r RangeRequest,
    /// Values to be held: with a limit one more than that, which tells that there are more.
    most: usize,
    kvs: Vec<KeyValue>,
    count: i64,
}

impl<'r> Answer<'r> {
    fn new(request: &'r RangeRequest) -> Self {
        let most = match limit(request) {
            _ if request.count_only => 0,
            Some(limit) if in_order(request) => limit.saturating_add(1),
            _ => usize::MAX,
        };
        Self {
            request,
            most,
            kvs: Vec::new(),
            count: 0,
        }
    }

    fn add(
        &mut self,
        value: impl FnOnce() -> Result<KeyValue, redb::Error>,
    ) -> Result<(), redb::Error> {
        self.count += 1;
        if self.kvs.len() < self.most {
            let kv = value()?;
            if self.wants(&kv) {
                self.kvs.push(kv);
            }
        }
        Ok(())
    }

    fn add_undone(&mut self, then: Option<KeyValue>) {
        if let Some(kv) = then {
            self.count += 1;
            if self.kvs.len() < self.most && self.wants(&kv) {
                self.kvs.push(kv);
            }
        }
    }

    fn wants(&self, kv: &KeyValue) -> bool {
        let within = |value: i64, least: i64, most: i64| {
            (least == 0 || value >= least) && (most == 0 || value <= most)
        };
        let request = self.request;
        let (modified, created) = (kv.mod_revision, kv.create_revision);
        within(modified, request.min_mod_revision, request.max_mod_revision)
            && within(
                created,
                request.min_create_revision,
                request.max_create_revision,
            )
    }

    /// Sorts and cuts what was found. As in etcd, the count is that of all keys, whatever the filters.
    fn finish(mut self) -> RangeResponse {
        if !in_order(self.request) {
            let target = self.request.sort_target();
            let descend = self.request.sort_order() == SortOrder::Descend;
            self.kvs.sort_by(|a, b| {
                let order = compare(target, a, b);
                if descend { order.reverse() } else { order }
            });
        }
        let limit = limit(self.request).unwrap_or(usize::MAX);
        let more = self.kvs.len() > limit;
        self.kvs.truncate(limit);
        if self.request.keys_only {
            for kv in &mut self.kvs {
                kv.value = Vec::new();
            }
        }
        RangeResponse {
            header: None,
            kvs: self.kvs,
            more,
            count: self.count,
        }
    }
}

/// Whether the answer comes in the order of the keys.
fn in_order(request: &RangeRequest) -> bool {
    request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend
}

fn limit(request: &RangeRequest) -> Option<usize> {
    usize::try_from(request.limit)
        .ok()
        .filter(|&limit| limit > 0)
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}
