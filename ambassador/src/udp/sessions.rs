//! The sessions of one listener: found by client and local address, ended when idle, bounded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::is_refusal;
use super::session::{Key, Session, connect, replies};
use crate::flow::{EndCause, EndSide, Ended, Entry, Joined, Way};
use crate::running::Running;

pub(super) struct Sessions {
    socket: Arc<UdpSocket>,
    running: Arc<Running>,
    open: HashMap<Key, Slot>,
    /// By the last use that was known when an entry was made: the least is looked at first, and
    /// goes back in if the session was used since. An entry whose session has gone is stale.
    by_use: BinaryHeap<Reverse<(u64, u64, Key)>>,
    next: u64,
    begun: Instant,
}

struct Slot {
    id: u64,
    session: Arc<Session>,
    entry: Arc<Entry>,
    _replies: AbortOnDropHandle<Result<(), futures_util::future::Aborted>>,
}

impl Sessions {
    pub(super) fn new(socket: Arc<UdpSocket>, running: Arc<Running>) -> Self {
        Self {
            socket,
            running,
            open: HashMap::new(),
            by_use: BinaryHeap::new(),
            next: 0,
            begun: Instant::now(),
        }
    }

    /// Whether no session is alive.
    pub(super) fn is_over(&mut self) -> bool {
        self.open.retain(|_, slot| !slot.is_dead());
        self.open.is_empty()
    }

    /// Sends a client's datagram on, by its session or, if `newcomers` are wanted, by a new one.
    pub(super) fn forward(&mut self, key: Key, datagram: &[u8], newcomers: bool) {
        // A second attempt, since an error may be the answer to an earlier datagram.
        for _ in 0..2 {
            if self.open.get(&key).is_some_and(Slot::is_dead) {
                self.open.remove(&key);
            }
            if !self.open.contains_key(&key) && (!newcomers || !self.begin(key)) {
                return;
            }
            let Some(slot) = self.open.get(&key) else {
                return;
            };
            match slot.session.send(datagram) {
                Ok(bytes) => {
                    slot.session.touch();
                    return slot.entry.inward.add(bytes);
                }
                Err(error) if is_refusal(&error) => {
                    slot.session.refused(&self.running, &error);
                    let cause = EndCause::from(&error);
                    slot.entry.end(cause, EndSide::Upstream, Some(error));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return debug!(client = %key.0, %error, "datagram is lost"),
            }
        }
    }

    fn begin(&mut self, key: Key) -> bool {
        let running = &self.running;
        let Ok(choice) = (running.balancer).choose(key.0.ip(), &[], Instant::now()) else {
            self.refuse(key, None, EndCause::Unknown, None);
            return false;
        };
        let upstream = match connect(choice.address) {
            Ok(upstream) => upstream,
            Err(error) => {
                debug!(forward = %running.name, address = %choice.address, %error, "connect");
                let cause = EndCause::from(&error);
                self.refuse(key, Some(choice.address), cause, Some(error));
                return false;
            }
        };
        let most = running.limits.borrow().max_connections.max(1);
        while self.open.len() >= most && self.evict() {}
        let session = Arc::new(Session {
            upstream,
            choice,
            last: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            begun: self.begun,
        });
        session.touch();
        self.insert(key, session);
        true
    }

    fn refuse(
        &self,
        key: Key,
        upstream: Option<SocketAddr>,
        cause: EndCause,
        error: Option<io::Error>,
    ) {
        let (running, side) = (&self.running, EndSide::Ambassador);
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
        let port = self.running.local.port();
        Joined {
            client: (client.ip().to_canonical(), client.port()).into(),
            local: Some((local.to_canonical(), port).into()),
            upstream: None,
            connect_time: None,
        }
    }

    fn insert(&mut self, key: Key, session: Arc<Session>) {
        let (running, shared) = (&self.running, &self.running.shared);
        let (end, ended) = AbortHandle::new_pair();
        let joined = Joined {
            upstream: Some(session.choice.address),
            ..self.joined(key)
        };
        let flow = (shared.flows).open(&running.name, &running.totals, joined, Way::Udp, end);
        let entry = flow.entry.clone();
        let replies = replies(
            session.clone(),
            key,
            self.socket.clone(),
            running.clone(),
            flow,
            running.enter(),
        );
        let replies = AbortOnDropHandle::new(tokio::spawn(Abortable::new(replies, ended)));
        let id = self.next;
        self.next += 1;
        let last = session.last.load(Ordering::Relaxed);
        let slot = Slot {
            id,
            session,
            entry,
            _replies: replies,
        };
        self.open.insert(key, slot);
        self.by_use.push(Reverse((last, id, key)));
        if self.by_use.len() > 2 * self.open.len() + 64 {
            self.forget_stale();
        }
    }

    fn forget_stale(&mut self) {
        let open = &self.open;
        (self.by_use).retain(|Reverse((_, id, key))| open.get(key).is_some_and(|s| s.id == *id));
    }

    /// Ends the session that was used least recently.
    fn evict(&mut self) -> bool {
        while let Some(Reverse((known, id, key))) = self.by_use.pop() {
            match self.used_since(known, id, &key) {
                Some(last) if last > known => self.by_use.push(Reverse((last, id, key))),
                Some(_) => return self.end(&key, EndCause::Evicted),
                None => {}
            }
        }
        false
    }

    /// Ends the sessions that have been idle for too long.
    pub(super) fn expire(&mut self) {
        let idle = self.running.limits.borrow().idle;
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
        let idle = self.running.limits.borrow().idle;
        let Reverse((known, ..)) = self.by_use.peek()?;
        Some((self.moment(*known) + idle).into())
    }

    /// Ends the sessions whose endpoint has left; their next datagram chooses again.
    pub(super) fn drop_strays(&mut self) {
        let balancer = &self.running.balancer;
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
        Some(if slot.is_dead() {
            known
        } else {
            slot.session.last.load(Ordering::Relaxed)
        })
    }

    fn moment(&self, since: u64) -> Instant {
        self.begun + Duration::from_nanos(since)
    }
}

impl Slot {
    fn is_dead(&self) -> bool {
        self.session.dead.load(Ordering::Relaxed)
    }
}
