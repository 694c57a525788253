//! The ways to other hosts, and what is carried on them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use nuncio_ambassador::metrics::Family;
use nuncio_overlay::{PathState, PeerTraffic, fallback_name, peer_traffic, vxlan_name};
use nuncio_tunnel::{PeerStatus, TunnelStatus};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::containers::WAYS;
use super::{MOST, gauge};
use crate::daemon::Daemon;
use crate::daemon::networks::Network;
use crate::daemon::stats::{NetworkStats, devices};

/// What is known of other hosts, and of the devices that lead to them.
#[derive(Debug, Default)]
pub(super) struct OverlayFigures {
    peers: Vec<Peer>,
    pub(super) omitted_peers: usize,
    devices: Vec<(String, String, NetworkStats)>,
    pub(super) omitted_networks: usize,
    counted: bool,
    /// `None`: it is there but does not answer.
    tunnel: Option<Tunnel>,
}

#[derive(Debug, Default)]
struct Tunnel {
    dropped: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Peer {
    name: String,
    alive: bool,
    path: Option<PathState>,
    traffic: Option<PeerTraffic>,
    tunnel: Option<PeerStatus>,
    around: [(&'static str, bool, u64); 2],
}

impl Daemon {
    pub(super) async fn overlay_figures(&self) -> OverlayFigures {
        let (traffic, tunnel) = tokio::join!(peer_traffic(), self.tunnel_status());
        let counted = traffic.is_ok();
        let tunnel_answers = tunnel.is_ok();
        let tunnel = tunnel.unwrap_or_default();
        let peers = self.peers(&traffic.unwrap_or_default(), tunnel.as_ref());
        let (devices, omitted_networks) = self.devices();
        OverlayFigures {
            omitted_peers: peers.len().saturating_sub(MOST),
            peers: peers.into_iter().take(MOST).collect(),
            devices,
            omitted_networks,
            counted,
            tunnel: tunnel_answers.then(|| Tunnel {
                dropped: tunnel.map(|status| status.dropped).unwrap_or_default(),
            }),
        }
    }

    fn peers(
        &self,
        traffic: &BTreeMap<IpAddr, PeerTraffic>,
        tunnel: Option<&TunnelStatus>,
    ) -> Vec<Peer> {
        let (catalog, paths) = (self.catalog(), self.path_states());
        let times = ["vxlan", "encrypted"].map(|what| (what, self.tally.of(what)));
        let others = catalog.nodes.values();
        let others = others.filter(|node| node.id != self.node.id);
        let peers = others.map(|node| {
            let of_tunnel = tunnel.into_iter().flat_map(|status| &status.peers);
            let at = node.address.to_string();
            Peer {
                name: node.name.clone(),
                alive: catalog.alive.contains(&node.id),
                path: paths.get(&node.address).copied(),
                traffic: traffic.get(&node.address).copied(),
                tunnel: of_tunnel
                    .into_iter()
                    .find(|peer| peer.id == node.id)
                    .cloned(),
                around: times.each_ref().map(|(what, counts)| {
                    let active = self
                        .goes_around(node.address, *what == "encrypted")
                        .is_some();
                    (*what, active, counts.get(&at).copied().unwrap_or_default())
                }),
            }
        });
        peers.collect()
    }

    /// Of each network that leads to other hosts, its devices.
    fn devices(&self) -> (Vec<(String, String, NetworkStats)>, usize) {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let mut table = devices(&table);
        let mut found = Vec::new();
        let mut omitted = 0;
        for network in self.all_networks() {
            let Network::Mesh(record) = network else {
                continue;
            };
            for device in [vxlan_name(&record.id), fallback_name(&record.id)] {
                match table.remove(&device) {
                    Some(stats) if found.len() < MOST => {
                        found.push((record.name.clone(), device, stats));
                    }
                    Some(_) => omitted += 1,
                    None => {}
                }
            }
        }
        (found, omitted)
    }
}

impl OverlayFigures {
    pub(super) fn are_peers_counted(&self) -> bool {
        self.counted
    }

    pub(super) fn tunnel_answers(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.paths(encoder)?;
        self.around(encoder)?;
        self.traffic(encoder)?;
        self.tunnels(encoder)?;
        for way in &WAYS {
            let help = format!("Bytes that devices to other hosts {}", way.word);
            let name = format!("overlay_device_{}", way.word);
            let family = Family::counter(encoder, &name, &help, Some(&Unit::Bytes))?;
            self.each_device(family, |stats| (way.of)(stats).bytes)?;
            let help = format!(
                "Packets lost that devices to other hosts were to have {}",
                way.word
            );
            let name = format!("overlay_device_{}_dropped", way.word);
            let family = Family::counter(encoder, &name, &help, None)?;
            self.each_device(family, |stats| {
                let traffic = (way.of)(stats);
                traffic.dropped + traffic.errors
            })?;
        }
        Ok(())
    }

    fn each(&self, mut family: Family<'_>, value: impl Fn(&Peer) -> Option<u64>) -> fmt::Result {
        for peer in &self.peers {
            if let Some(value) = value(peer) {
                family.write(&[("peer", &peer.name)], value)?;
            }
        }
        Ok(())
    }

    fn paths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether a host's lease lives in the registry";
        self.each(gauge(encoder, "peer_alive", help)?, |peer| {
            Some(u64::from(peer.alive))
        })?;
        let help = "Whether VXLAN gets to a host and back; absent while that is not known";
        self.each(gauge(encoder, "overlay_peer_reachable", help)?, |peer| {
            peer.path?.reachable.map(u64::from)
        })?;
        let help = "Part of the last 32 probes that were not answered";
        let unit = Unit::Other("ratio".to_owned());
        let name = "overlay_peer_probe_loss";
        let mut loss = Family::new(encoder, name, help, Some(&unit), MetricType::Gauge)?;
        for (peer, path) in self.with_path() {
            let part = f64::from(path.lost) / f64::from(path.sent.max(1));
            loss.write_fraction(&[("peer", &peer.name)], part)?;
        }
        let (help, unit) = ("How long an answer takes, smoothed", Some(&Unit::Seconds));
        let name = "overlay_peer_round_trip";
        let mut trip = Family::new(encoder, name, help, unit, MetricType::Gauge)?;
        for (peer, path) in self.with_path() {
            if let Some(took) = path.round_trip {
                trip.write_fraction(&[("peer", &peer.name)], took.as_secs_f64())?;
            }
        }
        let help = "The greatest IP packet that gets to a host by the underlay";
        let (name, unit) = ("overlay_peer_path_mtu", Some(&Unit::Bytes));
        let mtu = Family::new(encoder, name, help, unit, MetricType::Gauge)?;
        self.each(mtu, |peer| peer.path?.mtu.map(u64::from))
    }

    fn with_path(&self) -> impl Iterator<Item = (&Peer, PathState)> {
        let peers = self.peers.iter();
        peers.filter_map(|peer| Some((peer, peer.path?)))
    }

    fn around(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether what is for a host goes around by TLS now";
        let mut active = gauge(encoder, "overlay_peer_fallback_active", help)?;
        for (peer, (carrier, is_active, _)) in self.ways_around() {
            let labels: [(&str, &str); 2] = [("peer", &peer.name), ("carrier", carrier)];
            active.write(&labels, u64::from(is_active))?;
        }
        let help = "Times what is for a host began to go around by TLS";
        let mut times = Family::counter(encoder, "overlay_peer_fallbacks", help, None)?;
        for (peer, (carrier, _, count)) in self.ways_around() {
            times.write(&[("peer", &peer.name), ("carrier", carrier)], count)?;
        }
        Ok(())
    }

    fn ways_around(&self) -> impl Iterator<Item = (&Peer, (&'static str, bool, u64))> {
        let peers = self.peers.iter();
        peers.flat_map(|peer| peer.around.map(|around| (peer, around)))
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let help = "Sent to a host by VXLAN, with its headers";
        let family = Family::counter(encoder, "overlay_peer_sent", help, unit)?;
        self.each(family, |peer| Some(peer.traffic?.sent_bytes))?;
        let help = "Received from a host by VXLAN, with its headers";
        let family = Family::counter(encoder, "overlay_peer_received", help, unit)?;
        self.each(family, |peer| Some(peer.traffic?.received_bytes))?;
        let help = "Packets sent to a host by VXLAN, those that are cut up later as one";
        let family = Family::counter(encoder, "overlay_peer_sent_packets", help, None)?;
        self.each(family, |peer| Some(peer.traffic?.sent_packets))?;
        let help = "Packets received from a host by VXLAN, those that were put together as one";
        let family = Family::counter(encoder, "overlay_peer_received_packets", help, None)?;
        self.each(family, |peer| Some(peer.traffic?.received_packets))
    }

    fn tunnels(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let help = "Sent to a host in encrypted networks";
        let family = Family::counter(encoder, "tunnel_peer_sent", help, unit)?;
        self.each(family, |peer| Some(peer.tunnel.as_ref()?.sent))?;
        let help = "Received from a host in encrypted networks";
        let family = Family::counter(encoder, "tunnel_peer_received", help, unit)?;
        self.each(family, |peer| Some(peer.tunnel.as_ref()?.received))?;
        let help = "Since a host and this one agreed on keys";
        let (name, unit) = ("tunnel_peer_handshake_age", Some(&Unit::Seconds));
        let family = Family::new(encoder, name, help, unit, MetricType::Gauge)?;
        self.each(family, |peer| peer.tunnel.as_ref()?.handshake)?;
        let unit = Some(&Unit::Bytes);
        let help = "Sent to a host by TLS";
        let family = Family::counter(encoder, "tunnel_peer_fallback_sent", help, unit)?;
        self.each(family, |peer| {
            Some(peer.tunnel.as_ref()?.fallback.as_ref()?.sent)
        })?;
        let help = "Received from a host by TLS";
        let family = Family::counter(encoder, "tunnel_peer_fallback_received", help, unit)?;
        self.each(family, |peer| {
            Some(peer.tunnel.as_ref()?.fallback.as_ref()?.received)
        })?;
        let help = "Packets for a host that were to go by TLS and were dropped";
        let family = Family::counter(encoder, "tunnel_peer_fallback_dropped", help, None)?;
        self.each(family, |peer| {
            Some(peer.tunnel.as_ref()?.fallback.as_ref()?.dropped)
        })?;
        let help = "Packets and connections that the tunnel dropped, by why";
        let mut dropped = Family::counter(encoder, "tunnel_dropped", help, None)?;
        for (reason, count) in self.tunnel.iter().flat_map(|tunnel| &tunnel.dropped) {
            dropped.write(&[("reason", reason)], *count)?;
        }
        Ok(())
    }

    fn each_device(
        &self,
        mut family: Family<'_>,
        value: impl Fn(&NetworkStats) -> u64,
    ) -> fmt::Result {
        for (network, device, stats) in &self.devices {
            family.write(&[("network", network), ("device", device)], value(stats))?;
        }
        Ok(())
    }
}
