//! Links between hosts of a mesh are encrypted: from this host's ambassador to the other's, each known by its certificate.
//!
//! A host takes the links of others at one port of its gateway in the default network, so whatever carries that network
//! between hosts carries them. Which container is meant is said by a server name, a hash that tells nothing on the way.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use ipnetwork::IpNetwork;
use nuncio_ambassador::spec::{EdgeSpec, TlsSpec};
use nuncio_ambassador::{ForwardSpec, Host, Listen, Target, TlsSide};
use nuncio_overlay::{LinkDoor, gateway_of};
use nuncio_registry::{Catalog, LinksRecord, NodeRecord};
use rustls::pki_types::DnsName;

use super::Daemon;
use super::config::{ContainerConfig, Port, Protocol};
use super::container::locked;
use super::forwards::forward;
use super::kernel_state::within;
use super::mesh::Mesh;
use super::plane::Sight;
use super::record::Link;
use super::refusal::Refusal;

/// A container's label `nuncio.link.ALIAS.tls=off` has that link go as it is.
const LABEL: (&str, &str) = ("nuncio.link.", ".tls");
/// The end of the names by which containers are asked for.
const SUFFIX: &str = "link.nuncio";
const DATAGRAMS: &str = "not encrypted, as it carries datagrams: a network with --opt encrypted is the way for these; relayed, as";

/// How a link reaches the containers it leads to.
pub(super) struct Way {
    /// Where the ambassador connects to, and by which port.
    pub(super) to: Vec<Ipv4Addr>,
    pub(super) port: u16,
    pub(super) edge: EdgeSpec,
    /// Why it is this way; the end of a sentence or the whole of it.
    pub(super) why: String,
}

/// A host that takes encrypted links.
struct Door {
    node: String,
    name: String,
    gateway: Ipv4Addr,
    port: u16,
}

/// Whether the link `alias` of a container is to go unencrypted.
pub(super) fn is_plain(config: &ContainerConfig, alias: &str) -> bool {
    let (before, after) = LABEL;
    let label = config.labels.get(&format!("{before}{alias}{after}"));
    label.is_some_and(|value| value == "off")
}

/// Refuses what a label says of a link, if it cannot be meant.
pub(super) fn check_labels(config: &ContainerConfig) -> Result<(), Refusal> {
    let (before, after) = LABEL;
    for (label, value) in &config.labels {
        let alias = label.strip_prefix(before);
        let Some(alias) = alias.and_then(|rest| rest.strip_suffix(after)) else {
            continue;
        };
        if value != "off" {
            return Err(Refusal::invalid(format!(
                "label {label}={value}: expected off, or no such label: in a mesh links between hosts are encrypted by themselves"
            )));
        }
        let mut links = config.host.links.iter();
        if !links.any(|link| link.alias == alias) {
            return Err(Refusal::invalid(format!(
                "label {label}: there is no link {alias}; write --link TARGET:{alias} too, or leave the label out"
            )));
        }
    }
    Ok(())
}

impl Daemon {
    /// What other hosts are told of this one's links; nothing outside a mesh.
    pub(super) fn links_record(&self) -> Option<LinksRecord> {
        self.mesh.as_ref()?;
        let mut containers = self.containers().into_iter();
        Some(LinksRecord {
            port: self.options.link_port,
            plain: containers.any(|container| {
                let links = container.view().links;
                links.iter().any(|link| link.remote && link.plain)
            }),
        })
    }

    /// Has other hosts know whether there are links here that are not encrypted, which they let in only then.
    pub(super) async fn announce_links(&self) -> anyhow::Result<()> {
        let Some(own) = self.links_record() else {
            return Ok(());
        };
        let known = self.catalog().nodes.get(&self.node.id).cloned();
        if known.is_none_or(|node| node.links.as_ref() == Some(&own)) {
            return Ok(());
        }
        let _turn = self.key_turn.lock().await;
        let record = self.node_record(&locked(&self.ring).clone());
        self.registry.register_node(&record).await?;
        tracing::info!(plain = own.plain, "told other hosts of this one's links");
        Ok(())
    }

