//! One direction of a TCP flow: from one socket to the other, until FIN or failure.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::pipe::{Pipe, PipePool};
use crate::RelayMode;
use crate::flow::{Meter, Way};

const BUFFER: usize = 64 << 10;
/// Reads at least this large in a row, up to [`BULK`] bytes, make a direction bulk.
const LARGE: usize = 4 << 10;
const BULK: usize = 64 << 10;
/// Splices smaller than [`LARGE`] in a row that make it small again.
const SMALL_ROUNDS: u32 = 16;
/// Bytes moved before other tasks get their turn.
const TURN: usize = 1 << 20;

thread_local! {
    /// Lent for one read and the write after it, so that an idle flow holds no buffer.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Which of a direction's sockets failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    From,
    To,
}

/// Why a direction ended before its FIN.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) side: Side,
    pub(super) error: io::Error,
}

/// What carries, and what has been read but not yet written.
pub(super) struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    mode: RelayMode,
    meter: &'a Meter,
    pool: &'a Arc<PipePool>,
    linger: Duration,
    /// What a copy could not write at once; empty otherwise.
    pending: Vec<u8>,
    written: usize,
    pipe: Option<Pipe>,
    large: usize,
    small_rounds: u32,
    bulk: bool,
    turn: usize,
}

enum Step {
    Moved(usize),
    NothingToRead,
    Eof,
}

impl<'a> Direction<'a> {
    pub(super) fn new(
        (from, to): (&'a TcpStream, &'a TcpStream),
        mode: RelayMode,
        meter: &'a Meter,
        pool: &'a Arc<PipePool>,
        linger: Duration,
    ) -> Self {
        Self {
            from,
            to,
            mode,
            meter,
            pool,
            linger,
            pending: Vec::new(),
            written: 0,
            pipe: None,
            large: 0,
            small_rounds: 0,
            bulk: mode == RelayMode::Splice,
            turn: 0,
        }
    }

    /// Carries until `from` sends FIN, and sends it on.
    pub(super) async fn run(&mut self) -> Result<(), Broken> {
        self.carry().await?;
        let shut = rustix::net::shutdown(self.to, rustix::net::Shutdown::Write);
        match shut.map_err(io::Error::from) {
            // The peer has reset meanwhile; watching the socket tells so.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            result => result.map_err(to),
        }
    }

    /// Carries until nothing more comes. Can be called after `run` was cancelled, and goes on with
    /// what was read and not yet written.
    pub(super) async fn carry(&mut self) -> Result<(), Broken> {
        loop {
            self.flush().await?;
            let step = if self.ready_to_splice() {
                self.splice_in()
            } else {
                self.copy()
            };
            match step {
                Ok(Step::Moved(bytes)) => self.moved(bytes).await,
                Ok(Step::Eof) => return Ok(()),
                Ok(Step::NothingToRead) => self.wait_for_data().await?,
                Err(broken) if broken.error.kind() == ErrorKind::Interrupted => {}
                Err(broken) => return Err(broken),
            }
        }
    }

    /// Sleeps until there is data. What sleeps holds neither pipe nor buffer.
    async fn wait_for_data(&mut self) -> Result<(), Broken> {
        self.pipe = None;
        self.pending = Vec::new();
        self.from.readable().await.map_err(from)
    }

