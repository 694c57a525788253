//! What was committed last, in memory, so that those who watch do not each read it from the disk.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use prost::Message;

use super::pb::mvccpb::Event;
use super::store::Page;

/// Bytes of events kept; who is further behind reads the history on the disk.
const KEEP_BYTES: usize = 8 << 20;
/// A page has whole revisions, about this many bytes of them.
const PAGE: usize = 1 << 20;

/// The last events, each page of them shared by all who are told.
#[derive(Debug)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// The first revision all of whose events are here, if it has any.
    first: i64,
    /// In order, with their sizes.
    pages: VecDeque<(Page, usize)>,
    bytes: usize,
}

impl Recent {
    /// Begins after `revision`, the last one committed.
    pub(super) fn after(revision: i64) -> Self {
        Self(Mutex::new(Kept {
            first: revision + 1,
            pages: VecDeque::new(),
            bytes: 0,
        }))
    }

    /// Adds what a commit has made, up to `revision`, and gives up what lies before `compacted`.
    pub(super) fn push(&self, events: Vec<Event>, revision: i64, compacted: i64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let (mut page, mut size, mut last) = (Vec::new(), 0, 0);
            while let Some(event) = events.next_if(|event| size < PAGE || at(event) == last) {
                last = at(&event);
                size += event.encoded_len();
                page.push(event);
            }
            let upto = match events.peek() {
                Some(_) => last,
                None => revision,
            };
            let events = page.into();
            kept.pages.push_back((Page { events, upto }, size));
            kept.bytes += size;
        }
        if kept.first < compacted {
            kept.first = compacted;
        }
        while kept.bytes > KEEP_BYTES || kept.pages.front().is_some_and(|it| it.0.upto < kept.first)
        {
            let Some((page, size)) = kept.pages.pop_front() else {
                break;
            };
            kept.bytes -= size;
            kept.first = kept.first.max(page.upto + 1);
        }
    }

    /// The page in which revision `from` is, or the next one; `None` if that is not known here.
    pub(super) fn page(&self, from: i64) -> Option<Page> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if from < kept.first {
            return None;
        }
        let place = kept.pages.partition_point(|(page, _)| page.upto < from);
        kept.pages.get(place).map(|(page, _)| page.clone())
    }
}

fn at(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::embedded::pb::mvccpb::KeyValue;

    fn event(mod_revision: i64, length: usize) -> Event {
        let kv = KeyValue {
            mod_revision,
            value: vec![0; length],
            ..KeyValue::default()
        };
        Event {
            kv: Some(kv),
            ..Event::default()
        }
    }

    fn revisions(page: &Page) -> Vec<i64> {
        page.events.iter().map(at).collect()
    }

    #[test]
    fn who_is_near_finds_whole_revisions_and_who_is_not_nothing() {
        let recent = Recent::after(4);
        assert!(recent.page(5).is_none());
        recent.push(vec![event(5, 1), event(6, 1), event(6, 1)], 6, 0);
        recent.push(vec![event(7, 1)], 8, 0); // the last revision of a commit may have no events left
        assert!(recent.page(4).is_none());
        assert_eq!(revisions(&recent.page(5).unwrap()), [5, 6, 6]);
        assert_eq!(recent.page(6).unwrap().upto, 6);
        assert_eq!(
            (
                revisions(&recent.page(7).unwrap()),
                recent.page(8).unwrap().upto
            ),
            (vec![7], 8)
        );
        assert!(recent.page(9).is_none());
        recent.push(Vec::new(), 8, 7);
        assert!(recent.page(6).is_none());
        assert_eq!(revisions(&recent.page(7).unwrap()), [7]);
    }

    #[test]
    fn it_is_bounded_and_pages_are_cut_between_revisions() {
        let recent = Recent::after(0);
        let half = PAGE / 2;
        recent.push(
            (1..=4)
                .flat_map(|i| [event(i, half), event(i, half)])
                .collect(),
            4,
            0,
        );
        assert_eq!(revisions(&recent.page(1).unwrap()), [1, 1]);
        assert_eq!(revisions(&recent.page(2).unwrap()), [2, 2]);
        for i in 5..=40 {
            recent.push(vec![event(i, half)], i, 0);
        }
        assert!(recent.0.lock().unwrap().bytes <= KEEP_BYTES);
        assert!(recent.page(20).is_none());
        assert_eq!(revisions(&recent.page(30).unwrap()), [30]);
    }
}
