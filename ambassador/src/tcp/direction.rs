//! One direction of a TCP flow: from one socket to the other, until FIN or failure.

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{SpliceFlags, splice};

use super::pipe::Pipe;
use super::reactor::{FAILED, READABLE, Socket, WRITABLE};
use crate::RelayMode;
use crate::flow::{Meter, Way};
use crate::running::Shared;
use crate::sys;
use crate::time::{Sleep, sleep};

const BUFFER: usize = 64 << 10;
/// Reads at least this large in a row, up to [`BULK`] bytes, make a direction bulk.
const LARGE: u32 = 4 << 10;
const BULK: u32 = 64 << 10;
/// Splices smaller than [`LARGE`] in a row that make it small again.
const SMALL_ROUNDS: u8 = 16;
/// Bytes moved before other tasks get their turn.
const TURN: u32 = 1 << 20;

thread_local! {
    /// Lent for one read and the write after it, so that an idle flow holds no buffer.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Which of a direction's sockets failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    From,
    To,
}

/// Why a direction ended before its FIN.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) side: Side,
    pub(crate) error: io::Error,
}

/// Between whom a direction carries, and by what means.
pub(super) struct Lane<'a> {
    pub(super) from: &'a Socket,
    pub(super) to: &'a Socket,
    pub(super) mode: RelayMode,
    pub(super) meter: &'a Meter,
    pub(super) shared: &'a Shared,
}

/// What a direction has learned, and what has been read but not yet written. Small while it is idle.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// What a copy could not write at once.
    pending: Option<Box<Pending>>,
    pipe: Option<Pipe>,
    /// When what is pending is given up, since `from` has failed.
    give_up: Option<Box<Sleep>>,
    large: u32,
    turn: u32,
    small_rounds: u8,
    bulk: bool,
    /// The kernel's buffers at both ends are kept from growing further.
    bounded: bool,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

enum Step {
    Moved(usize),
    NothingToRead,
    Eof,
}

type Carried = Result<(), Broken>;

