//! What the ambassador of a gateway carries: from other meshes to what is lent, and to them what is borrowed.

use std::net::{IpAddr, SocketAddr};

use nuncio_ambassador::spec::{EdgeSpec, TlsSpec};
use nuncio_ambassador::{
    Allowed, Balance, ForwardSpec, Host, Limits, Listen, Protocol, Target, TlsFiles, TlsSide,
};
use nuncio_mesh::{Lent, PinnedGateway};
use nuncio_registry::Upstream;

use super::Peers;
use crate::daemon::Daemon;
use crate::daemon::config::{Port, Protocol as Transport};
use crate::daemon::container::locked;
use crate::daemon::plane::Sight;
use crate::daemon::registered::{Registered, fit};

const IS_RELAYED: &str = "it crosses a gateway between meshes";

impl Daemon {
    /// The gateway's part of the ambassador's configuration; what is lent is told to others too.
    pub(in crate::daemon) fn gateway_forwards(&self, sight: &Sight) -> Vec<ForwardSpec> {
        let Some(peers) = &self.peers else {
            return Vec::new();
        };
        let near = self.reachable(&sight.networks, self.registered(&sight.catalog));
        let services = fit(&near);
        let state = locked(&peers.state).clone();
        // With itself among them, so that the last one who is forgotten is cut off by what is left.
        let own = peers.gateway.pinned();
        let borrowers = state.borrowers.iter().map(|borrower| &borrower.pinned);
        let allow = allowed(borrowers.chain([&own]));
        let (mut specs, mut lent) = (Vec::new(), Vec::new());
        for (name, port) in &state.lends {
            let places = services.get(name.as_str()).map_or(&[][..], |places| places);
            let to = hosts(places);
            if to.is_empty() {
                continue; // there is nothing to lend now
            }
            lent.push(Lent {
                name: name.clone(),
                tags: tags(places),
                port: *port,
            });
            let tls = peers.tls(TlsSide::Terminate, "borrowers", allow.clone());
            let at = SocketAddr::new(peers.address.ip(), *port);
            specs.push(forward(format!("lend/{name}"), at, to, tls));
        }
        peers.lent.send_if_modified(|known| {
            let changed = **known != lent;
            if changed {
                *known = lent.into();
            }
            changed
        });
        for ((mesh, service), lenders) in state.borrowed() {
            let name = format!("{service}.{mesh}");
            let Some(port) = state.ports.get(&name) else {
                continue;
            };
            let allow = allowed(lenders.iter().map(|(lender, _)| &lender.pinned));
            let to = lenders
                .iter()
                .map(|(lender, lent)| Host::new(lender.address.ip().to_string(), lent.port));
            let tls = peers.tls(TlsSide::Originate, mesh, allow);
            let at = SocketAddr::new(self.node.address, *port);
            specs.push(forward(format!("borrow/{name}"), at, to.collect(), tls));
        }
        specs
    }
}

impl Peers {
    fn tls(&self, side: TlsSide, bundle: &str, allow: Vec<Allowed>) -> TlsSpec {
        let own = self.gateway.file().to_owned();
        TlsSpec {
            side,
            files: TlsFiles {
                certificate: own.clone(),
                key: own,
                bundle: self.bundle(bundle),
            },
            allow,
            server_name: None,
        }
    }
}

fn allowed<'a>(pinned: impl Iterator<Item = &'a PinnedGateway>) -> Vec<Allowed> {
    pinned
        .filter_map(|pinned| pinned.identity.parse().ok())
        .collect()
}

/// Where a service answers by TCP, at the first port that each place has.
fn hosts(places: &[&Registered]) -> Vec<Host> {
    let host = |place: &&Registered| {
        let mut ports: Vec<_> = place.ports.iter().collect();
        ports.sort();
        let tcp = |port: &&&Port| port.protocol == Transport::Tcp;
        let port = ports.iter().find(tcp)?;
        Some(Host::new(place.host.clone(), port.number))
    };
    places.iter().filter_map(host).collect()
}

fn tags(places: &[&Registered]) -> Vec<String> {
    const MOST: usize = 16;
    let mut tags: Vec<String> = places.iter().flat_map(|place| place.tags.clone()).collect();
    tags.sort();
    tags.dedup();
    tags.truncate(MOST);
    tags
}

fn forward(name: String, at: SocketAddr, to: Vec<Host>, tls: TlsSpec) -> ForwardSpec {
    ForwardSpec {
        name,
        listen: Listen {
            protocol: Protocol::Tcp,
            address: at,
            only_v6: at.is_ipv6(),
        },
        target: Target::Host(to),
        limits: Limits::default(),
        edge: EdgeSpec {
            tls: Some(tls),
            ..EdgeSpec::default()
        },
        balance: Balance::default(),
        direct: Vec::new(),
        not_direct: Some(IS_RELAYED.to_owned()),
    }
}

/// Where this host's own ambassador leads to what is borrowed.
pub(super) fn upstream(address: IpAddr, port: u16) -> Upstream {
    Upstream {
        host: address.to_string(),
        port,
        weight: std::num::NonZeroU16::MIN,
    }
}
