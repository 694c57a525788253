//! Whether a history of calls can be told as if they had happened one after the other.
//!
//! The search is Wing and Gong's, with Lowe's memory of what was tried: any call that began before the first
//! end among those left may be the next. What each call answered is held against a model of etcd's keys; one
//! whose answer never came may have happened at any time after it began, or not at all.

use std::collections::HashSet;

/// Keys are named by numbers below this.
pub(crate) const KEYS: usize = 3;

/// A key's value, as etcd tells it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Kv {
    pub(crate) value: u32,
    pub(crate) version: i64,
    pub(crate) created: i64,
    pub(crate) modified: i64,
}

/// All there is, at a revision.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    pub(crate) revision: i64,
    pub(crate) keys: [Option<Kv>; KEYS],
}

/// What a transaction asks of a key: that its number is this one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    Value(u32),
    Version(i64),
    Created(i64),
    Modified(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Get(usize),
    Put(usize, u32),
    Delete(usize),
}

/// A transaction; without conditions and with one act, that act.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) when: Vec<(usize, Condition)>,
    pub(crate) then: Vec<Act>,
    pub(crate) or: Vec<Act>,
}

/// What was answered, the acts of the branch taken in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) succeeded: bool,
    pub(crate) revision: i64,
    pub(crate) seen: Vec<Seen>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    Found(Option<Kv>),
    Put,
    Deleted(bool),
}

/// A call with when it began, and when it ended with what answer, if it did.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) call: Call,
    pub(crate) began: u64,
    pub(crate) ended: Option<(u64, Answer)>,
}

impl State {
    /// That of an empty store.
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            keys: [None; KEYS],
        }
    }

    fn holds(&self, key: usize, condition: Condition) -> bool {
        let kv = self.keys[key];
        match condition {
            Condition::Value(value) => kv.is_some_and(|kv| kv.value == value),
            Condition::Version(version) => kv.map_or(0, |kv| kv.version) == version,
            Condition::Created(revision) => kv.map_or(0, |kv| kv.created) == revision,
            Condition::Modified(revision) => kv.map_or(0, |kv| kv.modified) == revision,
        }
    }

    /// The answer to a call, and the state after it.
    pub(crate) fn after(&self, call: &Call) -> (Answer, Self) {
        let succeeded = call.when.iter().all(|&(key, what)| self.holds(key, what));
        let mut next = self.clone();
        let mut changed = false;
        let acts = if succeeded { &call.then } else { &call.or };
        let seen = acts.iter().map(|act| match *act {
            Act::Get(key) => Seen::Found(next.keys[key]),
            Act::Put(key, value) => {
                let modified = self.revision + 1;
                let former = next.keys[key];
                next.keys[key] = Some(Kv {
                    value,
                    version: former.map_or(0, |kv| kv.version) + 1,
                    created: former.map_or(modified, |kv| kv.created),
                    modified,
                });
                changed = true;
                Seen::Put
            }
            Act::Delete(key) => {
                let there = next.keys[key].take().is_some();
                changed |= there;
                Seen::Deleted(there)
            }
        });
        let seen = seen.collect();
        next.revision += i64::from(changed);
        let answer = Answer {
            succeeded,
            revision: next.revision,
            seen,
        };
        (answer, next)
    }
}

/// One choice in the search: the state before it, and what may still be tried.
struct Choice {
    state: State,
    candidates: Vec<usize>,
    taken: Option<usize>,
}

/// An order in which the calls of `history` can have happened, from an empty store on; or how many of them at
/// most can be put in order.
pub(crate) fn linearize(history: &[Span]) -> Result<Vec<usize>, usize> {
    let answered = history.iter().filter(|span| span.ended.is_some()).count();
    let mut left = vec![true; history.len()];
    let mut tried: HashSet<(Vec<bool>, State)> = HashSet::new();
    let (mut done, mut furthest) = (0, 0);
    let mut path = vec![choice(history, &left, State::new())];
    while let Some(last) = path.last_mut() {
        if done == answered {
            return Ok(path.iter().filter_map(|choice| choice.taken).collect());
        }
        if let Some(undone) = last.taken.take() {
            left[undone] = true;
            done -= usize::from(history[undone].ended.is_some());
        }
        let Some(next) = last.candidates.pop() else {
            path.pop();
            continue;
        };
        let (answer, state) = last.state.after(&history[next].call);
        let ended = history[next].ended.as_ref();
        if ended.is_some_and(|(_, told)| *told != answer) {
            continue;
        }
        left[next] = false;
        if tried.insert((left.clone(), state.clone())) {
            last.taken = Some(next);
            done += usize::from(ended.is_some());
            furthest = furthest.max(done);
            if done == answered {
                continue;
            }
            path.push(choice(history, &left, state));
        } else {
            left[next] = true;
        }
    }
    Err(furthest)
}

