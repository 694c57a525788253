//! The sessions of one listener: found by client and local address, ended when idle, bounded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable};
use hashlink::LinkedHashMap;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::batch::Batch;
use super::is_refusal;
use super::packet::{connect, is_shortage};
use super::picker::Picker;
use super::session::{Home, Key, Session, replies};
use super::unreachable::{Cause, Unreachable};
use crate::balance::NoChoice;
use crate::flow::{EndCause, EndSide, Ended, Entry, Joined, Way};
use crate::running::Running;
use crate::sys::mmsg::Outbox;

/// Sessions that are spared at one eviction, at most, because of what came back for them.
const SPARED: usize = 64;
/// What comes back this soon, in nanoseconds, is an answer, and tells no more than its question.
const ANSWER: u64 = 1_000_000_000;

pub(super) struct Sessions {
    home: Arc<Home>,
    picker: Picker,
    /// The one whose client has been silent longest comes first.
    open: LinkedHashMap<Key, Slot, RandomState>,
    /// By the last use that was known when an entry was made: the least is looked at first, and
    /// goes back in if the session was used since. An entry whose session has gone is stale.
    by_use: BinaryHeap<Reverse<(u64, u64, Key)>>,
    next: u64,
}

struct Slot {
    id: u64,
    session: Arc<Session>,
    entry: Arc<Entry>,
    /// The client's last datagram.
    asked: u64,
    /// The last use when the slot was put at the end.
    known: u64,
    _replies: AbortOnDropHandle<Result<(), futures_util::future::Aborted>>,
}

impl Sessions {
    pub(super) fn new(socket: Arc<UdpSocket>, running: Arc<Running>) -> Self {
        Self {
            home: Arc::new(Home {
                socket,
                running,
                unreachable: Unreachable::new(),
                begun: Instant::now(),
            }),
            picker: Picker::default(),
            open: LinkedHashMap::with_hasher(RandomState::new()),
            by_use: BinaryHeap::new(),
            next: 0,
        }
    }

    /// Whether no session is alive.
    pub(super) fn is_over(&mut self) -> bool {
        self.open.retain(|_, slot| !slot.session.is_dead());
        self.open.is_empty()
    }

    /// Sends a client's datagrams on, by its session or, if `newcomers` are wanted, by a new one.
    pub(super) fn forward(
        &mut self,
        key: Key,
        batch: &Batch<'_>,
        outbox: &mut Outbox,
        newcomers: bool,
    ) {
        let mut from = 0;
        // A second attempt, since an error may be the answer to earlier datagrams.
        for _ in 0..2 {
            if self
                .open
                .get(&key)
                .is_some_and(|slot| slot.session.is_dead())
            {
                self.open.remove(&key);
            }
            if !self.open.contains_key(&key) && (!newcomers || !self.begin(key)) {
                return;
            }
            let Some(slot) = self.open.to_back(&key) else {
                return;
            };
            let sent = slot.session.send(batch, from, outbox);
            if sent.bytes > 0 || sent.refused.is_none() {
                slot.session.touch();
                slot.asked = slot.session.last_use();
                slot.known = slot.asked;
                slot.entry.inward.add(sent.bytes);
            }
            let Some((at, error)) = sent.refused else {
                return;
            };
            slot.session.refused(&error);
            let cause = EndCause::from(&error);
            slot.entry.end(cause, EndSide::Upstream, Some(error));
            from = at;
        }
    }

    fn begin(&mut self, key: Key) -> bool {
        let running = self.home.running.clone();
        let choice = match self.picker.pick(&running.balancer, key.0, Instant::now()) {
            Ok(choice) => choice,
            Err(why) => {
                self.refuse(key, None, EndCause::Unknown, None);
                // One that is full is not gone.
                if why == NoChoice::Exhausted {
                    self.home.tell(key, Cause::Port);
                }
                return false;
            }
        };
        let upstream = match connect(choice.address) {
            Ok(upstream) => upstream,
            Err(error) => {
                debug!(forward = %running.name, address = %choice.address, %error, "connect");
                if is_shortage(&error) {
                    // As at the bound, only that what is freed serves the next datagram.
                    self.evict();
                } else if is_refusal(&error) {
                    self.home.tell(key, (&error).into());
                }
                let cause = EndCause::from(&error);
                self.refuse(key, Some(choice.address), cause, Some(error));
                return false;
            }
        };
        let most = running.limits.borrow().max_connections.max(1);
        while self.open.len() >= most && self.evict() {}
        self.insert(Arc::new(Session::new(
            self.home.clone(),
            key,
            upstream,
            choice,
        )));
        true
    }

