//! What the host's ambassador should carry: links to other hosts, services, and published ports on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nuncio_ambassador::spec::EdgeSpec;
use nuncio_ambassador::{Balance, ForwardSpec, Host, Limits, Listen, Target};

use super::config::{Port, Protocol};
use super::container::locked;
use super::plane::Sight;
use super::record::{Link, PublishedPort, Record};
use super::refusal::Refusal;
use super::services::Service;
use super::{Daemon, LINK_TARGETS, ports, state_file};

const LINK_LEADS_OUT: &str = "the target of the link is no container of this mesh";
const PORT_IS_TRANSLATED: &str =
    "it came to a published port over IPv6, and the container has IPv4 alone";
const PORT_IS_RELAYED: &str = "it came to a published port by this host's loopback";

impl Daemon {
    /// The configuration of the host's ambassador.
    pub(super) fn forwards(&self, sight: &Sight) -> Vec<ForwardSpec> {
        let mut forwards = BTreeMap::new();
        for link in remote_links(&sight.active) {
            let (target, address) = (&link.target, link.address);
            let endpoints = self.remote_endpoints(&sight.catalog, target);
            let links = sight.active.iter().flat_map(|record| &record.links);
            let known = links.filter(|link| link.target == *target);
            let mut ports: BTreeSet<Port> = known.flat_map(|link| link.ports.clone()).collect();
            ports.extend(endpoints.iter().flat_map(|(_, ports)| ports.clone()));
            for port in ports {
                let plain = if link.plain { "/plain" } else { "" };
                let name = format!("link/{target}{plain}/{port}");
                let outside = match endpoints.is_empty() {
                    true => Self::outside_hosts(&sight.catalog, target, port.number),
                    false => Vec::new(),
                };
                if !outside.is_empty() {
                    let mut spec = forward(name.clone(), (address, port), &[], port);
                    spec.target = Target::Host(outside);
                    spec.not_direct = Some(LINK_LEADS_OUT.to_owned());
                    forwards.insert(name, spec);
                    continue;
                }
                let at = self.last_known(&name, endpoints.iter().map(|(at, _)| *at).collect());
                if !at.is_empty() {
                    let way = self.link_way(sight, link, port, at);
                    let number = way.port;
                    let there = Port { number, ..port };
                    let spec = ForwardSpec {
                        edge: way.edge,
                        not_direct: Some(way.why),
                        ..forward(name.clone(), (address, port), &way.to, there)
                    };
                    forwards.insert(name, spec);
                }
            }
        }
        self.forget_link_targets(&forwards);
        let doors = self.link_door(sight).into_iter();
        forwards.extend(doors.map(|spec| (spec.name.clone(), spec)));
        for service in &sight.services {
            let specs = self.service_forwards(sight, service).into_iter();
            forwards.extend(specs.map(|spec| (spec.name.clone(), spec)));
        }
        let ingress = self.ingress_forwards(sight).into_iter();
        forwards.extend(ingress.map(|spec| (spec.name.clone(), spec)));
        let gateway = self.gateway_forwards(sight).into_iter();
        forwards.extend(gateway.map(|spec| (spec.name.clone(), spec)));
        for record in &sight.active {
            for published in &record.published {
                let Some(target) = published_target(record, published) else {
                    continue;
                };
                let name = ports::forward_name(published);
                let address = published.at();
                let number = published.host_port;
                let host = Port {
                    number,
                    ..published.port
                };
                let mut spec = forward(name.clone(), (address, host), &[target], published.port);
                let reason = match (address, target) {
                    (IpAddr::V6(_), IpAddr::V4(_)) => PORT_IS_TRANSLATED,
                    _ => PORT_IS_RELAYED,
                };
                spec.not_direct = Some(reason.to_owned());
                forwards.insert(name, spec);
            }
        }
        forwards.into_values().collect()
    }

    /// Keeps in mind what the ambassador cannot listen on, and tells once of each. It is tried again with every
    /// comparison, and all else is served meanwhile.
    pub(super) fn note_unserved(&self, unserved: BTreeMap<String, String>) {
        let mut known = locked(&self.unserved);
        for (forward, error) in &unserved {
            if !known.contains_key(forward) {
                tracing::warn!(forward, error, "not served");
            }
        }
        for forward in known.keys().filter(|known| !unserved.contains_key(*known)) {
            tracing::info!(forward, "served again, or not wanted any more");
        }
        *known = unserved;
    }

