//! Many packets at once: trains of datagrams outwards, and what arrives for a device.

use std::{net::SocketAddr, sync::Arc};

use crate::{joiner::Joiner, link::Link, socket::Socket, status::Counts};

/// The most that one UDP datagram holds, and so a train.
const TRAIN: usize = 65_507;

/// Datagrams to one peer, all of one size but the last, which the kernel takes as one.
pub(crate) struct Train<'a> {
    socket: &'a Socket,
    counts: &'a Counts,
    bytes: Vec<u8>,
    used: usize,
    segment: usize,
    count: usize,
    to: Option<SocketAddr>,
}

impl<'a> Train<'a> {
    pub(crate) fn new(socket: &'a Socket, counts: &'a Counts) -> Self {
        Self {
            socket,
            counts,
            bytes: vec![0; TRAIN],
            used: 0,
            segment: 0,
            count: 0,
            to: None,
        }
    }

    /// Adds the datagram that `fill` writes and returns the length of, of at most `most` bytes; none, if that is 0.
    pub(crate) fn push(
        &mut self,
        to: SocketAddr,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let full = self.used + most > TRAIN || self.count >= self.socket.longest_train();
        if full || self.to.is_some_and(|other| other != to) {
            self.send();
        }
        let Some(room) = self.bytes.get_mut(self.used..self.used + most) else {
            return; // no packet of a device is longer
        };
        let length = fill(room);
        if length == 0 {
            return;
        }
        let whole = self.segment * self.count == self.used;
        if self.count > 0 && (!whole || length > self.segment) {
            let begin = self.used;
            self.send();
            self.bytes.copy_within(begin..begin + length, 0);
        }
        if self.count == 0 {
            self.segment = length;
            self.to = Some(to);
        }
        self.used += length;
        self.count += 1;
    }

    /// Sends what there is.
    pub(crate) fn send(&mut self) {
        if let Some(to) = self.to.take() {
            let sent = self.socket.send(to, &self.bytes[..self.used], self.segment);
            if let Err(error) = sent {
                self.counts.unsent(self.count, &error);
            }
        }
        (self.used, self.count) = (0, 0);
    }
}

/// Packets that were opened and go to one device.
pub(crate) struct Arrivals {
    joiner: Joiner,
    /// Where what is joined goes.
    link: Option<Arc<Link>>,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self {
            joiner: Joiner::new(),
            link: None,
        }
    }

    /// Room for a packet of at most `most` bytes.
    pub(crate) fn room(&mut self, most: usize) -> &mut [u8] {
        if !self.joiner.has_room(most) {
            self.write();
        }
        self.joiner.room(most)
    }

    /// Keeps the first `length` bytes of the room, a packet for `link`.
    pub(crate) fn keep(&mut self, length: usize, link: &Arc<Link>) {
        let last = self.link.as_ref();
        let is_same = last.is_some_and(|last| Arc::ptr_eq(last, link));
        if is_same && self.joiner.join(length, link.joins_udp()) {
            return;
        }
        self.joiner.set_aside(length);
        self.write();
        self.joiner.begin();
        self.link = Some(Arc::clone(link));
    }

    /// Writes what there is.
    pub(crate) fn write(&mut self) {
        if let (Some(link), Some(packet)) = (self.link.take(), self.joiner.finish()) {
            link.write(packet);
        }
        self.joiner.clear();
    }
}