    fn refuse(
        &self,
        key: Key,
        upstream: Option<SocketAddr>,
        cause: EndCause,
        error: Option<io::Error>,
    ) {
        let (running, side) = (&self.home.running, EndSide::Ambassador);
        running.totals.refused.fetch_add(1, Ordering::Relaxed);
        let joined = Joined {
            upstream,
            ..self.joined(key)
        };
        let ended = Ended { cause, side, error };
        let (name, totals, flows) = (&running.name, &running.totals, &running.shared.flows);
        flows.never_opened(name, totals, joined, (Way::Udp, Duration::ZERO), ended);
    }

    fn joined(&self, (client, local): Key) -> Joined {
        let port = self.home.running.local.port();
        Joined {
            client: (client.ip().to_canonical(), client.port()).into(),
            local: Some((local.to_canonical(), port).into()),
            upstream: None,
            connect_time: None,
        }
    }

    fn insert(&mut self, session: Arc<Session>) {
        let (key, known) = (session.key, session.last_use());
        let joined = Joined {
            upstream: Some(session.choice.address),
            ..self.joined(key)
        };
        let running = &self.home.running;
        let (end, ended) = AbortHandle::new_pair();
        let flows = &running.shared.flows;
        let flow = flows.open(&running.name, &running.totals, joined, Way::Udp, end);
        let entry = flow.entry.clone();
        let replies = replies(session.clone(), flow, running.enter());
        let replies = AbortOnDropHandle::new(tokio::spawn(Abortable::new(replies, ended)));
        let id = self.next;
        self.next += 1;
        let slot = Slot {
            id,
            session,
            entry,
            asked: known,
            known,
            _replies: replies,
        };
        self.open.insert(key, slot);
        self.by_use.push(Reverse((known, id, key)));
        if self.by_use.len() > 2 * self.open.len() + 64 {
            self.forget_stale();
        }
    }

    fn forget_stale(&mut self) {
        let open = &self.open;
        (self.by_use).retain(|Reverse((_, id, key))| open.get(key).is_some_and(|s| s.id == *id));
    }

    /// Ends the session whose client has been silent longest. One that something still comes back
    /// for is spared until the others have had their turn; but only so many, lest a newcomer wait
    /// for a walk through all of them.
    fn evict(&mut self) -> bool {
        for _ in 0..SPARED {
            let Some((&key, slot)) = self.open.front() else {
                return false;
            };
            let last = slot.session.last_use();
            let since = slot.known.max(slot.asked.saturating_add(ANSWER));
            if last <= since || slot.session.is_dead() {
                break;
            }
            if let Some(slot) = self.open.to_back(&key) {
                slot.known = last;
            }
        }
        match self.open.front().map(|(key, _)| *key) {
            Some(key) => self.end(&key, EndCause::Evicted),
            None => false,
        }
    }

    /// Ends the sessions that have been idle for too long.
    pub(super) fn expire(&mut self) {
        let idle = self.home.running.limits.borrow().idle;
        while let Some(&Reverse((known, id, key))) = self.by_use.peek() {
            if self.moment(known) + idle > Instant::now() {
                return;
            }
            self.by_use.pop();
            match self.used_since(known, id, &key) {
                Some(last) if last > known => self.by_use.push(Reverse((last, id, key))),
                Some(_) => {
                    self.end(&key, EndCause::Idle);
                }
                None => {}
            }
        }
    }

    /// Returns whether there was a session.
    fn end(&mut self, key: &Key, cause: EndCause) -> bool {
        let slot = self.open.remove(key);
        if let Some(slot) = &slot {
            slot.entry.end(cause, EndSide::Ambassador, None);
        }
        slot.is_some()
    }

    /// When [`Self::expire`] has something to look at.
    pub(super) fn next_expiry(&self) -> Option<tokio::time::Instant> {
        let idle = self.home.running.limits.borrow().idle;
        let Reverse((known, ..)) = self.by_use.peek()?;
        Some((self.moment(*known) + idle).into())
    }

    /// Ends the sessions whose endpoint has left; their next datagram chooses again.
    pub(super) fn drop_strays(&mut self) {
        let balancer = &self.home.running.balancer;
        (self.open).retain(|_, slot| {
            let stays = balancer.contains(slot.session.choice.address);
            if !stays {
                (slot.entry).end(EndCause::Removed, EndSide::Ambassador, None);
            }
            stays
        });
    }

    /// The last use of the session an entry of `by_use` speaks of; none if it has gone. A dead
    /// one counts as not used since.
    fn used_since(&self, known: u64, id: u64, key: &Key) -> Option<u64> {
        let slot = self.open.get(key).filter(|slot| slot.id == id)?;
        Some(if slot.session.is_dead() {
            known
        } else {
            slot.session.last_use()
        })
    }

    fn moment(&self, since: u64) -> Instant {
        self.home.begun + Duration::from_nanos(since)
    }
}
