//! What the kernel, the host's ambassador and its name server should do, worked out from what is known,
//! and brought there by difference.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Context;
use nuncio_overlay::{
    HostState, MacAddr, NamesDocument, Peer, Published, Reach, Segment, Subscriber, Vni, Vxlan,
    Zone, bridge_name, inner_mtu, mtu_of_address, vxlan_name,
};
use nuncio_registry::{Catalog, NetworkRecord};
use serde_json::{Value, json};

use super::config::{Port, Protocol};
use super::container::locked;
use super::files::Resolving;
use super::networks::Network;
use super::node::Identity;
use super::record::Record;
use super::{DEFAULT_BRIDGE, Daemon, LINK_TARGETS, ports, state_file};

/// One view of everything that decides what this host does, so that all parts agree.
struct Sight {
    catalog: std::sync::Arc<Catalog>,
    networks: Vec<Network>,
    /// Containers that run or are about to.
    active: Vec<Record>,
    mtu: u16,
}

impl Daemon {
    /// Brings kernel, ambassador and name server to what is wanted now.
    pub(crate) async fn sync(&self) -> anyhow::Result<()> {
        let mut kernel = self.kernel.lock().await;
        let sight = self.sight().await?;
        let report = kernel
            .reconcile(&self.host_state(&sight)?)
            .await
            .context("program the kernel")?;
        if report.changes() > 0 {
            tracing::debug!(?report, "kernel changed");
        }
        self.ambassador.configure(&self.forwards(&sight)).await?;
        self.ambassador.name(&self.names(&sight)).await
    }

    pub(super) async fn mtu(&self) -> anyhow::Result<u16> {
        let underlay = mtu_of_address(self.node.address).await?;
        Ok(inner_mtu(underlay, self.node.address.is_ipv6())?)
    }

    async fn sight(&self) -> anyhow::Result<Sight> {
        let containers = self.containers();
        let active = containers
            .iter()
            .filter(|container| container.is_active())
            .map(|container| container.view());
        let mtu = self.mtu().await?;
        Ok(Sight {
            active: active.collect(),
            catalog: self.catalog.borrow().clone(),
            networks: self.all_networks(),
            mtu,
        })
    }

    fn host_state(&self, sight: &Sight) -> anyhow::Result<HostState> {
        let mut segments = Vec::new();
        for network in &sight.networks {
            match network {
                Network::Local(network) => segments.push(Segment {
                    id: network.id.clone(),
                    bridge: bridge_name(&network.id),
                    adopted: false,
                    subnet: network.subnet,
                    blocks: vec![network.subnet],
                    vxlan: None,
                    peers: Vec::new(),
                    mtu: sight.mtu,
                    internal: network.internal,
                    icc: true,
                    reach: Reach::Routed,
                    local_addresses: Vec::new(),
                }),
                Network::Mesh(record) if !self.own_blocks(&record.id).is_empty() => {
                    segments.push(self.mesh_segment(sight, record, network.is_default())?);
                }
                Network::Mesh(_) => {} // no container of ours has been in it
            }
        }
        let published = sight.active.iter().flat_map(|record| {
            let target = published_target(record);
            record.published.iter().filter_map(move |published| {
                Some(Published {
                    protocol: overlay_protocol(published.port.protocol),
                    host_address: published.host_address,
                    host_port: published.host_port,
                    target: SocketAddrV4::new(target?, published.port.number),
                })
            })
        });
        Ok(HostState {
            segments,
            published: published.collect(),
        })
    }

    fn mesh_segment(
        &self,
        sight: &Sight,
        record: &NetworkRecord,
        default: bool,
    ) -> anyhow::Result<Segment> {
        let peers = sight
            .catalog
            .blocks_of(&record.id)
            .filter(|block| block.node != self.node.id);
        let peers = peers.filter_map(|block| {
            let node = sight.catalog.nodes.get(&block.node)?;
            Some(Peer {
                block: block.cidr,
                vtep: node.address,
                mac: MacAddr(node.mac),
            })
        });
        let exposed = sight.active.iter().flat_map(|container| {
            let address = container
                .endpoints
                .values()
                .find(|endpoint| endpoint.network_id == record.id);
            let address = address.map(|endpoint| endpoint.address);
            let ports = container.config.exposed.iter();
            ports.filter_map(move |port| {
                Some((address?, overlay_protocol(port.protocol), port.number))
            })
        });
        Ok(Segment {
            id: record.id.clone(),
            bridge: if default {
                DEFAULT_BRIDGE.into()
            } else {
                bridge_name(&record.id)
            },
            adopted: false,
            subnet: record.subnet,
            blocks: self.own_blocks(&record.id),
            vxlan: Some(Vxlan {
                link: vxlan_name(&record.id),
                vni: Vni::try_from(record.vni)?,
                local: self.node.address,
                port: self.options.vxlan_port,
                mac: MacAddr::of_node(&self.node.id),
            }),
            peers: peers.collect(),
            mtu: record.mtu.unwrap_or(u16::MAX).min(sight.mtu),
            internal: record.internal,
            icc: !default || self.options.icc,
            reach: if default {
                Reach::LinksOnly {
                    exposed: exposed.collect(),
                }
            } else {
                Reach::Routed
            },
            local_addresses: if default {
                self.link_addresses(&sight.active)
            } else {
                Vec::new()
            },
        })
    }

