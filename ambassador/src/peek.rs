//! Looks at how a connection begins, and leaves the bytes where they are.

use std::io::{self, ErrorKind};

use crate::tcp::{READABLE, Socket};
use rustix::net::{RecvFlags, recv};

/// What is made room for at first; most that is looked for is shorter.
const FIRST: usize = 512;

/// Why there is no more to see.
#[derive(Debug)]
pub(crate) enum PeekError {
    /// The peer has sent FIN, and nothing more.
    Closed,
    /// The bound is reached.
    Full,
    Socket(io::Error),
}

/// The first bytes of a connection, which stay in its receive queue.
#[derive(Debug)]
pub(crate) struct Peeked {
    bytes: Vec<u8>,
    seen: usize,
    most: usize,
}

impl Peeked {
    /// Looks at `most` bytes at most.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            seen: 0,
            most,
        }
    }

    /// What was seen so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.seen]
    }

    /// Waits until there is more to see.
    pub(crate) async fn more(&mut self, socket: &Socket) -> Result<(), PeekError> {
        if self.seen == self.most {
            return Err(PeekError::Full);
        }
        loop {
            socket.ready(READABLE).await;
            // Before it is looked at: what comes before the end is there by then.
            let ended = socket.has_ended();
            let looked = socket.try_io(READABLE, || self.look(socket));
            match looked {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock && ended => {
                    // No other event will tell of that.
                    socket.look_again();
                    return Err(PeekError::Closed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(PeekError::Socket(error)),
            }
        }
    }

    /// WouldBlock if there is nothing new, so that the next wait is for news.
    fn look(&mut self, socket: &Socket) -> io::Result<()> {
        let before = self.seen;
        loop {
            if self.bytes.len() == self.seen {
                let room = (self.seen * 2).clamp(FIRST.min(self.most), self.most);
                self.bytes.resize(room, 0);
            }
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let (seen, _) = recv(socket, &mut *self.bytes, flags)?;
            self.seen = seen;
            if seen < self.bytes.len() || seen == self.most {
                break;
            }
        }
        let news = (self.seen > before).then_some(());
        news.ok_or_else(|| ErrorKind::WouldBlock.into())
    }
}

/// Takes `length` bytes, which were seen, out of the receive queue.
pub(crate) fn consume(socket: &Socket, length: usize) -> io::Result<()> {
    let mut bytes = vec![0; length];
    let mut left = &mut bytes[..];
    while !left.is_empty() {
        match recv(socket, &mut *left, RecvFlags::DONTWAIT) {
            // The peer has reset: what was seen is gone with it.
            Ok((0, _)) => return Err(ErrorKind::ConnectionReset.into()),
            Ok((read, _)) => left = &mut left[read..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
