//! Datagrams on their way out, in as few messages as the kernel can cut up again.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::libc;
use tracing::debug;

use super::is_refusal;
use crate::sys::mmsg::{BATCH, Outbox, Outgoing};

/// What every kernel that knows `UDP_SEGMENT` takes; newer ones take 128.
const MOST_SEGMENTS: usize = 64;
/// What fits into an IPv4 packet. A datagram alone may be larger, over IPv6.
const MOST_BYTES: usize = 65_507;

/// The largest segments a way out takes. It is learnt once from the kernel's refusal, which comes
/// where a segment and its headers are larger than the MTU, or where something on the way (IPsec,
/// say) cannot cut at all.
#[derive(Debug)]
pub(super) struct LargestSegment(AtomicU16);

impl LargestSegment {
    pub(super) fn unknown() -> Self {
        Self(AtomicU16::new(u16::MAX))
    }

    fn allows(&self, segment: usize) -> bool {
        segment <= usize::from(self.0.load(Ordering::Relaxed))
    }

    /// Whether the kernel has refused to cut, and would send the datagrams one by one.
    fn learn(&self, segment: u16, error: &io::Error) -> bool {
        let largest = match error.raw_os_error() {
            Some(libc::EMSGSIZE | libc::EINVAL) => segment.saturating_sub(1),
            Some(libc::EIO | libc::ENOPROTOOPT | libc::EOPNOTSUPP) => 0,
            _ => return false,
        };
        self.0.fetch_min(largest, Ordering::Relaxed);
        debug!(segment, %error, "datagrams of this size go one by one");
        true
    }
}

/// Datagrams of one session, in order.
pub(super) struct Batch<'a> {
    parts: [IoSlice<'a>; BATCH],
    parts_used: usize,
    messages: [Message; BATCH],
    used: usize,
}

/// Parts that are datagrams of `segment` bytes, of which the last may be shorter.
#[derive(Clone, Debug, Default)]
struct Message {
    out: Outgoing,
    segment: usize,
    bytes: usize,
    count: usize,
}

/// How far a batch has come.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    /// The message that was refused, and why; those from it on were not sent.
    pub(super) refused: Option<(usize, io::Error)>,
}

/// Where to, and by what.
pub(super) struct Way<'a> {
    pub(super) socket: BorrowedFd<'a>,
    /// The address, and the local one to send from, unless the socket is connected.
    pub(super) ends: Option<(SocketAddr, IpAddr)>,
    pub(super) largest: &'a LargestSegment,
}

