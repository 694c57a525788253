//! The way around: hosts to which VXLAN does not get through are sent what is for them by TLS, by the host's tunnel.
//!
//! Each host decides for what it sends itself. The tunnel decides for encrypted networks, and is only asked how they go.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nuncio_overlay::{Fallback, Gate, can_make_tun, fallback_name};
use nuncio_registry::{Catalog, FallbackRecord, NetworkRecord, NodeRecord};
use nuncio_tunnel::{FallbackDocument, KeyRing, LinkDocument};

use super::container::locked;
use super::networks::Network;
use super::plane::Sight;
use super::sealing::is_sealed;
use super::{Daemon, state_file};

/// File that remembers to whom it is gone around, so that a daemon's start is no change of ways.
const AROUND: &str = "fallbacks.json";

/// Hosts, by their underlay addresses.
type Hosts = BTreeSet<IpAddr>;

/// Who is gone around to, and who does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Around {
    /// VXLAN is blocked to them: the tunnel is to connect to them.
    wanted: Hosts,
    /// What is for them goes around. Once so, it stays so for as long as it is wanted.
    to: Hosts,
    /// It did a moment ago.
    leaving: Hosts,
    heard: Heard,
    /// The tunnel, which may be an earlier daemon's, has been asked.
    has_heard: bool,
}

/// What the host's tunnel says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Heard {
    /// They take what comes by TLS.
    connected: Hosts,
    /// They send by TLS.
    from: Hosts,
    /// What is encrypted for them goes by TLS. Once so, it stays so for as long as it does not get there otherwise.
    sealed: Hosts,
}

impl Around {
    /// Goes on with what the last daemon left.
    pub(super) fn begun(to: Hosts) -> Self {
        Self {
            to,
            ..Self::default()
        }
    }

    /// With whom this host has to do by TLS.
    fn concerned(&self) -> Hosts {
        let all = [&self.wanted, &self.to, &self.leaving, &self.heard.from];
        all.into_iter().flatten().copied().collect()
    }
}

/// To whom it was gone around when the last daemon ended.
pub(super) fn read(data_root: &Path) -> anyhow::Result<Hosts> {
    Ok(state_file::read(&data_root.join(AROUND))?.unwrap_or_default())
}

impl Daemon {
    /// What other hosts are told of the way around to this one.
    pub(super) fn fallback_record(&self, ring: &KeyRing) -> Option<FallbackRecord> {
        let keys = ring.identity_keys();
        let mut keys = keys.iter().map(ToString::to_string);
        Some(FallbackRecord {
            port: self.options.fallback_port,
            key: keys.next()?,
            former: keys.next(),
        })
    }

