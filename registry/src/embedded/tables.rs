//! The tables of the store, and how a range of keys is spelled.

use std::collections::BTreeSet;
use std::ops::Bound;

use prost::Message;
use redb::{ReadableTable, TableDefinition};

use super::pb::mvccpb::{Event, KeyValue};

/// Key to `KeyValue`: what is there now.
pub(super) const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
/// Revision and place in it to `Event` with the previous value: what happened, for watches, and for
/// reading older revisions by undoing it.
pub(super) const LOG: TableDefinition<'_, (i64, u32), &[u8]> = TableDefinition::new("log");
/// Lease to its TTL in seconds.
pub(super) const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
/// Lease and key on it.
pub(super) const LEASE_KEYS: TableDefinition<'_, (i64, &[u8]), ()> =
    TableDefinition::new("lease_keys");
/// Counters, by the names below.
pub(super) const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");

pub(super) const REVISION: &str = "revision";
pub(super) const COMPACTED: &str = "compacted";
pub(super) const MEMBER: &str = "member";
pub(super) const FORMAT: &str = "format";

/// Where a range of keys begins and ends.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A key or a range of keys, as in etcd's requests.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    first: Vec<u8>,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    Single,
    Before(Vec<u8>),
    Open,
}

impl Keys {
    /// `range_end` is empty for the single `key`, and a zero byte for all keys from `key` on.
    pub(super) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        Self {
            first: key.to_vec(),
            end,
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.first,
            End::Before(end) => key >= self.first.as_slice() && key < end.as_slice(),
            End::Open => key >= self.first.as_slice(),
        }
    }

    /// Whether one of `sorted` is among these keys.
    pub(super) fn any_of(&self, sorted: &BTreeSet<&[u8]>) -> bool {
        self.bounds()
            .is_some_and(|bounds| sorted.range::<[u8], _>(bounds).next().is_some())
    }

    /// `None` if the end is not after the beginning, which a table would not take.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let first = self.first.as_slice();
        match &self.end {
            End::Single => Some((Bound::Included(first), Bound::Included(first))),
            End::Before(end) if end.as_slice() <= first => None,
            End::Before(end) => Some((Bound::Included(first), Bound::Excluded(end))),
            End::Open => Some((Bound::Included(first), Bound::Unbounded)),
        }
    }
}

/// The current values of `keys`, in order.
pub(super) fn current(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    keys: &Keys,
) -> Result<Vec<KeyValue>, redb::Error> {
    let Some(bounds) = keys.bounds() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for item in table.range::<&[u8]>(bounds)? {
        found.push(decode(item?.1.value())?);
    }
    Ok(found)
}

pub(super) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, redb::Error> {
    M::decode(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// The events of the revisions after `revision`, newest first.
pub(super) fn newest_first(
    log: &impl ReadableTable<(i64, u32), &'static [u8]>,
    revision: i64,
    mut visit: impl FnMut(Event),
) -> Result<(), redb::Error> {
    for item in log.range((revision + 1, 0)..)?.rev() {
        visit(decode(item?.1.value())?);
    }
    Ok(())
}

pub(super) fn counter(
    meta: &impl ReadableTable<&'static str, i64>,
    name: &str,
) -> Result<i64, redb::Error> {
    Ok(meta.get(name)?.map_or(0, |value| value.value()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_and_contains_agree(key in prop::collection::vec(0u8..4, 0..3), end in prop::collection::vec(0u8..4, 0..3), probe in prop::collection::vec(0u8..4, 0..3)) {
            let keys = Keys::new(&key, &end);
            let inside = keys.bounds().is_some_and(|bounds| {
                std::ops::RangeBounds::<[u8]>::contains(&bounds, probe.as_slice())
            });
            prop_assert_eq!(keys.contains(&probe), inside);
        }
    }

    #[test]
    fn prefixes_and_everything() {
        assert!(Keys::new(b"/a/", b"/a0").contains(b"/a/b"));
        assert!(!Keys::new(b"/a/", b"/a0").contains(b"/a0"));
        assert!(Keys::new(b"\0", b"\0").contains(b"\xff\xff"));
        assert!(Keys::new(b"z", b"a").bounds().is_none());
    }
}
