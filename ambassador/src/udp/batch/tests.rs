#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;

use super::*;
use crate::sys::mmsg::{Inbox, forbid_segments};

type Piece = (Vec<u8>, usize);

fn piece(length: usize, segment: usize) -> Piece {
    let bytes = (0..length).map(|at| (at % 251) as u8).collect();
    (bytes, segment.max(1).min(length))
}

/// Mostly trains of one size with a short end, as bulk is.
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let size = prop_oneof![Just(0), Just(1), Just(1_200), Just(1_400), 1..20_000_usize];
    let train = (size, 0..100_usize, 0..1_400_usize).prop_map(|(size, count, tail)| {
        let length = (size * count + tail.min(size)).min(65_535);
        piece(length, size)
    });
    prop::collection::vec(train, 1..40)
}

fn datagrams(pieces: &[Piece]) -> Vec<Vec<u8>> {
    let cut = |(bytes, segment): &Piece| -> Vec<Vec<u8>> {
        if bytes.is_empty() {
            return vec![Vec::new()];
        }
        bytes.chunks(*segment).map(<[u8]>::to_vec).collect()
    };
    pieces.iter().flat_map(cut).collect()
}

/// What the kernel makes of the messages.
fn cut(batch: &Batch<'_>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for message in &batch.messages[..batch.used] {
        let parts = &batch.parts[message.out.parts.clone()];
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        assert_eq!(whole.len(), message.bytes);
        match message.out.segment {
            Some(segment) => {
                let datagrams = whole.chunks(segment.into());
                assert!(datagrams.len() <= MOST_SEGMENTS && whole.len() <= MOST_BYTES);
                assert_eq!(datagrams.len(), message.count);
                all.extend(datagrams.map(<[u8]>::to_vec));
            }
            None => {
                assert_eq!(message.count, 1);
                all.push(whole);
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_datagram_keeps_its_bounds_and_its_place(pieces in pieces()) {
        let mut sent = Vec::new();
        let mut batch = Batch::new();
        for (bytes, segment) in &pieces {
            batch.push_all(bytes, *segment, |full| sent.extend(cut(full)));
        }
        sent.extend(cut(&batch));
        prop_assert!(sent == datagrams(&pieces));
    }
}

#[test]
fn equal_datagrams_share_a_message() {
    let pieces = vec![piece(1_400, 1_400); BATCH];
    let mut batch = Batch::new();
    for (bytes, segment) in &pieces {
        batch.push_all(bytes, *segment, |_| panic!("there is room"));
    }
    let counts: Vec<_> = batch.messages[..batch.used]
        .iter()
        .map(|m| m.count)
        .collect();
    assert_eq!(counts, [46, 18]);
}

/// The ends of a way, the receiving one without GRO, so that it sees datagrams.
fn sockets() -> (UdpSocket, UdpSocket) {
    let to = UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    from.connect(to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    (from, to)
}

fn send(socket: &UdpSocket, largest: &LargestSegment, pieces: &[Piece]) -> usize {
    let way = Way {
        socket: socket.as_fd(),
        ends: None,
        largest,
    };
    let mut outbox = Outbox::new();
    let mut batch = Batch::new();
    for (bytes, segment) in pieces {
        batch.push_all(bytes, *segment, |_| panic!("there is room"));
    }
    let sent = batch.send(0, &way, &mut outbox);
    assert!(sent.refused.is_none(), "{sent:?}");
    sent.bytes
}

fn expect(socket: &UdpSocket, pieces: &[Piece]) {
    let mut buffer = vec![0; 65_536];
    for expected in datagrams(pieces) {
        let bytes = socket.recv(&mut buffer).unwrap();
        assert!(
            buffer[..bytes] == expected,
            "{bytes} bytes, not {}",
            expected.len()
        );
    }
}

#[test]
fn the_kernel_cuts_where_the_sender_did() {
    let (from, to) = sockets();
    let pieces = [
        piece(30_000, 1_400),
        piece(0, 0),
        piece(900, 900),
        piece(5_000, 900),
    ];
    assert_eq!(send(&from, &LargestSegment::unknown(), &pieces), 35_900);
    expect(&to, &pieces);
}

#[test]
fn a_train_arrives_as_one_piece() {
    let (from, to) = sockets();
    setsockopt(&to, sockopt::UdpGroSegment, &true).unwrap();
    // Gathered from datagrams that came one by one.
    let pieces = vec![piece(1_000, 1_000); 60];
    send(&from, &LargestSegment::unknown(), &pieces);
    let mut inbox = Inbox::new();
    assert_eq!(inbox.receive(to.as_fd(), BATCH).unwrap(), 1);
    let arrival = inbox.arrival(0).unwrap();
    assert_eq!((arrival.bytes.len(), arrival.segment), (60_000, 1_000));
}

#[test]
fn what_the_kernel_will_not_cut_goes_one_by_one() {
    let (from, to) = sockets();
    forbid_segments(from.as_fd()).unwrap();
    let largest = LargestSegment::unknown();
    let pieces = [piece(30_500, 1_000), piece(700, 100)];
    assert_eq!(send(&from, &largest, &pieces), 31_200);
    expect(&to, &pieces);
    // Both sizes were refused, and will not be tried again.
    assert!(!largest.allows(100) && largest.allows(99));
    assert_eq!(send(&from, &largest, &pieces), 31_200);
    expect(&to, &pieces);
}

#[test]
fn a_refusal_tells_from_which_message_on() {
    let (from, to) = sockets();
    drop(to);
    let way = Way {
        socket: from.as_fd(),
        ends: None,
        largest: &LargestSegment::unknown(),
    };
    let (mut outbox, mut batch) = (Outbox::new(), Batch::new());
    for length in 1..=10 {
        let at = 10 - length;
        batch.push_all(&[7; 10][at..], length, |_| panic!("there is room"));
    }
    // On loopback the answer to the first is there before the second is sent.
    let sent = batch.send(0, &way, &mut outbox);
    let (at, error) = sent.refused.unwrap();
    assert!(is_refusal(&error));
    assert_eq!(at, 1);
}