    /// Writes out whatever was read.
    async fn flush(&mut self) -> Result<(), Broken> {
        let mut give_up = None;
        loop {
            let wrote = if self.written < self.pending.len() {
                self.to.try_write(&self.pending[self.written..])
            } else if let Some(pipe) = self.pipe.as_ref().filter(|pipe| pipe.held() > 0) {
                splice_out(pipe, self.to)
            } else {
                self.pending.clear();
                self.written = 0;
                return Ok(());
            };
            match wrote {
                Ok(bytes) => {
                    self.meter.add(bytes);
                    self.wrote(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait_for_room(&mut give_up).await?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(to(error)),
            }
        }
    }

    fn wrote(&mut self, bytes: usize) {
        if self.written < self.pending.len() {
            self.written += bytes;
        } else if let Some(pipe) = &mut self.pipe {
            pipe.drained(bytes);
        }
    }

    /// Waits until `to` takes more. Nobody reads `from` meanwhile, so its reset is watched for: what
    /// it sent before still gets the time to arrive, but not forever.
    async fn wait_for_room(&self, give_up: &mut Option<Instant>) -> Result<(), Broken> {
        if let Some(deadline) = *give_up {
            return match timeout_at(deadline, self.to.writable()).await {
                Ok(result) => result.map_err(to),
                Err(_) => Err(from(ErrorKind::ConnectionReset.into())),
            };
        }
        tokio::select! {
            biased;
            writable = self.to.writable() => writable.map_err(to),
            () = failure(self.from) => {
                *give_up = Some(Instant::now() + self.linger);
                Ok(())
            }
        }
    }

    fn ready_to_splice(&mut self) -> bool {
        let way = match (self.bulk, self.mode) {
            (_, RelayMode::Copy) => Way::CopyMode,
            (false, _) => Way::Small,
            (true, mode) => {
                if self.pipe.is_none() {
                    self.pipe = self.pool.take();
                }
                match (&self.pipe, mode) {
                    (None, _) => Way::NoPipe,
                    (Some(_), RelayMode::Splice) => Way::SpliceMode,
                    (Some(_), _) => Way::Bulk,
                }
            }
        };
        self.meter.take_way(way);
        matches!(way, Way::Bulk | Way::SpliceMode)
    }

    /// Fills the pipe, which is empty: so EAGAIN speaks of the socket.
    fn splice_in(&mut self) -> Result<Step, Broken> {
        let pipe = self.pipe.as_mut().expect("ready_to_splice has taken one");
        let read = self.from.try_io(Interest::READABLE, || {
            let (write, size) = (pipe.write_end(), pipe.size());
            Ok(splice(self.from, None, write, None, size, flags())?)
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
    fn copy(&mut self) -> Result<Step, Broken> {
        SHARED.with_borrow_mut(|buffer| {
            let bytes = match read(self.from, buffer) {
                Ok(0) => return Ok(Step::Eof),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Step::NothingToRead);
                }
                Err(error) => return Err(from(error)),
            };
            let wrote = match self.to.try_write(&buffer[..bytes]) {
                Ok(wrote) => wrote,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    0
                }
                Err(error) => return Err(to(error)),
            };
            self.meter.add(wrote);
            self.pending.extend_from_slice(&buffer[wrote..bytes]);
            Ok(Step::Moved(bytes))
        })
    }

    /// Learns from the size of a read whether the direction is bulk, and yields in time.
    async fn moved(&mut self, bytes: usize) {
        if bytes >= LARGE {
            self.small_rounds = 0;
            self.large += bytes;
            self.bulk |= self.large >= BULK;
        } else {
            self.large = 0;
            self.small_rounds = self.small_rounds.saturating_add(1);
            if self.mode != RelayMode::Splice && self.small_rounds >= SMALL_ROUNDS {
                self.bulk = false;
            }
        }
        self.turn += bytes;
        if self.turn >= TURN {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Returns when the socket has failed, such as by a reset; never by data or FIN.
pub(super) async fn failure(socket: &TcpStream) {
    loop {
        if socket.ready(Interest::ERROR).await.is_err() {
            return;
        }
        // Polling, unlike reading SO_ERROR, leaves the error for the one who reads or writes.
        let told = socket.try_io(Interest::ERROR, || {
            let mut poll = [rustix::event::PollFd::new(
                socket,
                rustix::event::PollFlags::empty(),
            )];
            rustix::event::poll(&mut poll, Some(&rustix::event::Timespec::default()))?;
            let failed = poll[0].revents().contains(rustix::event::PollFlags::ERR);
            failed
                .then_some(())
                .ok_or_else(|| ErrorKind::WouldBlock.into())
        });
        if !told.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            return;
        }
    }
}

/// Reads like `try_read`, but takes a short read as a sign that the socket is empty, which saves
/// the call that would say so. A FIN or an error that came meanwhile keeps the socket readable.
fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let result = socket.try_io(Interest::READABLE, || {
        let bytes = rustix::io::read(socket, &mut *buffer)?;
        if (1..buffer.len()).contains(&bytes) {
            short = Some(bytes);
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(bytes)
    });
    short.map_or(result, Ok)
}

fn splice_out(pipe: &Pipe, to: &TcpStream) -> io::Result<usize> {
    to.try_io(Interest::WRITABLE, || {
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
