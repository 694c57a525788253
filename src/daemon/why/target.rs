//! What is meant by the other end: a container here or on another host, a service, or something outside of the mesh.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use futures_util::future::join_all;
use ipnetwork::IpNetwork;
use nuncio_overlay::{Protocol, gateway_of};
use nuncio_registry::EndpointRecord;

use super::mail::{EndpointAt, wire_of};
use super::{Asked, Daemon, EndAnswer, EndQuestion, Hop, Status, begins};
use crate::daemon::offering::services_of;
use crate::daemon::record::{Link, Record};
use crate::daemon::refusal::Refusal;
use crate::daemon::services::offers_of;

/// Hosts that are asked at once whether they know a container that nobody tells of.
const HOSTS: usize = 32;

/// The other end.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) name: String,
    /// The name that a container would look up.
    pub(super) asked_by_name: Option<String>,
    /// It is on this host.
    pub(super) local: Option<Record>,
    /// Identifier of the host that it is on.
    pub(super) node: Option<String>,
    pub(super) endpoints: Vec<EndpointAt>,
    /// It is none of the mesh's, but there.
    pub(super) outside: Option<Ipv4Addr>,
    port: Option<u16>,
    /// The consumer's link to it.
    pub(super) link: Option<Link>,
    /// What its host sees.
    hops: Vec<Hop>,
}

impl Target {
    pub(super) fn is_elsewhere(&self, here: &str) -> bool {
        self.node.as_ref().is_some_and(|node| node != here)
    }

    pub(super) fn port(&self) -> Option<(Protocol, u16)> {
        self.port.map(|port| (Protocol::Tcp, port))
    }

    pub(super) fn into_hops(self) -> Vec<Hop> {
        self.hops
    }
}

impl Daemon {
    /// Finds what is meant, and asks its host what it sees.
    pub(super) async fn target(&self, from: &Record, asked: &Asked) -> anyhow::Result<Target> {
        let (name, port) = split(&asked.to);
        let mut links = from.links.iter();
        let link = links
            .find(|link| link.alias == name || link.target == name)
            .cloned();
        let target = link.as_ref().map(|link| link.target.clone());
        let name = target.as_deref().unwrap_or(name);
        let base = Target {
            name: name.to_owned(),
            asked_by_name: name.parse::<Ipv4Addr>().is_err().then(|| name.to_owned()),
            port,
            link,
            ..Target::default()
        };
        let called = self.container_exactly(name);
        let found = called.map(|container| container.view());
        if let Some(record) = found.or_else(|| self.local_member(from, name)) {
            return Ok(self.here(base, record));
        }
        let port = asked.port.or(base.port());
        if let Some((node, id)) = self.elsewhere(from, |endpoint| is_called(endpoint, name)) {
            return Ok(self.there(base, from, &node, &id, port).await);
        }
        if let Ok(container) = self.container(name) {
            return Ok(self.here(base, container.view()));
        }
        if let Some((node, id)) = self.elsewhere(from, |endpoint| begins(name, &endpoint.id)) {
            return Ok(self.there(base, from, &node, &id, port).await);
        }
        if let Ok(address) = name.parse() {
            return Ok(Target {
                outside: Some(address),
                ..base
            });
        }
        if let Some((node, answer)) = self.seek(from, name, port).await {
            return Ok(of_answer(base, node, answer));
        }
        if let Some(target) = self.lost(from, &base) {
            return Ok(target);
        }
        if name.contains('.')
            && let Some(address) = outside(name).await
        {
            return Ok(Target {
                outside: Some(address),
                asked_by_name: None,
                ..base
            });
        }
        Err(Refusal::not_found(format!("no such container, service, alias or host: {name}")).into())
    }

    fn here(&self, base: Target, record: Record) -> Target {
        let endpoints = record.endpoints.values().map(|endpoint| EndpointAt {
            network: endpoint.network_id.clone(),
            address: endpoint.address,
        });
        Target {
            name: record.name.clone(),
            node: Some(self.node.id.clone()),
            endpoints: endpoints.collect(),
            local: Some(record),
            ..base
        }
    }

    /// A container of this host that has the address, the alias or the service's name in one of `from`'s networks.
    fn local_member(&self, from: &Record, name: &str) -> Option<Record> {
        let address = name.parse::<Ipv4Addr>().ok();
        let records = self
            .containers()
            .into_iter()
            .map(|container| container.view());
        records.into_iter().find(|record| {
            let shared = record.endpoints.values().any(|endpoint| {
                let together = from
                    .endpoints
                    .values()
                    .any(|own| own.network_id == endpoint.network_id);
                let named = endpoint.aliases.iter().any(|alias| alias == name)
                    || Some(endpoint.address) == address;
                together
                    && (named
                        || services_of(&record.config)
                            .iter()
                            .any(|service| service.name == name))
            });
            shared && record.id != from.id
        })
    }

    /// The host and id of a container elsewhere that is the one, best of a network that `from` is in too.
    fn elsewhere(
        &self,
        from: &Record,
        is_it: impl Fn(&EndpointRecord) -> bool,
    ) -> Option<(String, String)> {
        let catalog = self.catalog();
        let shares = |endpoint: &EndpointRecord| {
            from.endpoints
                .values()
                .any(|own| own.network_id == endpoint.network)
        };
        let others = catalog.endpoints.values();
        let found = others.filter(|endpoint| endpoint.node != self.node.id && is_it(endpoint));
        let found = found.max_by_key(|endpoint| shares(endpoint))?;
        Some((found.node.clone(), found.id.clone()))
    }

