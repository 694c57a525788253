//! What the kernel should hold for this host: segments and published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nuncio_overlay::{
    Carrier, HostAccess, HostState, Linked, MacAddr, Member, Peer, Published, Reach, Segment, Vni,
    Vxlan, veth_name, vxlan_name,
};
use nuncio_registry::NetworkRecord;

use super::config::{Port, Protocol};
use super::forwards::{published_target, remote_links};
use super::networks::{DEFAULT_NETWORK, Network};
use super::plane::{Sight, port_of};
use super::record::{Endpoint, Record};
use super::sealing::is_sealed;
use super::{Daemon, outfit};

impl Daemon {
    pub(super) fn host_state(&self, sight: &Sight) -> anyhow::Result<HostState> {
        let mut segments = Vec::new();
        for wanted in &sight.networks {
            match wanted {
                Network::Local(network)
                    if network.adopted && !sight.bridges.contains_key(&network.id) => {}
                Network::Local(network) => segments.push(Segment {
                    id: network.id.clone(),
                    bridge: wanted.bridge(),
                    adopted: network.adopted,
                    subnets: network.pools().iter().map(|pool| pool.subnet).collect(),
                    blocks: network.pools().iter().map(|pool| pool.subnet).collect(),
                    vxlan: None,
                    peers: Vec::new(),
                    mtu: wanted.mtu(sight.mtu),
                    internal: network.internal,
                    masquerade: wanted.options().masquerade,
                    icc: self.icc(wanted),
                    linked: self.linked(sight, wanted),
                    reach: Reach::Routed,
                    local_addresses: service_addresses(sight, &network.id),
                    members: members(&sight.active, &network.id),
                    host_access: match network.adopted {
                        true => HostAccess::All,
                        false => self.host_access(&sight.active, &network.id),
                    },
                }),
                Network::Mesh(record) if !self.own_blocks(&record.id).is_empty() => {
                    segments.push(self.mesh_segment(sight, record, wanted)?);
                }
                Network::Mesh(_) => {} // no container of ours has been in it
            }
        }
        let published = sight.active.iter().flat_map(|record| {
            record.published.iter().filter_map(move |published| {
                let target = published_target(record, published)?;
                // Between the families the ambassador carries.
                let same = target.is_ipv4() == published.at().is_ipv4();
                same.then(|| Published {
                    protocol: overlay_protocol(published.port.protocol),
                    host_address: published.host_address,
                    host_port: published.host_port,
                    target: SocketAddr::new(target, published.port.number),
                })
            })
        });
        Ok(HostState {
            segments,
            published: published.collect(),
            fallback: self.fallback_gate(&sight.catalog),
            shortcut: self.options.shortcut,
        })
    }

    fn mesh_segment(
        &self,
        sight: &Sight,
        record: &NetworkRecord,
        network: &Network,
    ) -> anyhow::Result<Segment> {
        let (default, icc) = (network.is_default(), self.icc(network));
        let sealed = is_sealed(record);
        let mtu = network.mtu(if sealed { sight.sealed_mtu } else { sight.mtu });
        let peers = sight
            .catalog
            .blocks_of(&record.id)
            .filter(|block| block.node != self.node.id);
        let peers = peers.filter_map(|block| {
            let node = sight.catalog.nodes.get(&block.node)?;
            if node.address == self.node.address {
                return None; // a host that is gone had our address: what it had is not here
            }
            Some(Peer {
                block: block.cidr,
                vtep: node.address,
                mac: MacAddr(node.mac),
                mtu: self.narrower(node.address, mtu, sealed),
            })
        });
        let peers: Vec<_> = peers.collect();
        let exposed = sight.active.iter().flat_map(|container| {
            let addresses = within(container, &record.id)
                .into_iter()
                .flat_map(Endpoint::addresses);
            addresses.flat_map(|address| {
                let ports = container.config.exposed.iter();
                ports.map(move |port| (address, overlay_protocol(port.protocol), port.number))
            })
        });
        Ok(Segment {
            id: record.id.clone(),
            bridge: network.bridge(),
            adopted: false,
            subnets: record.subnets().collect(),
            blocks: self.own_blocks(&record.id),
            vxlan: Some(Vxlan {
                carrier: if sealed {
                    Carrier::Sealed
                } else {
                    Carrier::Vxlan
                },
                link: vxlan_name(&record.id),
                vni: Vni::try_from(record.vni)?,
                local: self.node.address,
                port: self.options.vxlan_port,
                mac: MacAddr::of_node(&self.node.id),
                fallback: self.fallback_of(record, &sight.catalog),
                offload: self.offload(&peers),
            }),
            peers,
            mtu,
            internal: record.internal,
            masquerade: network.options().masquerade,
            icc,
            linked: self.linked(sight, network),
            reach: match (default, icc) {
                (true, _) => Reach::LinksOnly {
                    exposed: exposed.collect(),
                    door: self.kernel_door(&sight.catalog, &record.id),
                },
                (false, true) => Reach::Routed,
                (false, false) => Reach::Linked {
                    exposed: exposed.collect(),
                },
            },
            local_addresses: if default {
                self.link_addresses(&sight.active)
            } else {
                service_addresses(sight, &record.id)
            },
            members: members(&sight.active, &record.id),
            host_access: self.host_access(&sight.active, &record.id),
        })
    }

    /// Whether a network's containers reach each other without a link.
    pub(super) fn icc(&self, network: &Network) -> bool {
        match network.is_default() {
            true => self.options.icc,
            false => network.options().icc,
        }
    }