impl Direction {
    /// Carries until nothing more comes. Ready means that `from` has sent FIN, and all that came
    /// before it is written; whether that FIN is sent on is the caller's to say.
    pub(super) fn poll_carry(&mut self, lane: &Lane<'_>, cx: &mut Context<'_>) -> Poll<Carried> {
        loop {
            ready!(self.poll_flush(lane, cx))?;
            if self.turn >= TURN {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let step = if self.ready_to_splice(lane) {
                self.splice_in(lane)
            } else {
                self.copy(lane)
            };
            match step {
                Ok(Step::Moved(bytes)) => {
                    self.moved(bytes, lane.mode);
                    if self.bulk && !self.bounded {
                        self.bounded = true;
                        sys::bound_buffers(lane.from, lane.to);
                    }
                }
                Ok(Step::Eof) => return Poll::Ready(Ok(())),
                Ok(Step::NothingToRead) => {
                    // What sleeps holds no pipe.
                    self.pipe = None;
                    ready!(lane.from.poll_ready(cx, READABLE));
                }
                Err(broken) if broken.error.kind() == ErrorKind::Interrupted => {}
                Err(broken) => return Poll::Ready(Err(broken)),
            }
        }
    }

    /// Writes out whatever was read.
    fn poll_flush(&mut self, lane: &Lane<'_>, cx: &mut Context<'_>) -> Poll<Carried> {
        loop {
            let wrote = if let Some(pending) = &self.pending {
                lane.to.try_write(&pending.bytes[pending.written..])
            } else if let Some(pipe) = self.pipe.as_ref().filter(|pipe| pipe.held() > 0) {
                splice_out(pipe, lane.to)
            } else {
                self.give_up = None;
                return Poll::Ready(Ok(()));
            };
            match wrote {
                Ok(bytes) => {
                    lane.meter.add(bytes);
                    self.wrote(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.poll_room(lane, cx))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(to(error))),
            }
        }
    }

    fn wrote(&mut self, bytes: usize) {
        if let Some(pending) = &mut self.pending {
            pending.written += bytes;
            if pending.written == pending.bytes.len() {
                self.pending = None;
            }
        } else if let Some(pipe) = &mut self.pipe {
            pipe.drained(bytes);
        }
    }

    /// Waits until `to` takes more. Nobody reads `from` meanwhile, so its reset is watched for: what
    /// it sent before still gets the time to arrive, but not forever.
    fn poll_room(&mut self, lane: &Lane<'_>, cx: &mut Context<'_>) -> Poll<Carried> {
        if lane.to.poll_ready(cx, WRITABLE).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.give_up.is_none() {
            ready!(lane.from.poll_ready(cx, FAILED));
        }
        let linger = lane.shared.options.linger;
        let give_up = self.give_up.get_or_insert_with(|| Box::new(sleep(linger)));
        ready!(Pin::new(&mut **give_up).poll(cx));
        Poll::Ready(Err(from(ErrorKind::ConnectionReset.into())))
    }

    fn ready_to_splice(&mut self, lane: &Lane<'_>) -> bool {
        let bulk = self.bulk || lane.mode == RelayMode::Splice;
        let way = match (bulk, lane.mode) {
            (_, RelayMode::Copy) => Way::CopyMode,
            (false, _) => Way::Small,
            (true, mode) => {
                if self.pipe.is_none() {
                    self.pipe = lane.shared.pipes.take();
                }
                match (&self.pipe, mode) {
                    (None, _) => Way::NoPipe,
                    (Some(_), RelayMode::Splice) => Way::SpliceMode,
                    (Some(_), _) => Way::Bulk,
                }
            }
        };
        lane.meter.take_way(way);
        matches!(way, Way::Bulk | Way::SpliceMode)
    }

    /// Fills the pipe, which is empty: so EAGAIN speaks of the socket.
    fn splice_in(&mut self, lane: &Lane<'_>) -> Result<Step, Broken> {
        let pipe = self.pipe.as_mut().expect("ready_to_splice has taken one");
        let read = lane.from.try_io(READABLE, || {
            let (write, size) = (pipe.write_end(), pipe.size());
            Ok(splice(lane.from, None, write, None, size, flags())?)
        });
        match read {
            Ok(0) => Ok(Step::Eof),
            Ok(bytes) => {
                pipe.filled(bytes);
                Ok(Step::Moved(bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Step::NothingToRead),
            Err(error) => Err(from(error)),
        }
    }

    /// Reads into the thread's buffer and writes what can be written; keeps the rest.
    fn copy(&mut self, lane: &Lane<'_>) -> Result<Step, Broken> {
        SHARED.with_borrow_mut(|buffer| {
            let bytes = match read(lane.from, buffer) {
                Ok(0) => return Ok(Step::Eof),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Step::NothingToRead);
                }
                Err(error) => return Err(from(error)),
            };
            // A read that is short has taken all there was, and after the FIN nothing is added to it.
            let is_last = bytes < buffer.len() && lane.from.has_finished();
            let wrote = if is_last {
                lane.to.try_write_before_fin(&buffer[..bytes])
            } else {
                lane.to.try_write(&buffer[..bytes])
            };
            let wrote = match wrote {
                Ok(wrote) => wrote,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    0
                }
                Err(error) => return Err(to(error)),
            };
            lane.meter.add(wrote);
            if wrote < bytes {
                let (bytes, written) = (buffer[wrote..bytes].to_vec(), 0);
                self.pending = Some(Box::new(Pending { bytes, written }));
            }
            Ok(Step::Moved(bytes))
        })
    }

    /// Learns from the size of a read whether the direction is bulk.
    fn moved(&mut self, bytes: usize, mode: RelayMode) {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        if size >= LARGE {
            self.small_rounds = 0;
            self.large = self.large.saturating_add(size);
            self.bulk |= self.large >= BULK;
        } else {
            self.large = 0;
            self.small_rounds = self.small_rounds.saturating_add(1);
            if mode != RelayMode::Splice && self.small_rounds >= SMALL_ROUNDS {
                self.bulk = false;
            }
        }
        // A small read costs a call as well.
        self.turn = self.turn.saturating_add(size.max(LARGE));
    }
}

/// Reads, and takes a short read as a sign that the socket is empty, which saves the call that would
/// say so.
fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let bytes = socket.try_io(READABLE, || Ok(rustix::io::read(socket, &mut *buffer)?))?;
    if (1..buffer.len()).contains(&bytes) {
        socket.drained();
    }
    Ok(bytes)
}

fn splice_out(pipe: &Pipe, to: &Socket) -> io::Result<usize> {
    to.try_io(WRITABLE, || {
        let read = pipe.read_end();
        Ok(splice(read, None, to, None, pipe.held(), flags())?)
    })
}

/// Without SPLICE_F_NONBLOCK the call could block on the pipe; with SPLICE_F_MORE the last segment
/// would wait.
fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

fn from(error: io::Error) -> Broken {
    let side = Side::From;
    Broken { side, error }
}

fn to(error: io::Error) -> Broken {
    let side = Side::To;
    Broken { side, error }
}
