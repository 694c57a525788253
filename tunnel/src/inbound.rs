//! From the peers to the devices.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon};

use crate::{
    PublicKey,
    batch::{Arrivals, Train},
    fallback::{PROBE, Probe},
    pair::{LONGEST_CONTROL, OVERHEAD, Opened, Pair},
    status::count,
    table::{Peer, Table},
    tunnel::Shared,
};

/// The longest train of datagrams that the kernel hands over.
const TRAIN: usize = 65_536;
/// The longest message that may have waited for an answer.
const WAITING: usize = u16::MAX as usize + OVERHEAD;
/// How long to let a socket rest that failed.
const REST: Duration = Duration::from_millis(100);

/// Carries what peers send until the tunnel ends.
pub(crate) fn carry(shared: &Shared) {
    let mut buffer = vec![0; TRAIN];
    let mut arrivals = Arrivals::new();
    let mut answers = Train::new(&shared.socket, &shared.counts);
    while !shared.is_over() {
        match shared.socket.receive(&mut buffer) {
            Ok(None) => {}
            Ok(Some(meta)) => {
                let table = shared.table.load();
                for message in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    if is_probe(&table, meta.addr, message, &mut answers) {
                        continue;
                    }
                    receive(
                        shared,
                        &table,
                        meta.addr,
                        message,
                        &mut arrivals,
                        &mut answers,
                    );
                }
                arrivals.write();
                answers.send();
            }
            Err(error) => {
                tracing::warn!(%error, "receive");
                std::thread::park_timeout(REST);
            }
        }
    }
}

/// Answers a probe of a peer, by UDP as it came, or notes the answer to one of ours.
fn is_probe(table: &Table, from: SocketAddr, message: &[u8], answers: &mut Train<'_>) -> bool {
    let Some(probe) = Probe::read(message) else {
        return false;
    };
    let mut peers = table.peers.iter();
    let Some(peer) = peers.find(|peer| peer.endpoint.ip() == from.ip()) else {
        return false;
    };
    match probe {
        Probe::Asks(nonce) => {
            answers.push(from, PROBE, |out| Probe::Answers(nonce).write(out));
        }
        Probe::Answers(nonce) => {
            if let Some(fallback) = &peer.fallback {
                fallback.reach.answered(nonce, Instant::now());
            }
        }
    }
    true
}

/// Takes a message that came by UDP from `from`, or by TLS of the peer whose address that is.
pub(crate) fn receive(
    shared: &Shared,
    table: &Table,
    from: SocketAddr,
    message: &[u8],
    arrivals: &mut Arrivals,
    answers: &mut Train<'_>,
) {
    let Some((peer, pair)) = whose(table, from, message, answers) else {
        return count(&shared.counts.unreadable);
    };
    let mut message = message;
    loop {
        let most = match message.len() {
            0 => WAITING,
            length => length.max(LONGEST_CONTROL),
        };
        let room = arrivals.room(most);
        match pair.open(from.ip(), message, room) {
            Opened::Packet(length) => {
                match table.link_for(peer, &room[..length]) {
                    Some(link) => arrivals.keep(length, link),
                    None => count(&shared.counts.foreign),
                }
                return;
            }
            Opened::Answer(length) => {
                peer.send(answers, length, |out| {
                    out.copy_from_slice(&room[..length]);
                    length
                });
                message = &[]; // what waited for the answer
            }
            Opened::Nothing => return,
            Opened::Refused => return count(&shared.counts.unreadable),
        }
    }
}

/// The peer, and the pair of keys, that a message claims to be of.
fn whose<'t>(
    table: &'t Table,
    from: SocketAddr,
    message: &[u8],
    answers: &mut Train<'_>,
) -> Option<(&'t Arc<Peer>, &'t Arc<Pair>)> {
    let found = match Tunn::parse_incoming_packet(message).ok()? {
        Packet::HandshakeInit(_) => of_handshake(table, from, message, answers),
        Packet::HandshakeResponse(response) => table.pair(response.receiver_idx >> 8),
        Packet::PacketCookieReply(reply) => table.pair(reply.receiver_idx >> 8),
        Packet::PacketData(data) => table.pair(data.receiver_idx >> 8),
    };
    found.filter(|(peer, _)| peer.endpoint.ip() == from.ip())
}

/// Whoever sends very many is first asked to prove his address, before anything costly is done.
fn of_handshake<'t>(
    table: &'t Table,
    from: SocketAddr,
    message: &[u8],
    answers: &mut Train<'_>,
) -> Option<(&'t Arc<Peer>, &'t Arc<Pair>)> {
    for own in &table.own {
        let mut cookie = [0; LONGEST_CONTROL];
        match own
            .limiter
            .verify_packet(Some(from.ip()), message, &mut cookie)
        {
            Ok(Packet::HandshakeInit(initiation)) => {
                let half = parse_handshake_anon(&own.secret, &own.public.point(), &initiation);
                let remote = PublicKey::from_bytes(half.ok()?.peer_static_public);
                return table.pair_of(own.public, remote);
            }
            Err(TunnResult::WriteToNetwork(cookie)) => {
                answers.push(from, cookie.len(), |out| {
                    out.copy_from_slice(cookie);
                    cookie.len()
                });
                return None;
            }
            // Not made for this key.
            _ => {}
        }
    }
    None
}