/// What may be next: all that began before the first end of what is left. None, if one of them has seen a
/// revision that is over. Those that were answered are tried first.
fn choice(history: &[Span], left: &[bool], state: State) -> Choice {
    let open = || history.iter().enumerate().filter(|(i, _)| left[*i]);
    let ends = open().filter_map(|(_, span)| span.ended.as_ref().map(|(at, _)| *at));
    let first_end = ends.min().unwrap_or(u64::MAX);
    let mut candidates: Vec<usize> = open()
        .filter(|(_, span)| span.began <= first_end)
        .map(|(i, _)| i)
        .collect();
    let over = |&i: &usize| {
        let ended = history[i].ended.as_ref();
        ended.is_some_and(|(_, answer)| answer.revision < state.revision)
    };
    if candidates.iter().any(over) {
        candidates.clear();
    }
    candidates.sort_by_key(|&i| history[i].ended.as_ref().map_or(0, |(at, _)| u64::MAX - at));
    Choice {
        state,
        candidates,
        taken: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: usize, value: u32) -> Call {
        Call {
            when: Vec::new(),
            then: vec![Act::Put(key, value)],
            or: Vec::new(),
        }
    }

    fn get(key: usize) -> Call {
        Call {
            when: Vec::new(),
            then: vec![Act::Get(key)],
            or: Vec::new(),
        }
    }

    fn kv(value: u32, version: i64, created: i64, modified: i64) -> Option<Kv> {
        Some(Kv {
            value,
            version,
            created,
            modified,
        })
    }

    fn span(call: Call, began: u64, ended: u64, revision: i64, seen: Seen) -> Span {
        let answer = Answer {
            succeeded: true,
            revision,
            seen: vec![seen],
        };
        Span {
            call,
            began,
            ended: Some((ended, answer)),
        }
    }

    fn unanswered(call: Call, began: u64) -> Span {
        Span {
            call,
            began,
            ended: None,
        }
    }

    #[test]
    fn concurrent_calls_are_put_in_order() {
        let history = [
            span(put(0, 1), 0, 10, 3, Seen::Put),
            span(put(0, 2), 1, 9, 2, Seen::Put),
            span(get(0), 2, 12, 2, Seen::Found(kv(2, 1, 2, 2))),
            span(get(0), 11, 13, 3, Seen::Found(kv(1, 2, 2, 3))),
        ];
        assert_eq!(linearize(&history), Ok(vec![1, 2, 0, 3]));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            span(put(0, 1), 0, 1, 2, Seen::Put),
            span(put(0, 2), 2, 3, 3, Seen::Put),
            span(get(0), 4, 5, 2, Seen::Found(kv(1, 1, 2, 2))),
        ];
        assert!(linearize(&history).is_err());
    }

    #[test]
    fn a_lost_and_a_repeated_write_are_found() {
        let lost = [
            span(put(0, 1), 0, 1, 2, Seen::Put),
            span(get(0), 2, 3, 2, Seen::Found(None)),
        ];
        assert!(linearize(&lost).is_err());
        let repeated = [
            span(put(0, 1), 0, 1, 2, Seen::Put),
            span(get(0), 2, 3, 3, Seen::Found(kv(1, 2, 2, 3))),
        ];
        assert!(linearize(&repeated).is_err());
    }

    #[test]
    fn what_was_not_answered_may_have_happened_or_not() {
        let read = |seen, revision| span(get(0), 5, 6, revision, Seen::Found(seen));
        for (seen, revision) in [(None, 1), (kv(1, 1, 2, 2), 2)] {
            assert!(linearize(&[unanswered(put(0, 1), 0), read(seen, revision)]).is_ok());
        }
        let late = [read(kv(1, 1, 2, 2), 2), unanswered(put(0, 1), 7)];
        assert!(linearize(&late).is_err(), "not before it began");
    }

    #[test]
    fn two_cannot_both_have_swapped_the_same() {
        let swap = |value| Call {
            when: vec![(0, Condition::Modified(0))],
            then: vec![Act::Put(0, value)],
            or: vec![Act::Get(0)],
        };
        let history = [
            span(swap(1), 0, 9, 2, Seen::Put),
            span(swap(2), 1, 8, 3, Seen::Put),
        ];
        assert!(linearize(&history).is_err());
    }
}