    async fn there(
        &self,
        base: Target,
        from: &Record,
        node: &str,
        id: &str,
        port: Option<(Protocol, u16)>,
    ) -> Target {
        let (known, name, alive) = {
            let catalog = self.catalog();
            let known = catalog
                .endpoints
                .values()
                .filter(|endpoint| endpoint.id == id);
            let known = known.map(|endpoint| EndpointAt {
                network: endpoint.network.clone(),
                address: endpoint.address,
            });
            let name = catalog
                .nodes
                .get(node)
                .map_or(node, |node| node.name.as_str())
                .to_owned();
            (
                known.collect::<Vec<_>>(),
                name,
                catalog.alive.contains(node),
            )
        };
        let base = Target {
            node: Some(node.to_owned()),
            endpoints: known,
            ..base
        };
        let hop = |status, detail: String| Hop::new(&name, &base.name, "container", status, detail);
        if !alive {
            let hops = vec![hop(
                Status::Unknown,
                format!("{name} is not alive, so it cannot be asked"),
            )];
            return Target { hops, ..base };
        }
        match self.ask_end(node, question(from, id, port)).await {
            Ok(Some(answer)) => of_answer(base, node.to_owned(), answer),
            Ok(None) => {
                let hops = vec![hop(
                    Status::Broken,
                    format!("{name} has no {} any more", base.name),
                )];
                Target { hops, ..base }
            }
            Err(error) => {
                let hops = vec![hop(Status::Unknown, format!("{error:#}"))];
                Target { hops, ..base }
            }
        }
    }

    /// Asks all hosts for a container that nobody tells of, as one that does not run.
    async fn seek(
        &self,
        from: &Record,
        name: &str,
        port: Option<(Protocol, u16)>,
    ) -> Option<(String, EndAnswer)> {
        let alive: BTreeSet<String> = {
            let catalog = self.catalog();
            if catalog.stale.is_some() {
                return None;
            }
            catalog.alive.clone()
        };
        let others = alive
            .into_iter()
            .filter(|node| *node != self.node.id)
            .take(HOSTS);
        let asked = others.map(|node| async {
            let answer = self.ask_end(&node, question(from, name, port)).await;
            Some((node, answer.ok()??))
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// If a host of one of `from`'s networks is dead, what nobody knows may well have been there.
    fn lost(&self, from: &Record, base: &Target) -> Option<Target> {
        let catalog = self.catalog();
        let mut blocks = catalog.blocks.values().filter(|block| {
            block.node != self.node.id
                && !catalog.alive.contains(&block.node)
                && from
                    .endpoints
                    .values()
                    .any(|own| own.network_id == block.network)
        });
        let first = blocks.find_map(|block| match block.cidr {
            IpNetwork::V4(cidr) => Some((block, cidr)),
            IpNetwork::V6(_) => None,
        });
        let (block, cidr) = first?;
        let host = catalog.nodes.get(&block.node)?.name.clone();
        let detail = format!(
            "no host that is alive knows {}; {host} may, but is not heard of",
            base.name
        );
        Some(Target {
            name: base.name.clone(),
            port: base.port,
            link: base.link.clone(),
            node: Some(block.node.clone()),
            endpoints: vec![EndpointAt {
                network: block.network.clone(),
                address: gateway_of(cidr),
            }],
            hops: vec![Hop::new(
                &host,
                &base.name,
                "container",
                Status::Unknown,
                detail,
            )],
            ..Target::default()
        })
    }
}

/// Whether the name, id, alias, address or service is that of the container.
fn is_called(endpoint: &EndpointRecord, name: &str) -> bool {
    endpoint.name == name
        || endpoint.id == name
        || endpoint.aliases.iter().any(|alias| alias == name)
        || offers_of(endpoint)
            .iter()
            .any(|service| service.name == name)
        || name.parse() == Ok(endpoint.address)
}

fn of_answer(base: Target, node: String, answer: EndAnswer) -> Target {
    Target {
        name: answer.name,
        node: Some(node),
        endpoints: answer.endpoints,
        hops: answer.hops,
        ..base
    }
}

fn question(from: &Record, container: &str, port: Option<(Protocol, u16)>) -> EndQuestion {
    let from = from.endpoints.values().map(|endpoint| EndpointAt {
        network: endpoint.network_id.clone(),
        address: endpoint.address,
    });
    EndQuestion {
        container: container.to_owned(),
        from: from.collect(),
        port: wire_of(port),
    }
}

/// `HOST:PORT`, or what stands for itself.
fn split(text: &str) -> (&str, Option<u16>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

async fn outside(name: &str) -> Option<Ipv4Addr> {
    let mut found = tokio::net::lookup_host((name, 0)).await.ok()?;
    found.find_map(|address| match address.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_port_may_stand_behind_the_host() {
        assert_eq!(split("db"), ("db", None));
        assert_eq!(split("db:6379"), ("db", Some(6379)));
        assert_eq!(split("192.0.2.1:80"), ("192.0.2.1", Some(80)));
        assert_eq!(split("db:http"), ("db:http", None));
        assert_eq!(split("fe80::1"), ("fe80::1", None));
    }
}