    /// Refuses a start whose published ports somebody else has.
    pub(super) fn require_ports(&self, record: &Record) -> Result<(), Refusal> {
        let unserved = locked(&self.unserved);
        let names = record.published.iter().map(ports::forward_name);
        let mut errors = names.filter_map(|name| unserved.get(&name));
        errors
            .next()
            .map_or(Ok(()), |error| Err(Refusal::conflict(error)))
    }

    /// A service's address leads to its containers, straight where that can be.
    fn service_forwards(&self, sight: &Sight, service: &Service) -> Vec<ForwardSpec> {
        let Some(address) = service.address else {
            return Vec::new();
        };
        let direct = self.cgroups(sight, service);
        let spec = |port: Port| {
            let name = format!("service/{}/{}/{port}", service.network_name, service.name);
            ForwardSpec {
                balance: Balance {
                    check: service.check(port),
                    ..Balance::default()
                },
                direct: direct.clone(),
                not_direct: self.not_direct(sight),
                target: Target::Host(service.at(port)),
                ..forward(name, (address, port), &[], port)
            }
        };
        service.ports().into_iter().map(spec).collect()
    }

    /// `found`, or what was found before when that is nothing: a host whose daemon is away for a while
    /// is not told from one that is gone, and its containers may well run.
    fn last_known(&self, forward: &str, found: Vec<Ipv4Addr>) -> Vec<Ipv4Addr> {
        let mut known = locked(&self.link_targets);
        if found.is_empty() || known.get(forward) == Some(&found) {
            return known.get(forward).cloned().unwrap_or_default();
        }
        known.insert(forward.to_owned(), found.clone());
        self.keep_link_targets(&known);
        found
    }

    /// Forgets where links led that are no more.
    fn forget_link_targets(&self, forwards: &BTreeMap<String, ForwardSpec>) {
        let mut known = locked(&self.link_targets);
        let before = known.len();
        known.retain(|forward, _| forwards.contains_key(forward));
        if known.len() != before {
            self.keep_link_targets(&known);
        }
    }

    fn keep_link_targets(&self, known: &BTreeMap<String, Vec<Ipv4Addr>>) {
        let path = self.options.data_root.join(LINK_TARGETS);
        if let Err(error) = state_file::write(&path, known) {
            tracing::warn!(
                error = format!("{error:#}"),
                "links may break if the next daemon starts without a registry"
            );
        }
    }
}

pub(super) fn forward<A: Copy + Into<IpAddr>>(
    name: String,
    at: (A, Port),
    to: &[A],
    port: Port,
) -> ForwardSpec {
    let (address, own) = (at.0.into(), at.1);
    let protocol = match own.protocol {
        Protocol::Tcp => nuncio_ambassador::Protocol::Tcp,
        Protocol::Udp => nuncio_ambassador::Protocol::Udp,
    };
    let address = SocketAddr::from((address, own.number));
    ForwardSpec {
        name,
        listen: Listen {
            protocol,
            address,
            only_v6: address.is_ipv6(),
        },
        target: Target::Host(
            to.iter()
                .map(|to| Host::new((*to).into().to_string(), port.number))
                .collect(),
        ),
        limits: Limits::default(),
        edge: EdgeSpec::default(),
        balance: Balance::default(),
        direct: Vec::new(),
        not_direct: None,
    }
}

/// The links to other hosts, at whose addresses the ambassador stands in.
pub(super) fn remote_links(active: &[Record]) -> impl Iterator<Item = &Link> {
    let links = active.iter().flat_map(|record| &record.links);
    links.filter(|link| link.remote)
}

/// The address that a container's published port leads to: that by which it reaches the world, of the family that the port
/// is asked at if it has one, else of IPv4. One of internal networks alone is reached by nobody outside.
pub(super) fn published_target(record: &Record, published: &PublishedPort) -> Option<IpAddr> {
    let v6 = || Some(record.way_out_v6()?.1.v6?.address.into());
    let v4 = || Some(record.way_out()?.1.address.into());
    match published.at() {
        IpAddr::V4(_) => v4(),
        IpAddr::V6(_) => v6().or_else(v4),
    }
}