    /// What links open between a network's containers that are kept apart otherwise.
    fn linked(&self, sight: &Sight, network: &Network) -> Vec<Linked> {
        match (self.icc(network), network.is_default()) {
            (true, _) => Vec::new(),
            (false, true) => linked(&sight.active),
            (false, false) => self.linked_by_name(sight, network.id()),
        }
    }

    /// Links of user-defined networks are names, which may be those of containers on other hosts.
    fn linked_by_name(&self, sight: &Sight, network: &str) -> Vec<Linked> {
        let servers = self.servers_by_name(sight, network);
        let mut linked = Vec::new();
        for record in &sight.active {
            let Some(client) = within(record, network) else {
                continue;
            };
            let further = record.config.endpoints.values();
            let links = record.config.host.links.iter();
            for link in links.chain(further.flat_map(|endpoint| &endpoint.links)) {
                for (server, ports) in servers.get(link.target.as_str()).into_iter().flatten() {
                    let mut clients = client.addresses();
                    let client = clients.find(|client| client.is_ipv4() == server.is_ipv4());
                    linked.extend(ports.iter().filter_map(|port| {
                        Some(Linked {
                            client: client?,
                            server: *server,
                            protocol: overlay_protocol(port.protocol),
                            port: port.number,
                        })
                    }));
                }
            }
        }
        linked.sort_unstable();
        linked.dedup();
        linked
    }

    /// The addresses of a network's containers and the ports that they expose, by each of their names.
    fn servers_by_name<'a>(
        &self,
        sight: &'a Sight,
        network: &str,
    ) -> BTreeMap<&'a str, Vec<(IpAddr, Vec<Port>)>> {
        let mut servers = BTreeMap::<&str, Vec<(IpAddr, Vec<Port>)>>::new();
        let here = sight.active.iter().filter_map(|record| {
            let endpoint = within(record, network)?;
            let names = [&record.name].into_iter().chain(&endpoint.aliases);
            Some((
                names.collect::<Vec<_>>(),
                endpoint.addresses().collect::<Vec<_>>(),
                record.config.exposed.clone(),
            ))
        });
        let elsewhere = sight
            .catalog
            .endpoints_in(network)
            .filter(|endpoint| endpoint.node != self.node.id)
            .map(|endpoint| {
                let names = [&endpoint.name].into_iter().chain(&endpoint.aliases);
                let v6 = endpoint.address_v6.map(IpAddr::from);
                let addresses = [IpAddr::from(endpoint.address)].into_iter().chain(v6);
                let ports = endpoint.ports.iter().map(port_of).collect();
                (names.collect(), addresses.collect(), ports)
            });
        for (names, addresses, ports) in here.chain(elsewhere) {
            for name in names {
                let known = servers.entry(name).or_default();
                known.extend(addresses.iter().map(|address| (*address, ports.clone())));
            }
        }
        servers
    }

    /// Who may connect to this host itself: with `--add-host NAME:host-gateway` a container is told where to.
    fn host_access(&self, active: &[Record], network: &str) -> HostAccess {
        if self.options.host_access {
            return HostAccess::All;
        }
        let allowed = active.iter().filter(|record| outfit::names_host(record));
        let allowed = allowed.flat_map(|record| within(record, network));
        HostAccess::Only(allowed.flat_map(Endpoint::addresses).collect())
    }

    /// The bridge's addresses at which the ambassador stands in for containers on other hosts.
    fn link_addresses(&self, active: &[Record]) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> = remote_links(active).map(|link| link.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// A container's place in a network, if it is in it.
pub(super) fn within<'a>(record: &'a Record, network: &str) -> Option<&'a Endpoint> {
    let mut endpoints = record.endpoints.values();
    endpoints.find(|endpoint| endpoint.network_id == network)
}

fn members(active: &[Record], network: &str) -> Vec<Member> {
    let member = |record: &Record| {
        let endpoint = within(record, network)?;
        Some(Member {
            link: veth_name(&record.id, endpoint.index),
            mac: MacAddr(endpoint.mac),
            addresses: endpoint.addresses().collect(),
        })
    };
    active.iter().filter_map(member).collect()
}

/// The bridge's addresses at which the ambassador stands in for a network's services.
fn service_addresses(sight: &Sight, network: &str) -> Vec<Ipv4Addr> {
    let services = sight.services.iter();
    let services = services.filter(|service| service.network == network);
    let mut addresses: Vec<_> = services.filter_map(|service| service.address).collect();
    addresses.sort_unstable();
    addresses
}

/// What `--link` opens between containers of this host that are kept apart otherwise.
fn linked(active: &[Record]) -> Vec<Linked> {
    let mut linked = Vec::new();
    for record in active {
        let Some(client) = record.endpoints.get(DEFAULT_NETWORK) else {
            continue;
        };
        for link in record.links.iter().filter(|link| !link.remote) {
            linked.extend(link.ports.iter().map(|port| Linked {
                client: client.address.into(),
                server: link.address.into(),
                protocol: overlay_protocol(port.protocol),
                port: port.number,
            }));
        }
    }
    linked.sort_unstable();
    linked.dedup();
    linked
}

fn overlay_protocol(protocol: Protocol) -> nuncio_overlay::Protocol {
    match protocol {
        Protocol::Tcp => nuncio_overlay::Protocol::Tcp,
        Protocol::Udp => nuncio_overlay::Protocol::Udp,
    }
}
