//! Readiness of the sockets of one worker, which waits for nothing else but its alarms and its bell.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::bell::Bell;
use crate::time::Clock;
use futures_util::future::LocalBoxFuture;
use rustix::event::{Timespec, epoll};
use rustix::net::SendFlags;

/// Events taken at once; more wait for the next turn.
const EVENTS: usize = 256;
/// From this age on a socket is told that it is old, within as much time again.
const OLD: Duration = Duration::from_secs(1);
/// What the bell's events bear; no socket has that key, for there are fewer descriptors than slots.
const BELL: u64 = u64::MAX;

pub(crate) const READABLE: u8 = 1;
pub(crate) const WRITABLE: u8 = 2;
/// The socket has failed, such as by a reset; neither data nor FIN do that.
pub(crate) const FAILED: u8 = 4;
/// The socket is not young any more.
pub(super) const AGED: u8 = 8;
/// Whatever is read, nothing can come after it: the socket stays readable.
const ENDED: u8 = 16;

/// Knows which sockets of a thread are ready, and who waits for that.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    slots: RefCell<Slots>,
    clock: Rc<Clock>,
    /// Those that will be old, by the time they began.
    young: RefCell<VecDeque<(Instant, Key)>>,
    /// When the first of them are looked at; none without them.
    sweep: Cell<Option<Instant>>,
    /// Tasks that nobody has polled yet.
    born: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    events: Cell<Vec<epoll::Event>>,
    /// The last turn brought events.
    busy: Cell<bool>,
    wakers: Cell<Vec<Waker>>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    /// Tells a socket from those that had the slot before, whose events may still come.
    generation: u32,
    ready: u8,
    awaited: u8,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
struct Key {
    slot: u32,
    generation: u32,
}

/// A socket whose readiness is known. Only one task may wait for it at a time.
pub(crate) struct Socket {
    fd: OwnedFd,
    key: Key,
    reactor: Rc<Reactor>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: RefCell::default(),
            clock: Rc::default(),
            young: RefCell::default(),
            sweep: Cell::default(),
            born: RefCell::default(),
            busy: Cell::new(false),
            events: Cell::new(Vec::with_capacity(EVENTS)),
            wakers: Cell::new(Vec::with_capacity(EVENTS)),
        }))
    }

    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Hands the worker a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.born.borrow_mut().push(Box::pin(task));
    }

    /// The tasks that were handed over since the last call.
    pub(super) fn born(&self) -> Vec<LocalBoxFuture<'static, ()>> {
        self.born.take()
    }

    /// Whether there are none of those.
    pub(super) fn is_barren(&self) -> bool {
        self.born.borrow().is_empty()
    }

    /// Has `bell` end a wait.
    pub(super) fn hear(&self, bell: &Bell) -> io::Result<()> {
        let data = epoll::EventData::new_u64(BELL);
        Ok(epoll::add(&self.epoll, bell, data, epoll::EventFlags::IN)?)
    }

    /// Waits until something has happened, or just looks whether it has, and wakes whom it concerns.
    pub(super) fn turn(&self, bell: &Bell) -> io::Result<()> {
        let next = [self.clock.next(), self.sweep.get()];
        let next = next.into_iter().flatten().min();
        let patience = if bell.lie_down() {
            next.map(|at| at.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        let waited = self.wait_or_give_way(patience);
        bell.rise();
        let events = waited?;
        self.busy.set(!events.is_empty());
        self.wake(events.iter().filter_map(|event| {
            let (flags, data) = (event.flags, event.data.u64());
            if data == BELL {
                bell.silence();
                return None;
            }
            Some((Key::from(data), ready(flags)))
        }));
        self.events.set(events);
        if next.is_some() {
            let now = Instant::now();
            self.clock.strike(now);
            if self.sweep.get().is_some_and(|at| at <= now) {
                self.age(now);
            }
        }
        Ok(())
    }

    /// One who was busy a moment ago first lets others run: what they have for it by then costs them
    /// no wake-up, and comes together.
    fn wait_or_give_way(&self, patience: Option<Duration>) -> io::Result<Vec<epoll::Event>> {
        if self.busy.get() && patience != Some(Duration::ZERO) {
            rustix::thread::sched_yield();
            let events = self.wait(Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.events.set(events);
        }
        self.wait(patience)
    }

    fn wait(&self, patience: Option<Duration>) -> io::Result<Vec<epoll::Event>> {
        let mut events = self.events.take();
        events.clear();
        let patience = patience.map(|time| Timespec {
            // Further away than anybody's alarm.
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(events),
            Err(error) => Err(error.into()),
        }
    }

    fn age(&self, now: Instant) {
        let mut young = self.young.borrow_mut();
        let old = young.partition_point(|(begun, _)| *begun + OLD <= now);
        self.wake(young.drain(..old).map(|(_, key)| (key, AGED)));
        if young.is_empty() {
            young.shrink_to(EVENTS);
        }
        self.sweep.set((!young.is_empty()).then(|| now + OLD));
    }

    /// Wakes after all is noted, since what is woken may drop its socket.
    fn wake(&self, events: impl Iterator<Item = (Key, u8)>) {
        let mut wakers = self.wakers.take();
        let mut slots = self.slots.borrow_mut();
        for (key, ready) in events {
            let Some(slot) = slots.find(key) else {
                continue;
            };
            slot.ready |= ready;
            if slot.awaited & ready != 0 {
                slot.awaited = 0;
                wakers.extend(slot.waker.clone());
            }
        }
        drop(slots);
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.set(wakers);
    }
}

/// What an event makes a socket ready for.
fn ready(flags: epoll::EventFlags) -> u8 {
    use epoll::EventFlags as Flags;
    let mut ready = 0;
    if flags.contains(Flags::IN) {
        ready |= READABLE;
    }
    if flags.contains(Flags::OUT) {
        ready |= WRITABLE;
    }
    if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR) {
        ready |= READABLE | ENDED;
    }
    if flags.intersects(Flags::HUP | Flags::ERR) {
        ready |= WRITABLE;
    }
    if flags.contains(Flags::ERR) {
        ready |= FAILED;
    }
    ready
}

impl Slots {
    fn take(&mut self) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot::default());
            u32::try_from(self.all.len() - 1).expect("fewer descriptors than 2^32")
        });
        let generation = self.all[slot as usize].generation;
        Key { slot, generation }
    }

    /// Returns the waker, which must not be dropped while the slots are borrowed.
    fn give_back(&mut self, key: Key) -> Option<Waker> {
        let slot = &mut self.all[key.slot as usize];
        let generation = slot.generation.wrapping_add(1);
        let old = std::mem::take(slot);
        slot.generation = generation;
        self.free.push(key.slot);
        old.waker
    }

    fn find(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.all.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(slot)
    }
}

