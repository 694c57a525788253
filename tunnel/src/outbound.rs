//! From a device to the peers.

use std::sync::Arc;

use crate::{
    batch::Train,
    fallback::Kind,
    link::{Link, Read, Reader},
    pair::{LONGEST_CONTROL, OVERHEAD},
    ranges::addresses,
    status::count,
    table::Table,
    tunnel::Shared,
};

/// Carries what `link` sends until it is retired.
pub(crate) fn carry(shared: &Shared, link: &Arc<Link>) {
    let mut reader = Reader::new(link.document.mtu);
    let mut train = Train::new(&shared.socket, &shared.counts);
    loop {
        match link.read(&mut reader) {
            // A train goes once it is full or the device has no more.
            Read::Packets(count) => {
                let (table, now) = (shared.table.load(), shared.clock.now());
                for packet in reader.packets(count) {
                    send(shared, &table, now, link, packet, &mut train);
                }
            }
            Read::Empty => {
                train.send();
                link.wait();
            }
            Read::Over => return,
        }
    }
}

fn send(
    shared: &Shared,
    table: &Table,
    now: u64,
    link: &Link,
    packet: &[u8],
    train: &mut Train<'_>,
) {
    let destination = addresses(packet).map(|(_, destination)| destination);
    let peer = destination.and_then(|destination| table.peer_with(destination));
    if !link.document.sealed {
        let fallback = peer.and_then(|peer| peer.fallback.as_ref());
        let Some(fallback) = fallback else {
            return count(&shared.counts.unrouted);
        };
        return fallback.sender.push(Kind::Packet, packet.len(), |out| {
            out.copy_from_slice(packet);
            packet.len()
        });
    }
    let pair = peer.and_then(|peer| Some((peer, peer.speaking(now)?)));
    let Some((peer, pair)) = pair else {
        return count(&shared.counts.unrouted);
    };
    let most = (packet.len() + OVERHEAD).max(LONGEST_CONTROL);
    peer.send(train, most, |out| pair.seal(packet, out));
}