impl Way<'_> {
    /// How many messages go by one call. When one fails that is not the first, `sendmmsg` swallows
    /// its error, and with it the ICMP error that waited in a connected socket: there each goes by
    /// itself.
    fn at_once(&self) -> usize {
        if self.ends.is_some() { BATCH } else { 1 }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new() -> Self {
        Self {
            parts: [IoSlice::new(&[]); BATCH],
            parts_used: 0,
            messages: std::array::from_fn(|_| Message::default()),
            used: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        (self.parts_used, self.used) = (0, 0);
    }

    /// Adds a piece; has the batch sent, and begins it anew, whenever it is full.
    pub(super) fn push_all(
        &mut self,
        mut piece: &'a [u8],
        segment: usize,
        mut send: impl FnMut(&Self),
    ) {
        while let Some(rest) = self.push(piece, segment) {
            send(self);
            self.clear();
            piece = rest;
        }
    }

    /// Adds a piece that consists of datagrams of `segment` bytes. Returns the end of it for which
    /// there is no room, if there is such an end.
    fn push(&mut self, mut piece: &'a [u8], segment: usize) -> Option<&'a [u8]> {
        loop {
            let first = segment.min(piece.len());
            let joins = self
                .last()
                .map_or(0, |last| last.takes(piece.len(), segment));
            let taken = if joins > 0 {
                joins
            } else if self.used == BATCH {
                return Some(piece);
            } else {
                Message::fresh(self.parts_used, first)
                    .takes(piece.len(), segment)
                    .max(first)
            };
            if self.parts_used == BATCH {
                return Some(piece);
            }
            if joins == 0 {
                self.messages[self.used] = Message::fresh(self.parts_used, first);
                self.used += 1;
            }
            let (now, rest) = piece.split_at(taken);
            self.parts[self.parts_used] = IoSlice::new(now);
            self.parts_used += 1;
            self.messages[self.used - 1].add(taken, segment);
            if rest.is_empty() {
                return None;
            }
            piece = rest;
        }
    }

    fn last(&self) -> Option<&Message> {
        self.messages[..self.used].last()
    }

    /// Sends the messages from `from` on. What finds a queue full is lost, as datagrams may be.
    pub(super) fn send(&self, from: usize, way: &Way<'_>, outbox: &mut Outbox) -> Sent {
        let mut sent = Sent {
            bytes: 0,
            refused: None,
        };
        let mut next = from;
        while next < self.used {
            // All that the kernel may cut, up to one that it may not.
            let waiting = self.messages[next..self.used].iter().take(way.at_once());
            let together = waiting.take_while(|m| m.count == 1 || way.largest.allows(m.segment));
            let result = match together.count() {
                0 => self
                    .send_apart(next, way, outbox, &mut sent.bytes)
                    .map(|()| 1),
                count => self.send_together(next, count, way, outbox, &mut sent.bytes),
            };
            match result {
                Ok(messages) => next += messages,
                Err(error) if is_refusal(&error) => {
                    sent.refused = Some((next, error));
                    return sent;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    debug!(lost = self.used - next, "queue is full");
                    return sent;
                }
                Err(error) => {
                    let message = &self.messages[next];
                    let size = u16::try_from(message.segment).unwrap_or(u16::MAX);
                    if message.count == 1 || !way.largest.learn(size, &error) {
                        debug!(bytes = message.bytes, %error, "datagram is lost");
                        next += 1;
                    }
                }
            }
        }
        sent
    }

    fn send_together(
        &self,
        next: usize,
        count: usize,
        way: &Way<'_>,
        outbox: &mut Outbox,
        bytes: &mut usize,
    ) -> io::Result<usize> {
        let messages = &self.messages[next..][..count];
        let out = messages.iter().map(|message| &message.out);
        let sent = outbox.send(way.socket, way.ends, &self.parts[..self.parts_used], out)?;
        *bytes += messages[..sent].iter().map(|m| m.bytes).sum::<usize>();
        Ok(sent)
    }

    /// Sends a message's datagrams each as its own.
    fn send_apart(
        &self,
        index: usize,
        way: &Way<'_>,
        outbox: &mut Outbox,
        bytes: &mut usize,
    ) -> io::Result<()> {
        let message = &self.messages[index];
        let parts = &self.parts[message.out.parts.clone()];
        let mut apart = [IoSlice::new(&[]); MOST_SEGMENTS];
        let mut count = 0;
        for datagram in parts.iter().flat_map(|part| part.chunks(message.segment)) {
            apart[count] = IoSlice::new(datagram);
            count += 1;
        }
        let singles: [Outgoing; MOST_SEGMENTS] = std::array::from_fn(Outgoing::single);
        let mut next = 0;
        while next < count {
            let now = singles[next..count].iter().take(way.at_once());
            match outbox.send(way.socket, way.ends, &apart, now) {
                Ok(sent) => {
                    *bytes += apart[next..][..sent].iter().map(|d| d.len()).sum::<usize>();
                    next += sent;
                }
                Err(error) if is_refusal(&error) || error.kind() == ErrorKind::WouldBlock => {
                    return Err(error);
                }
                Err(error) => {
                    debug!(bytes = apart[next].len(), %error, "datagram is lost");
                    next += 1;
                }
            }
        }
        Ok(())
    }
}

impl Message {
    fn fresh(part: usize, segment: usize) -> Self {
        Self {
            out: Outgoing {
                parts: part..part,
                segment: None,
            },
            segment,
            bytes: 0,
            count: 0,
        }
    }

    /// How many bytes of a piece of `length` in datagrams of `segment` may follow: whole datagrams,
    /// all as large as those before but the last.
    fn takes(&self, length: usize, segment: usize) -> usize {
        let first = segment.min(length);
        // An empty datagram cannot be a segment, and after a shorter one nothing may come.
        let ended = self.bytes < self.count * self.segment;
        if first == 0 || self.segment == 0 || ended || first > self.segment {
            return 0;
        }
        let count = MOST_SEGMENTS - self.count;
        let room = MOST_BYTES.saturating_sub(self.bytes);
        if first < self.segment {
            return if count > 0 && first <= room { first } else { 0 };
        }
        let whole = (length / segment).min(count).min(room / segment);
        let bytes = whole * segment;
        let tail = length - bytes;
        if whole < count && tail < segment && bytes + tail <= room {
            length
        } else {
            bytes
        }
    }

    fn add(&mut self, bytes: usize, segment: usize) {
        self.bytes += bytes;
        self.count += bytes.div_ceil(segment.max(1)).max(1);
        self.out.parts.end += 1;
        if self.count > 1 {
            // At most what a piece has, which is less than 64 KiB.
            self.out.segment = u16::try_from(self.segment).ok();
        }
    }
}

#[cfg(test)]
mod tests;
