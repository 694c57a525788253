//! Packets of one flow that follow each other, joined to one that the kernel takes at once (GRO).
//!
//! A packet is opened right behind the payload of those before it: its headers come to lie on the last bytes of that
//! payload, which are kept aside and put back. So no payload is copied, whatever the number of packets.

use tun_rs::VIRTIO_NET_HDR_LEN as HEAD;

use crate::segment::{LONGEST_HEADERS, Segment};

/// The longest packet there is.
const LONGEST: usize = u16::MAX as usize;

/// One packet, or several that were joined.
pub(crate) struct Joiner {
    /// With room in front for what the kernel is told of it.
    bytes: Vec<u8>,
    /// Where the payload ends; [`HEAD`] if there is nothing.
    end: usize,
    /// What the first packet is, if others can follow it.
    run: Option<Run>,
    /// How many bytes in front of `end` lie aside.
    lent: usize,
    aside: [u8; LONGEST_HEADERS],
    /// A packet that could not be joined.
    next: Vec<u8>,
}

/// Packets that were joined.
struct Run {
    first: Segment,
    last: Segment,
    count: usize,
}

impl Joiner {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; HEAD + 2 * (LONGEST + 1)],
            end: HEAD,
            run: None,
            lent: 0,
            aside: [0; LONGEST_HEADERS],
            next: Vec::with_capacity(LONGEST),
        }
    }

    /// Whether there is room for a packet of `most` bytes without writing what there is.
    pub(crate) fn has_room(&self, most: usize) -> bool {
        self.end + most <= self.bytes.len()
    }

    /// Room for a packet of at most `most` bytes.
    pub(crate) fn room(&mut self, most: usize) -> &mut [u8] {
        self.put_back();
        let headers = self.run.as_ref().map_or(0, |run| run.first.headers());
        let at = self.end - headers;
        self.aside[..headers].copy_from_slice(&self.bytes[at..self.end]);
        self.lent = headers;
        &mut self.bytes[at..at + most]
    }

    /// Whether the packet in the room, of `length` bytes, follows what there is; then it is part of that. Packets of UDP
    /// are joined for those only who take them so.
    pub(crate) fn join(&mut self, length: usize, udp: bool) -> bool {
        let at = self.end - self.lent;
        let packet = &self.bytes[at..at + length];
        let Some(run) = &mut self.run else {
            return false;
        };
        let Some(next) = Segment::parse(packet).filter(|next| udp || !next.is_udp()) else {
            return false;
        };
        let joined = self.end - HEAD + next.payload();
        let first = &self.bytes[HEAD..HEAD + run.first.headers()];
        let follows = joined <= LONGEST
            && next.follows(&run.first, &run.last)
            && Segment::are_alike(first, packet, &next)
            && next.is_sound(packet);
        if follows {
            run.last = next;
            run.count += 1;
            self.put_back();
            self.end = HEAD + joined;
        }
        follows
    }

    /// Moves the packet in the room away, so that what there was is whole.
    pub(crate) fn set_aside(&mut self, length: usize) {
        let at = self.end - self.lent;
        self.next.clear();
        self.next.extend_from_slice(&self.bytes[at..at + length]);
        self.put_back();
    }

    /// What there is, as the kernel takes it, if there is something. It is to be written, and forgotten by
    /// [`Joiner::clear`].
    pub(crate) fn finish(&mut self) -> Option<&[u8]> {
        self.put_back();
        if self.end == HEAD {
            return None;
        }
        let (head, packet) = self.bytes[..self.end].split_at_mut(HEAD);
        head.fill(0);
        if let Some(run) = self.run.as_ref().filter(|run| run.count > 1) {
            run.first.describe(&run.last, head, packet);
        }
        Some(&self.bytes[..self.end])
    }

    pub(crate) fn clear(&mut self) {
        (self.end, self.run, self.lent) = (HEAD, None, 0);
    }

    /// Begins with the packet that was set aside.
    pub(crate) fn begin(&mut self) {
        let packet = &self.next;
        self.end = HEAD + packet.len();
        self.bytes[HEAD..self.end].copy_from_slice(packet);
        let first = Segment::parse(packet).filter(|first| first.is_sound(packet));
        self.run = first.map(|first| Run {
            last: first.clone(),
            first,
            count: 1,
        });
    }

    fn put_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        self.bytes[self.end - lent..self.end].copy_from_slice(&self.aside[..lent]);
    }
}

#[cfg(test)]
mod tests;
