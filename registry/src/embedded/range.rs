//! Reading ranges, now or as of an older revision.

use std::collections::BTreeMap;

use redb::ReadableTable;
use tonic::Status;

use super::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use super::pb::etcdserverpb::{RangeRequest, RangeResponse};
use super::pb::mvccpb::KeyValue;
use super::store::Refusal;
use super::tables::{Keys, current, newest_first};

/// The least one needs to read: the values, their history, and which revisions that covers.
pub(super) struct View<'a, C, L> {
    pub(super) current: &'a C,
    pub(super) log: &'a L,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl<C, L> View<'_, C, L>
where
    C: ReadableTable<&'static [u8], &'static [u8]>,
    L: ReadableTable<(i64, u32), &'static [u8]>,
{
    /// Answers a range request; the header is left to the caller.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        check_revision(request.revision, self.revision, self.compacted)?;
        let keys = Keys::new(&request.key, &request.range_end);
        let found = if request.revision > 0 && request.revision < self.revision {
            self.as_of(request.revision, &keys)?
        } else {
            current(self.current, &keys)?
        };
        Ok(shape(request, found))
    }

    /// The values of `keys` at an older revision: those of now, with what happened since undone.
    fn as_of(&self, revision: i64, keys: &Keys) -> Result<Vec<KeyValue>, Refusal> {
        let now = current(self.current, keys)?;
        let mut then: BTreeMap<Vec<u8>, KeyValue> =
            now.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        newest_first(self.log, revision, |event| {
            let Some(kv) = event.kv.filter(|kv| keys.contains(&kv.key)) else {
                return;
            };
            match event.prev_kv {
                Some(previous) => then.insert(kv.key, previous),
                None => then.remove(&kv.key),
            };
        })?;
        Ok(then.into_values().collect())
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

/// Filters, sorts and cuts what was found as the request asks.
fn shape(request: &RangeRequest, mut found: Vec<KeyValue>) -> RangeResponse {
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    if request.count_only {
        return RangeResponse {
            count,
            ..RangeResponse::default()
        };
    }
    let within = |value: i64, least: i64, most: i64| {
        (least == 0 || value >= least) && (most == 0 || value <= most)
    };
    found.retain(|kv| {
        within(
            kv.mod_revision,
            request.min_mod_revision,
            request.max_mod_revision,
        ) && within(
            kv.create_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
    });
    match request.sort_target() {
        SortTarget::Key => {} // as found
        SortTarget::Version => found.sort_by_key(|kv| kv.version),
        SortTarget::Create => found.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => found.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => found.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        found.reverse();
    }
    let limit = usize::try_from(request.limit)
        .ok()
        .filter(|&limit| limit > 0);
    let more = limit.is_some_and(|limit| found.len() > limit);
    found.truncate(limit.unwrap_or(usize::MAX));
    if request.keys_only {
        for kv in &mut found {
            kv.value.clear();
        }
    }
    RangeResponse {
        header: None,
        kvs: found,
        more,
        count,
    }
}