    /// The bridge's addresses at which the ambassador stands in for containers on other hosts.
    fn link_addresses(&self, active: &[Record]) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> =
            remote_links(active).map(|(_, address)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The configuration of the host's ambassador: links to other hosts, and published ports on loopback.
    fn forwards(&self, sight: &Sight) -> Value {
        let mut forwards = BTreeMap::new();
        for (target, address) in remote_links(&sight.active) {
            let endpoints = self.remote_endpoints(&sight.catalog, target);
            let known = sight
                .active
                .iter()
                .flat_map(|record| &record.links)
                .filter(|link| link.target == target);
            let mut ports: Vec<Port> = known.flat_map(|link| link.ports.clone()).collect();
            ports.extend(endpoints.iter().flat_map(|(_, ports)| ports.clone()));
            for port in ports {
                let name = format!("link/{target}/{port}");
                let to = endpoints
                    .iter()
                    .map(|(at, _)| format!("{at}:{}", port.number))
                    .collect();
                let to = self.last_known(&name, to);
                if to.is_empty() {
                    continue; // it has never been heard of
                }
                let listen = format!("{}://{address}:{}", port.protocol, port.number);
                forwards.insert(
                    name.clone(),
                    json!({ "name": name, "listen": listen, "to": to }),
                );
            }
        }
        self.forget_link_targets(&forwards);
        for record in &sight.active {
            let Some(target) = published_target(record) else {
                continue;
            };
            for published in &record.published {
                let name = ports::forward_name(published);
                let address = published.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let listen = format!(
                    "{}://{address}:{}",
                    published.port.protocol, published.host_port
                );
                let to = [format!("{target}:{}", published.port.number)];
                forwards.insert(
                    name.clone(),
                    json!({ "name": name, "listen": listen, "to": to }),
                );
            }
        }
        forwards.into_values().collect()
    }

    /// `found`, or what was found before when that is nothing: a host whose daemon is away for a while
    /// is not told from one that is gone, and its containers may well run.
    fn last_known(&self, forward: &str, found: Vec<String>) -> Vec<String> {
        let mut known = locked(&self.link_targets);
        if found.is_empty() || known.get(forward) == Some(&found) {
            return known.get(forward).cloned().unwrap_or_default();
        }
        known.insert(forward.to_owned(), found.clone());
        self.keep_link_targets(&known);
        found
    }

    /// Forgets where links led that are no more.
    fn forget_link_targets(&self, forwards: &BTreeMap<String, Value>) {
        let mut known = locked(&self.link_targets);
        let before = known.len();
        known.retain(|forward, _| forwards.contains_key(forward));
        if known.len() != before {
            self.keep_link_targets(&known);
        }
    }

    fn keep_link_targets(&self, known: &BTreeMap<String, Vec<String>>) {
        let path = self.options.data_root.join(LINK_TARGETS);
        if let Err(error) = state_file::write(&path, known) {
            tracing::warn!(
                error = format!("{error:#}"),
                "links may break if the next daemon starts without a registry"
            );
        }
    }

    /// Where a container of the default network runs on other hosts, and what it exposes.
    pub(super) fn remote_endpoints(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Vec<(Ipv4Addr, Vec<Port>)> {
        let Some(default) = self.default_network() else {
            return Vec::new();
        };
        let found = catalog.endpoints_in(&default.id);
        found
            .filter(|endpoint| endpoint.name == name && endpoint.node != self.node.id)
            .map(|endpoint| {
                (
                    endpoint.address,
                    endpoint.ports.iter().map(port_of).collect(),
                )
            })
            .collect()
    }

    /// The names that containers of user-defined networks resolve.
    fn names(&self, sight: &Sight) -> NamesDocument {
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let host = Resolving::parse(&host);
        let mut document = NamesDocument {
            upstreams: host
                .servers
                .iter()
                .map(|server| SocketAddr::new(*server, 53))
                .collect(),
            ..NamesDocument::default()
        };
        for network in sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
        {
            document
                .zones
                .insert(network.id().to_owned(), self.zone(sight, network));
        }
        for record in &sight.active {
            document
                .subscribers
                .extend(self.subscriber(sight, record, &document.zones));
        }
        document
    }

    fn zone(&self, sight: &Sight, network: &Network) -> Zone {
        let mut zone = Zone {
            domain: Some(network.name().to_owned()),
            ..Zone::default()
        };
        let mut add = |address: Ipv4Addr, id: &str, name: &str, aliases: &[String]| {
            let short = id.get(..12).unwrap_or(id).to_owned();
            for name in [name.to_owned(), short]
                .into_iter()
                .chain(aliases.iter().cloned())
            {
                let addresses = zone.names.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            zone.reverse.insert(address, name.to_owned());
        };
        for record in &sight.active {
            for endpoint in record
                .endpoints
                .values()
                .filter(|endpoint| endpoint.network_id == network.id())
            {
                add(
                    endpoint.address,
                    &record.id,
                    &record.name,
                    &endpoint.aliases,
                );
            }
        }
        let elsewhere = sight
            .catalog
            .endpoints_in(network.id())
            .filter(|endpoint| endpoint.node != self.node.id);
        for endpoint in elsewhere {
            add(
                endpoint.address,
                &endpoint.id,
                &endpoint.name,
                &endpoint.aliases,
            );
        }
        zone
    }

    fn subscriber(
        &self,
        sight: &Sight,
        record: &Record,
        zones: &BTreeMap<String, Zone>,
    ) -> Option<Subscriber> {
        let networks: Vec<&Network> = sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
            .filter(|network| {
                record
                    .endpoints
                    .values()
                    .any(|endpoint| endpoint.network_id == network.id())
            })
            .collect();
        if networks.is_empty() {
            return None;
        }
        let mut aliases = BTreeMap::new();
        for link in record
            .config
            .host
            .links
            .iter()
            .chain(record.config.endpoints.values().flat_map(|e| &e.links))
        {
            let found = networks
                .iter()
                .find_map(|network| zones.get(network.id())?.names.get(&link.target));
            aliases.extend(found.map(|addresses| (link.alias.clone(), addresses.clone())));
        }
        Some(Subscriber {
            id: record.id.clone(),
            netns: self.options.exec_root.join("netns").join(&record.id),
            external: networks.iter().any(|network| !network.internal()),
            networks: networks
                .into_iter()
                .map(|network| network.id().to_owned())
                .collect(),
            aliases,
        })
    }

    /// Tells other hosts of a container that runs.
    pub(super) fn publish(&self, record: &Record) {
        let local = locked(&self.local_networks).clone();
        for endpoint in registrations(record, &self.node, |network| local.contains_key(network)) {
            self.presence.publish(endpoint);
        }
    }

    /// Drops what is left of networks that the registry says are gone.
    pub(super) async fn forget_removed_networks(&self) -> anyhow::Result<()> {
        let known: Vec<String> = locked(&self.blocks).keys().cloned().collect();
        let catalog = self.catalog.borrow().clone();
        let missing: Vec<String> = known
            .into_iter()
            .filter(|id| !catalog.networks.contains_key(id))
            .collect();
        if missing.is_empty() || catalog.stale.is_some() {
            return Ok(());
        }
        let there = self.registry.networks().await?;
        for id in missing
            .iter()
            .filter(|id| !there.iter().any(|network| network.id == **id))
        {
            self.forget_network(id)?;
        }
        Ok(())
    }
}

/// What other hosts should know of a container: its place in each of the mesh's networks.
pub(super) fn registrations(
    record: &Record,
    node: &Identity,
    is_local: impl Fn(&str) -> bool,
) -> Vec<nuncio_registry::EndpointRecord> {
    let endpoints = record
        .endpoints
        .values()
        .filter(|endpoint| !is_local(&endpoint.network_id));
    endpoints
        .map(|endpoint| nuncio_registry::EndpointRecord {
            network: endpoint.network_id.clone(),
            id: record.id.clone(),
            name: record.name.clone(),
            node: node.id.clone(),
            node_name: node.name.clone(),
            address: endpoint.address,
            aliases: endpoint.aliases.clone(),
            ports: record.config.exposed.iter().map(record_of).collect(),
            labels: record.config.labels.clone(),
        })
        .collect()
}

fn remote_links(active: &[Record]) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    let links = active.iter().flat_map(|record| &record.links);
    links
        .filter(|link| link.remote)
        .map(|link| (link.target.as_str(), link.address))
}

/// The address that a container's published ports lead to.
fn published_target(record: &Record) -> Option<Ipv4Addr> {
    record
        .endpoints
        .values()
        .map(|endpoint| endpoint.address)
        .next()
}

fn overlay_protocol(protocol: Protocol) -> nuncio_overlay::Protocol {
    match protocol {
        Protocol::Tcp => nuncio_overlay::Protocol::Tcp,
        Protocol::Udp => nuncio_overlay::Protocol::Udp,
    }
}

fn record_of(port: &Port) -> nuncio_registry::PortRecord {
    let protocol = match port.protocol {
        Protocol::Tcp => nuncio_registry::Protocol::Tcp,
        Protocol::Udp => nuncio_registry::Protocol::Udp,
    };
    nuncio_registry::PortRecord {
        port: port.number,
        protocol,
    }
}

fn port_of(port: &nuncio_registry::PortRecord) -> Port {
    let protocol = match port.protocol {
        nuncio_registry::Protocol::Tcp => Protocol::Tcp,
        nuncio_registry::Protocol::Udp => Protocol::Udp,
    };
    Port {
        number: port.port,
        protocol,
    }
}