impl From<u64> for Key {
    fn from(data: u64) -> Self {
        Self {
            slot: (data & u64::from(u32::MAX)) as u32,
            generation: (data >> 32) as u32,
        }
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        Self::from(key.generation) << 32 | Self::from(key.slot)
    }
}

impl Socket {
    /// Takes a socket that does not block.
    pub(crate) fn new(fd: OwnedFd, reactor: &Rc<Reactor>) -> io::Result<Self> {
        use epoll::EventFlags as Flags;
        let key = reactor.slots.borrow_mut().take();
        let socket = Self {
            fd,
            key,
            reactor: reactor.clone(),
        };
        let data = epoll::EventData::new_u64(key.into());
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&reactor.epoll, &socket.fd, data, flags)?;
        Ok(socket)
    }

    /// Whose thread it belongs to.
    pub(crate) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Stops looking at the socket. Closing it does as much, unless it is open elsewhere too.
    pub(super) fn forget(self) {
        // Fails only for what is not registered.
        let _ = epoll::delete(&self.reactor.epoll, &self.fd);
    }

    /// Will be [`AGED`] in a second or two.
    pub(super) fn tell_age(&self) {
        let now = Instant::now();
        if self.reactor.sweep.get().is_none() {
            self.reactor.sweep.set(Some(now + OLD));
        }
        self.reactor.young.borrow_mut().push_back((now, self.key));
    }

    /// What it is ready for out of `interest`; if nothing, the task is woken once it is.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, interest: u8) -> Poll<u8> {
        let mut slots = self.reactor.slots.borrow_mut();
        let slot = &mut slots.all[self.key.slot as usize];
        if slot.ready & interest != 0 {
            return Poll::Ready(slot.ready & interest);
        }
        slot.awaited |= interest;
        let known = |waker: &Waker| waker.will_wake(cx.waker());
        if slot.waker.as_ref().is_some_and(known) {
            return Poll::Pending;
        }
        let old = slot.waker.replace(cx.waker().clone());
        drop(slots);
        drop(old);
        Poll::Pending
    }

    /// Waits until it is ready for something out of `interest`.
    pub(crate) async fn ready(&self, interest: u8) -> u8 {
        std::future::poll_fn(|cx| self.poll_ready(cx, interest)).await
    }

    /// Does what the socket is ready for, or else nothing: [`ErrorKind::WouldBlock`].
    pub(crate) fn try_io<T>(
        &self,
        interest: u8,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        if self.slot(|slot| slot.ready & interest) == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = operation();
        if matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            self.slot(|slot| slot.ready &= !interest);
        }
        result
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send(bytes, SendFlags::empty())
    }

    /// As [`Self::try_write`], but what is sent waits for the FIN that follows at once, and leaves with
    /// it in one segment: a packet less on the way, and one wake-up for who reads it.
    pub(super) fn try_write_before_fin(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send(bytes, SendFlags::MORE)
    }

    fn try_send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        self.try_io(WRITABLE, || Ok(rustix::net::send(self, bytes, flags)?))
    }

    /// Nothing more is there to read, as a short read tells; unless the socket has ended, for of
    /// that no event will tell again.
    pub(super) fn drained(&self) {
        self.slot(|slot| {
            if slot.ready & ENDED == 0 {
                slot.ready &= !READABLE;
            }
        });
    }

    /// Whether the peer has finished or the connection has failed: whatever there is to read has
    /// come.
    pub(crate) fn has_ended(&self) -> bool {
        self.slot(|slot| slot.ready & ENDED != 0)
    }

    /// Whether the peer has finished, and has not failed since, as far as events have told.
    pub(super) fn has_finished(&self) -> bool {
        self.slot(|slot| slot.ready & (ENDED | FAILED) == ENDED)
    }

    /// Makes it readable again, for bytes that were seen and left: no event will tell of these.
    pub(crate) fn look_again(&self) {
        self.slot(|slot| slot.ready |= READABLE);
    }

    fn slot<T>(&self, look: impl FnOnce(&mut Slot) -> T) -> T {
        look(&mut self.reactor.slots.borrow_mut().all[self.key.slot as usize])
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let waker = self.reactor.slots.borrow_mut().give_back(self.key);
        drop(waker);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
