//! One watcher: which events it wants, and how far it has come.

use prost::Message;

use super::pb::etcdserverpb::watch_create_request::FilterType;
use super::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use super::pb::mvccpb::Event;
use super::pb::mvccpb::event::EventType;
use super::tables::Keys;

/// Larger responses are split, for a watcher that takes fragments.
const FRAGMENT: usize = 1 << 20;

/// A watcher of one stream.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) id: i64,
    /// The first revision it has not been told of.
    pub(super) next: i64,
    keys: Keys,
    puts: bool,
    deletions: bool,
    prev_kv: bool,
    fragment: bool,
    pub(super) progress: bool,
}

impl Watcher {
    /// A watcher from the request's start, or if it has none from after `revision` on.
    pub(super) fn new(id: i64, request: &WatchCreateRequest, revision: i64) -> Self {
        let without = |filter| !request.filters().any(|wanted| wanted == filter);
        let key = if request.key.is_empty() {
            &[0][..]
        } else {
            &request.key
        };
        Self {
            id,
            next: if request.start_revision > 0 {
                request.start_revision
            } else {
                revision + 1
            },
            keys: Keys::new(key, &request.range_end),
            puts: without(FilterType::Noput),
            deletions: without(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress: request.progress_notify,
        }
    }

    /// The responses for `events`, which cover all revisions up to `upto`: one, or none, or its fragments.
    pub(super) fn take(&mut self, events: &[Event], upto: i64) -> Vec<WatchResponse> {
        let from = self.next;
        self.next = self.next.max(upto + 1);
        let wanted: Vec<Event> = events
            .iter()
            .filter(|event| self.wants(event, from))
            .map(|event| self.copy(event))
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut parts = vec![Vec::new()];
        let mut size = 0;
        for event in wanted {
            let length = event.encoded_len();
            if self.fragment && size > 0 && size + length > FRAGMENT {
                parts.push(Vec::new());
                size = 0;
            }
            size += length;
            if let Some(part) = parts.last_mut() {
                part.push(event);
            }
        }
        let last = parts.len() - 1;
        let response = |(i, events)| WatchResponse {
            watch_id: self.id,
            fragment: i < last,
            events,
            ..WatchResponse::default()
        };
        parts.into_iter().enumerate().map(response).collect()
    }

    fn wants(&self, event: &Event, from: i64) -> bool {
        let kind = match event.r#type() {
            EventType::Put => self.puts,
            EventType::Delete => self.deletions,
        };
        let matches = |kv: &super::pb::mvccpb::KeyValue| {
            kv.mod_revision >= from && self.keys.contains(&kv.key)
        };
        kind && event.kv.as_ref().is_some_and(matches)
    }

    fn copy(&self, event: &Event) -> Event {
        Event {
            r#type: event.r#type,
            kv: event.kv.clone(),
            prev_kv: event.prev_kv.clone().filter(|_| self.prev_kv),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::pb::mvccpb::KeyValue;

    fn event(kind: EventType, key: &str, mod_revision: i64, length: usize) -> Event {
        let kv = KeyValue {
            key: key.into(),
            mod_revision,
            value: vec![0; length],
            ..KeyValue::default()
        };
        Event {
            r#type: kind.into(),
            kv: Some(kv.clone()),
            prev_kv: Some(kv),
        }
    }

    #[test]
    fn each_revision_is_told_once_and_filters_hold() {
        let request = WatchCreateRequest {
            key: b"a".to_vec(),
            range_end: b"c".to_vec(),
            start_revision: 3,
            filters: vec![FilterType::Nodelete.into()],
            ..WatchCreateRequest::default()
        };
        let mut watcher = Watcher::new(7, &request, 9);
        let events = [
            event(EventType::Put, "a", 2, 0),
            event(EventType::Put, "a", 3, 0),
            event(EventType::Put, "x", 4, 0),
            event(EventType::Delete, "b", 5, 0),
        ];
        let told = watcher.take(&events, 5);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].events.len(), 1);
        assert_eq!((told[0].watch_id, watcher.next), (7, 6));
        assert!(told[0].events[0].prev_kv.is_none());
        assert!(watcher.take(&events, 5).is_empty());
    }

    #[test]
    fn large_responses_are_split_only_for_those_who_ask() {
        let events: Vec<Event> = (1..=5)
            .map(|revision| event(EventType::Put, "a", revision, 600 << 10))
            .collect();
        for (fragment, parts) in [(false, 1), (true, 5)] {
            let request = WatchCreateRequest {
                key: b"a".to_vec(),
                start_revision: 1,
                fragment,
                ..WatchCreateRequest::default()
            };
            let told = Watcher::new(0, &request, 0).take(&events, 5);
            assert_eq!(told.len(), parts);
            assert!(told.iter().rev().skip(1).all(|part| part.fragment));
            assert!(!told[parts - 1].fragment);
        }
    }
}