    /// How a link gets to containers of other hosts, which are at `at`.
    pub(super) fn link_way(
        &self,
        sight: &Sight,
        link: &Link,
        port: Port,
        at: Vec<Ipv4Addr>,
    ) -> Way {
        const RELAYED: &str =
            "the target of a link admits the gateway of this host, not its containers";
        let plain = |why: &str| Way {
            to: at.clone(),
            port: port.number,
            edge: EdgeSpec::default(),
            why: match why {
                "" => RELAYED.to_owned(),
                why => format!("{why} {RELAYED}"),
            },
        };
        let Some(mesh) = &self.mesh else {
            return plain("");
        };
        if link.plain {
            let (before, after) = LABEL;
            let alias = &link.alias;
            return plain(&format!(
                "not encrypted, by the label {before}{alias}{after}=off; relayed, as"
            ));
        }
        if port.protocol == Protocol::Udp {
            return plain(DATAGRAMS);
        }
        let hosts: Vec<_> = at
            .iter()
            .map(|address| self.host_of(&sight.catalog, *address))
            .collect();
        let target = &link.target;
        if hosts.iter().flatten().next().is_none() {
            // Nobody is let in by that who shows another certificate than this host's own.
            let own = std::iter::once(self.node.id.as_str());
            return Way {
                edge: EdgeSpec {
                    tls: mesh.link_tls(TlsSide::Originate, own, None),
                    ..EdgeSpec::default()
                },
                ..plain(&format!(
                    "the host of {target} is not in the mesh any more;"
                ))
            };
        }
        let doors: Vec<_> = hosts.iter().flatten().filter_map(door).collect();
        let Some(first) = doors.first() else {
            let names = hosts.iter().flatten().map(|(node, _)| node.name.as_str());
            let names = names.collect::<BTreeSet<_>>().into_iter();
            let names = names.collect::<Vec<_>>().join(", ");
            return plain(&format!(
                "not encrypted, as {names} takes no encrypted links; relayed, as"
            ));
        };
        // Each host has a port of its own; those of another than the first wait for it to be gone.
        let doors: Vec<_> = doors
            .iter()
            .filter(|door| door.port == first.port)
            .collect();
        let names: BTreeSet<_> = doors.iter().map(|door| door.name.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let mut to: Vec<_> = doors.iter().map(|door| door.gateway).collect();
        to.dedup();
        Way {
            to,
            port: first.port,
            edge: EdgeSpec {
                tls: mesh.link_tls(
                    TlsSide::Originate,
                    doors.iter().map(|door| door.node.as_str()),
                    Some(server_name(mesh, target, port.number)),
                ),
                ..EdgeSpec::default()
            },
            why: format!(
                "a link between hosts of a mesh is encrypted, to {target} by the ambassador of {names}"
            ),
        }
    }

    /// The listener for links of other hosts.
    pub(super) fn link_door(&self, sight: &Sight) -> Vec<ForwardSpec> {
        let (Some(mesh), Some(default)) = (&self.mesh, self.mesh_default()) else {
            return Vec::new();
        };
        let exposed = sight.active.iter().flat_map(|record| {
            let address = within(record, &default.id).map(|endpoint| endpoint.address);
            let ports = record.config.exposed.iter();
            ports
                .filter(|port| port.protocol == Protocol::Tcp)
                .filter_map(move |port| Some((&record.name, address?, port.number)))
        });
        let routes = exposed.filter_map(|(name, address, port)| {
            let name = server_name(mesh, name, port);
            let target = Target::Host(vec![Host::new(address.to_string(), port)]);
            Some((name.as_ref().parse().ok()?, target))
        });
        let routes: Vec<_> = routes.collect();
        // This host's own is harmless, and ends what those had open who are not there any more, though nobody else is.
        let own = std::iter::once(&self.node.id);
        let nodes = own.chain(sight.catalog.nodes.keys());
        let tls = mesh.link_tls(TlsSide::Terminate, nodes.map(String::as_str), None);
        if routes.is_empty() || tls.is_none() {
            return Vec::new();
        }
        let gateways = self.own_blocks(&default.id).into_iter();
        let gateways = gateways.filter_map(|block| match block {
            IpNetwork::V4(block) => Some(gateway_of(block)),
            IpNetwork::V6(_) => None,
        });
        let port = Port {
            number: self.options.link_port,
            protocol: Protocol::Tcp,
        };
        let listener = |gateway: Ipv4Addr| ForwardSpec {
            listen: Listen {
                protocol: nuncio_ambassador::Protocol::Tcp,
                address: SocketAddr::from((gateway, port.number)),
                only_v6: false,
            },
            edge: EdgeSpec {
                tls: tls.clone(),
                sni: routes.clone(),
                ..EdgeSpec::default()
            },
            not_direct: Some("links of other hosts come in here, encrypted".to_owned()),
            ..forward(format!("links/{gateway}"), (gateway, port), &[], port)
        };
        gateways.map(listener).collect()
    }

    /// What the kernel is to let in of it.
    pub(super) fn kernel_door(&self, catalog: &Catalog, network: &str) -> Option<LinkDoor> {
        self.mesh.as_ref()?;
        let blocks = catalog.blocks_of(network);
        let plain = blocks.filter_map(|block| {
            let links = catalog.nodes.get(&block.node)?.links.as_ref();
            let encrypts = links.is_some_and(|links| !links.plain);
            match block.cidr {
                IpNetwork::V4(cidr) if !encrypts && block.node != self.node.id => {
                    Some(gateway_of(cidr))
                }
                _ => None,
            }
        });
        Some(LinkDoor {
            port: self.options.link_port,
            plain: plain.collect(),
        })
    }

    /// The host whose block of the default network has the address, and its gateway.
    fn host_of(&self, catalog: &Catalog, address: Ipv4Addr) -> Option<(NodeRecord, Ipv4Addr)> {
        let default = self.mesh_default()?;
        let mut blocks = catalog.blocks_of(&default.id);
        blocks.find_map(|block| match block.cidr {
            IpNetwork::V4(cidr) if cidr.contains(address) => {
                let node = catalog.nodes.get(&block.node)?;
                Some((NodeRecord::clone(node), gateway_of(cidr)))
            }
            _ => None,
        })
    }
}

impl Mesh {
    /// TLS by this host's certificate with those hosts alone; `None` if there are none.
    fn link_tls<'a>(
        &self,
        side: TlsSide,
        nodes: impl Iterator<Item = &'a str>,
        server_name: Option<DnsName<'static>>,
    ) -> Option<TlsSpec> {
        let identities = nodes.filter_map(|node| self.identity_of(node)?.parse().ok());
        let allow: Vec<_> = identities.collect();
        (!allow.is_empty()).then(|| TlsSpec {
            side,
            files: self.files(),
            allow,
            server_name,
        })
    }
}

fn door((node, gateway): &(NodeRecord, Ipv4Addr)) -> Option<Door> {
    Some(Door {
        node: node.id.clone(),
        name: node.name.clone(),
        gateway: *gateway,
        port: node.links.as_ref()?.port,
    })
}

/// What a port of a container is asked for by: nothing that who sees it on the way could make sense of.
fn server_name(mesh: &Mesh, container: &str, port: u16) -> DnsName<'static> {
    let hash = mesh.id().stand_in(&format!("{container}/{port}"));
    DnsName::try_from(format!("{hash}.{SUFFIX}")).expect("digits and dots")
}
