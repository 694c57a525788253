//! Counts what goes to each peer by VXLAN, and comes from it, in a table of rules of its own, which decides nothing.
//!
//! Its counters would not outlive a replacement, so only what they count is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use serde_json::Value;

use crate::{
    Carrier, Segment,
    firewall::removal,
    nft::{self, NftError},
};

const TABLE: &str = "inet nuncio_peers";

/// What went to a peer, and what came from it, VXLAN's own headers included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PeerTraffic {
    /// Packets sent; what the network card cuts up counts as one.
    pub sent_packets: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Packets received; what was put together on arrival counts as one.
    pub received_packets: u64,
    /// Bytes of them.
    pub received_bytes: u64,
}

/// What was counted, by the peers' underlay addresses.
///
/// # Errors
///
/// If `nft` cannot be run.
pub async fn peer_traffic() -> Result<BTreeMap<IpAddr, PeerTraffic>, NftError> {
    Ok(nft::list_json(TABLE)
        .await?
        .map_or_else(BTreeMap::new, |text| read(&text)))
}

/// Whom the table counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Counting {
    ports: BTreeSet<u16>,
    peers: BTreeSet<IpAddr>,
}

impl Counting {
    fn of(segments: &[Segment]) -> Self {
        let mut counting = Self::default();
        for segment in segments {
            if let Some(vxlan) = &segment.vxlan
                && vxlan.carrier == Carrier::Vxlan
                && !segment.peers.is_empty()
            {
                counting.ports.insert(vxlan.port);
                counting
                    .peers
                    .extend(segment.peers.iter().map(|peer| peer.vtep));
            }
        }
        counting
    }
}

/// The table as it was left.
#[derive(Default)]
pub(super) struct Counted {
    left: Option<Counting>,
}

impl Counted {
    /// Brings the table up to the segments, and tells whether it was changed. Nothing depends on it: a kernel that takes
    /// no such table is asked again when there are other peers.
    pub(super) async fn reconcile(&mut self, segments: &[Segment]) -> bool {
        let wanted = Counting::of(segments);
        let batch = match &self.left {
            Some(left) if *left == wanted => return false,
            Some(left) if left.ports == wanted.ports => changes(left, &wanted),
            _ if wanted.peers.is_empty() => removal(&[TABLE]),
            _ => removal(&[TABLE]) + &table(&wanted),
        };
        if let Err(error) = nft::apply(&batch).await {
            tracing::info!(%error, "what goes to each peer is not counted");
        }
        self.left = Some(wanted);
        true
    }

    /// It is not known any more how the table is.
    pub(super) fn forget(&mut self) {
        self.left = None;
    }
}

fn table(counting: &Counting) -> String {
    let ports: Vec<_> = counting.ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let mut out = format!("table {TABLE} {{\n");
    for (family, kind) in [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")] {
        for (way, hook, field) in [
            ("sent", "output", "daddr"),
            ("received", "prerouting", "saddr"),
        ] {
            let set = set(way, family == "ip6");
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "set {set} {{ type {kind}; counter; }}\n\
                 chain {set}_{hook} {{ type filter hook {hook} priority -310; \
                 udp dport {{ {ports} }} {family} {field} @{set}; }}"
            );
        }
    }
    out.push_str("}\n");
    out + &changes(&Counting::default(), counting)
}

fn set(way: &str, v6: bool) -> String {
    format!("{way}{}", if v6 { 6 } else { 4 })
}

fn changes(before: &Counting, now: &Counting) -> String {
    let gone = before
        .peers
        .difference(&now.peers)
        .map(|peer| ("delete", peer));
    let new = now
        .peers
        .difference(&before.peers)
        .map(|peer| ("add", peer));
    let mut out = String::new();
    for (verb, peer) in gone.chain(new) {
        for way in ["sent", "received"] {
            let set = set(way, peer.is_ipv6());
            let _ = writeln!(out, "{verb} element {TABLE} {set} {{ {peer} }}");
        }
    }
    out
}

fn read(text: &str) -> BTreeMap<IpAddr, PeerTraffic> {
    let mut found = BTreeMap::<IpAddr, PeerTraffic>::new();
    let listed: Value = serde_json::from_str(text).unwrap_or_default();
    let sets = listed["nftables"].as_array().into_iter().flatten();
    for set in sets.filter_map(|item| item.get("set")) {
        let sent = set["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("sent"));
        for element in set["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            let Some(Ok(peer)) = element["val"].as_str().map(str::parse) else {
                continue;
            };
            let traffic = found.entry(peer).or_default();
            let count = |key: &str| element["counter"][key].as_u64().unwrap_or_default();
            let (packets, bytes) = match sent {
                true => (&mut traffic.sent_packets, &mut traffic.sent_bytes),
                false => (&mut traffic.received_packets, &mut traffic.received_bytes),
            };
            (*packets, *bytes) = (count("packets"), count("bytes"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(peers: &[&str]) -> Counting {
        Counting {
            ports: [4789].into(),
            peers: peers
                .iter()
                .map(|peer| peer.parse().expect("an address"))
                .collect(),
        }
    }

    #[test]
    fn only_what_changed_is_changed_so_that_counters_stay() {
        let batch = changes(
            &counting(&["192.0.2.1", "192.0.2.2"]),
            &counting(&["192.0.2.2", "fd00::1"]),
        );
        let expected = "delete element inet nuncio_peers sent4 { 192.0.2.1 }\n\
                        delete element inet nuncio_peers received4 { 192.0.2.1 }\n\
                        add element inet nuncio_peers sent6 { fd00::1 }\n\
                        add element inet nuncio_peers received6 { fd00::1 }\n";
        assert_eq!(batch, expected);
    }

    #[test]
    fn both_ways_are_read() {
        let text = r#"{"nftables": [{"metainfo": {}}, {"table": {"name": "nuncio_peers"}},
            {"set": {"name": "sent4", "elem": [{"elem": {"val": "192.0.2.1", "counter": {"packets": 2, "bytes": 90}}}]}},
            {"set": {"name": "received4", "elem": [{"elem": {"val": "192.0.2.1", "counter": {"packets": 1, "bytes": 31}}}]}},
            {"set": {"name": "sent6"}}]}"#;
        let found = read(text);
        let expected = PeerTraffic {
            sent_packets: 2,
            sent_bytes: 90,
            received_packets: 1,
            received_bytes: 31,
        };
        assert_eq!(found.into_values().collect::<Vec<_>>(), [expected]);
        assert!(read("").is_empty());
    }
}
