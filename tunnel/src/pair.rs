//! What two keys have agreed on: WireGuard's state between one of ours and one of a peer's.

use std::{
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use boringtun::noise::{Tunn, TunnResult};

use crate::{PrivateKey, PublicKey};

/// What a packet grows by: the header of its message (16 bytes) and the tag (16).
pub(crate) const OVERHEAD: usize = 32;
/// The longest message that is not data: the initiation of a handshake.
pub(crate) const LONGEST_CONTROL: usize = 148;

/// One of our keys and one of a peer's.
pub(crate) struct Pair {
    /// Leads from what a peer sends back here; 24 bits, of which each message has eight more.
    pub(crate) index: u32,
    pub(crate) local: PublicKey,
    pub(crate) remote: PublicKey,
    state: Mutex<Tunn>,
    /// Whether packets can be sealed now, as last seen.
    ready: AtomicBool,
}

/// What came of a message.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Opened {
    /// A packet, in so many bytes.
    Packet(usize),
    /// A message to be sent back, in so many bytes; ask for more.
    Answer(usize),
    /// Nothing more to be done.
    Nothing,
    /// It was not what this pair can read: forged, repeated or of keys long forgotten.
    Refused,
}

/// What a pair is doing, for who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairStatus {
    pub(crate) handshake: Option<Duration>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Pair {
    pub(crate) fn new(own: &PrivateKey, remote: PublicKey, index: u32) -> Self {
        let state = Tunn::new(own.secret(), remote.point(), None, None, index, None);
        Self {
            index,
            local: own.public(),
            remote,
            state: Mutex::new(state),
            ready: AtomicBool::new(false),
        }
    }

    /// Whether the two have agreed on keys that still hold.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Seals `packet`, and returns the length of the message in `out`: 0 if the packet waits until the two have agreed.
    ///
    /// `out` has room for [`OVERHEAD`] more than `packet`, and for [`LONGEST_CONTROL`].
    pub(crate) fn seal(&self, packet: &[u8], out: &mut [u8]) -> usize {
        match self.state().encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => message.len(),
            _ => 0,
        }
    }

    /// Reads a message; after an answer, an empty one asks for what waited to be sent.
    ///
    /// `out` has room for `message`, and for [`LONGEST_CONTROL`].
    pub(crate) fn open(&self, from: IpAddr, message: &[u8], out: &mut [u8]) -> Opened {
        let mut state = self.state();
        let opened = match state.decapsulate(Some(from), message, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::WriteToNetwork(answer) => Opened::Answer(answer.len()),
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(_) => Opened::Refused,
        };
        if !self.is_ready() {
            self.look(&state);
        }
        opened
    }

    /// Lets time pass, about four times a second, and returns the length of a message to be sent, if not 0.
    ///
    /// If the pair is `wanted`, the two agree on keys although no packet waits.
    pub(crate) fn tick(&self, wanted: bool, out: &mut [u8]) -> usize {
        let mut state = self.state();
        let mut length = match state.update_timers(out) {
            TunnResult::WriteToNetwork(message) => message.len(),
            _ => 0, // also if it is given up, for nobody answered for long: who wants to talk begins anew
        };
        self.look(&state);
        if length == 0
            && wanted
            && !self.is_ready()
            && let TunnResult::WriteToNetwork(message) =
                state.format_handshake_initiation(out, false)
        {
            length = message.len();
        }
        length
    }

    pub(crate) fn status(&self) -> PairStatus {
        let (handshake, sent, received, _, _) = self.state().stats();
        PairStatus {
            handshake,
            sent: sent as u64,
            received: received as u64,
        }
    }

    fn look(&self, state: &Tunn) {
        let ready = state.time_since_last_handshake().is_some();
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// A thread that panicked with it left nothing half done that the protocol would not mend.
    fn state(&self) -> MutexGuard<'_, Tunn> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn two() -> (Pair, Pair) {
        let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
        (
            Pair::new(&one, other.public(), 1),
            Pair::new(&other, one.public(), 2),
        )
    }

    /// An IPv4 packet of which only what is looked at is right.
    fn packet(length: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.resize(length.into(), 7);
        packet
    }

    /// Has them agree, and returns the packets that arrive at `b` because of it.
    fn shake_hands(a: &Pair, b: &Pair) -> Vec<Vec<u8>> {
        let (mut to_b, mut to_a) = (vec![0; 2048], vec![0; 2048]);
        let length = a.tick(true, &mut to_b);
        let Opened::Answer(answer) = b.open(HERE, &to_b[..length], &mut to_a) else {
            panic!("no answer");
        };
        let mut arrived = Vec::new();
        let mut message = to_a[..answer].to_vec();
        while let Opened::Answer(length) = a.open(HERE, &message, &mut to_b) {
            let mut packet = vec![0; 2048];
            if let Opened::Packet(length) = b.open(HERE, &to_b[..length], &mut packet) {
                packet.truncate(length);
                arrived.push(packet);
            }
            message.clear();
        }
        arrived
    }

    #[test]
    fn what_is_sealed_is_opened_once_and_by_the_other_only() {
        let (a, b) = two();
        assert!(shake_hands(&a, &b).is_empty());
        assert!(a.is_ready() && b.is_ready());
        let (mut sealed, mut opened) = (vec![0; 2048], vec![0; 2048]);
        let plain = packet(600);
        let length = a.seal(&plain, &mut sealed);
        assert_eq!(length, plain.len() + OVERHEAD);
        let shown = sealed[..length].windows(8).any(|window| window == [7; 8]);
        assert!(!shown, "it is not encrypted");
        let message = &sealed[..length];
        let (_, stranger) = two();
        assert_eq!(stranger.open(HERE, message, &mut opened), Opened::Refused);
        assert_eq!(b.open(HERE, message, &mut opened), Opened::Packet(600));
        assert_eq!(opened[..600], plain);
        assert_eq!(b.open(HERE, message, &mut opened), Opened::Refused);
    }

    #[test]
    fn what_waits_for_the_keys_is_sent_then() {
        let (a, b) = two();
        let mut out = vec![0; 2048];
        let first = packet(100);
        assert_eq!(a.tick(false, &mut out), 0);
        let initiation = a.seal(&first, &mut out);
        assert_eq!(initiation, LONGEST_CONTROL);
        let mut answer = vec![0; 2048];
        let Opened::Answer(length) = b.open(HERE, &out[..initiation], &mut answer) else {
            panic!("no answer");
        };
        let mut message = answer[..length].to_vec();
        let mut arrived = Vec::new();
        while let Opened::Answer(length) = a.open(HERE, &message, &mut out) {
            if let Opened::Packet(length) = b.open(HERE, &out[..length], &mut answer) {
                arrived.push(answer[..length].to_vec());
            }
            message.clear();
        }
        assert_eq!(arrived, [first]);
    }
}