    /// Decides anew to whom it is gone around.
    pub(super) fn weigh_fallback(&self) {
        let catalog = self.catalog();
        let peers = self.plain_peers(&catalog);
        let wanted = peers.filter(|node| is_able(node) && self.paths.is_blocked(node.address));
        let mut wanted: Hosts = wanted.map(|node| node.address).collect();
        if !wanted.is_empty()
            && let Err(error) = can_make_tun()
        {
            tracing::debug!(%error, "nothing can go around VXLAN");
            wanted.clear();
        }
        let (before, now) = {
            let mut around = locked(&self.around);
            let before = around.clone();
            let ready = &before.to | &before.heard.connected;
            around.to = &wanted & &ready;
            around.leaving = &before.to - &around.to;
            around.wanted = wanted;
            (before, around.clone())
        };
        self.tell_around("vxlan", &before.to, &now.to);
        let path = self.options.data_root.join(AROUND);
        if before.to != now.to
            && let Err(error) = state_file::write_unsynced(&path, &now.to)
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "remember to whom it is gone around"
            );
        }
    }

    /// Asks the tunnel, and tells whether it says something new.
    pub(super) async fn look_at_fallback(&self) -> bool {
        let status = match self.tunnel.status().await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "ask the host's tunnel");
                return false;
            }
        };
        let before = locked(&self.around).heard.clone();
        let mut heard = Heard::default();
        let peers = status.iter().flat_map(|status| &status.peers);
        for fallback in peers.filter_map(|peer| peer.fallback.as_ref()) {
            let host = fallback.endpoint.ip();
            let went = fallback.connected || before.sealed.contains(&host);
            for (holds, hosts) in [
                (fallback.connected, &mut heard.connected),
                (fallback.serving, &mut heard.from),
                (fallback.blocked && went, &mut heard.sealed),
            ] {
                hosts.extend(holds.then_some(host));
            }
        }
        let had_heard = {
            let mut around = locked(&self.around);
            around.heard = heard.clone();
            std::mem::replace(&mut around.has_heard, true)
        };
        // Without a tunnel nothing is encrypted, and so nothing is told of how that goes.
        if had_heard && status.is_some() {
            self.tell_around("encrypted", &before.sealed, &heard.sealed);
        }
        before != heard
    }

    fn tell_around(&self, what: &'static str, before: &Hosts, now: &Hosts) {
        for vtep in now - before {
            tracing::warn!(address = %vtep, what, "does not get through: goes by TLS from now on");
            self.tally.count(what, &vtep.to_string());
            let ways = ["its own way", "by TLS"];
            let what = [("what", what.to_owned())];
            self.tell_of_path("fallback", vtep, "it does not get through", ways, what);
        }
        for vtep in before - now {
            tracing::info!(address = %vtep, what, "goes its own way again");
            let ways = ["by TLS", "its own way"];
            let what = [("what", what.to_owned())];
            self.tell_of_path("restored", vtep, "it gets through again", ways, what);
        }
    }

    /// By which port of TCP what is for a host goes around, if it does and gets there.
    pub(super) fn goes_around(&self, vtep: IpAddr, sealed: bool) -> Option<u16> {
        let around = locked(&self.around);
        let hosts = if sealed {
            &around.heard.sealed
        } else {
            &around.to
        };
        if !hosts.contains(&vtep) || !around.heard.connected.contains(&vtep) {
            return None;
        }
        let catalog = self.catalog();
        let node = catalog.nodes.values().find(|node| node.address == vtep)?;
        node.fallback.as_ref().map(|record| record.port)
    }

    /// Whether the host's tunnel has something to carry.
    pub(super) fn is_tunnelling(&self) -> bool {
        !locked(&self.around).concerned().is_empty() || self.is_sealing()
    }

    /// Who may connect to the host's tunnel, while there is one.
    pub(super) fn fallback_gate(&self, catalog: &Catalog) -> Option<Gate> {
        let others = catalog.nodes.values();
        let others = others.filter(|node| node.id != self.node.id && is_able(node));
        self.is_tunnelling().then(|| Gate {
            port: self.options.fallback_port,
            peers: others.map(|node| node.address).collect(),
        })
    }

    /// The way around for a network, if this host has to do with it.
    pub(super) fn fallback_of(
        &self,
        network: &NetworkRecord,
        catalog: &Catalog,
    ) -> Option<Fallback> {
        let around = locked(&self.around).clone();
        let concerned = around.concerned();
        let is_theirs = |node: &NodeRecord| concerned.contains(&node.address);
        let is_wanted = !is_sealed(network) && self.others_in(network, catalog).any(is_theirs);
        is_wanted.then(|| Fallback {
            link: fallback_name(&network.id),
            to: around.to,
        })
    }

    /// The same, as the host's tunnel takes it.
    pub(super) fn fallback_link(&self, network: &Network, sight: &Sight) -> Option<LinkDocument> {
        let Network::Mesh(record) = network else {
            return None;
        };
        let fallback = self.fallback_of(record, &sight.catalog)?;
        Some(LinkDocument {
            name: fallback.link,
            subnets: record.subnets().collect(),
            mtu: network.mtu(sight.mtu),
            sealed: false,
        })
    }

    /// How the host's tunnel gets around to another host.
    pub(super) fn fallback_to(&self, node: &NodeRecord) -> Option<FallbackDocument> {
        let record = node.fallback.as_ref()?;
        match record.key.parse() {
            Ok(key) => Some(FallbackDocument {
                endpoint: SocketAddr::new(node.address, record.port),
                key,
                former: record.former.as_ref().and_then(|key| key.parse().ok()),
                wanted: locked(&self.around).wanted.contains(&node.address),
            }),
            Err(error) => {
                tracing::warn!(node = node.name, key = record.key, %error, "a key of another host");
                None
            }
        }
    }

    /// The hosts that share a network with this one that is not encrypted.
    fn plain_peers<'c>(&self, catalog: &'c Catalog) -> impl Iterator<Item = &'c NodeRecord> {
        let networks = self.all_networks();
        let mut peers: Vec<_> = networks
            .iter()
            .filter_map(|network| match network {
                Network::Mesh(record) if !is_sealed(record) => Some(record),
                _ => None,
            })
            .flat_map(|record| self.others_in(record, catalog))
            .collect();
        peers.sort_by(|one, other| one.id.cmp(&other.id));
        peers.dedup_by(|one, other| one.id == other.id);
        peers.into_iter()
    }

    /// The other hosts that have a part of a network, if this one has.
    fn others_in<'c>(
        &self,
        network: &NetworkRecord,
        catalog: &'c Catalog,
    ) -> impl Iterator<Item = &'c NodeRecord> + use<'c> {
        let (own, has_part) = (self.node.clone(), !self.own_blocks(&network.id).is_empty());
        let blocks: Vec<_> = catalog.blocks_of(&network.id).collect();
        let nodes = blocks.into_iter().filter(move |_| has_part);
        let nodes = nodes.filter_map(|block| catalog.nodes.get(&block.node));
        // A host that is gone had our address.
        let nodes = nodes.filter(move |node| node.id != own.id && node.address != own.address);
        nodes.map(|node| &**node)
    }
}

/// Whether the host takes what goes around.
fn is_able(node: &NodeRecord) -> bool {
    node.fallback.is_some()
}
