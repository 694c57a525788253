//! What is meant by the other end: a container here or on another host, a service, or something outside of the mesh.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::future::join_all;
use ipnetwork::IpNetwork;
use nuncio_overlay::{Protocol, gateway_of, gateway6_of};
use nuncio_registry::EndpointRecord;

use super::mail::{EndpointAt, wire_of};
use super::{Asked, Daemon, EndAnswer, EndQuestion, Family, Hop, Status, begins};
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
    pub(super) outside: Option<IpAddr>,
    /// Which way is walked.
    pub(super) family: Family,
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
        let address = name.parse::<IpAddr>().ok();
        let family = address.map(Family::of);
        if let (Some(family), Some(asked)) = (family, asked.family)
            && family != asked
        {
            return Err(Refusal::invalid(format!(
                "{name} is not of the family that is asked for: leave out -4 and -6"
            ))
            .into());
        }
        let base = Target {
            name: name.to_owned(),
            asked_by_name: address.is_none().then(|| name.to_owned()),
            family: family.or(asked.family).unwrap_or_default(),
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
        if address.is_some() {
            return Ok(Target {
                outside: address,
                ..base
            });
        }
        if let Some((node, answer)) = self.seek(from, &base, port).await {
            return Ok(of_answer(base, node, answer));
        }
        if let Some(target) = self.lost(from, &base) {
            return Ok(target);
        }
        if name.contains('.')
            && let Some(address) = outside(name, base.family).await
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
        Target {
            name: record.name.clone(),
            node: Some(self.node.id.clone()),
            endpoints: record.endpoints.values().map(EndpointAt::of).collect(),
            local: Some(record),
            ..base
        }
    }

    /// A container of this host that has the address, the alias or the service's name in one of `from`'s networks.
    fn local_member(&self, from: &Record, name: &str) -> Option<Record> {
        let address = name.parse::<IpAddr>().ok();
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
                    || address
                        .is_some_and(|address| endpoint.addresses().any(|own| own == address));
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
                address_v6: endpoint.address_v6,
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
        match self
            .ask_end(node, question(from, id, base.family, port))
            .await
        {
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
        base: &Target,
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
            let asked = question(from, &base.name, base.family, port);
            let answer = self.ask_end(&node, asked).await;
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
        let beside = catalog.blocks.values().find_map(|other| match other.cidr {
            IpNetwork::V6(cidr) if other.node == block.node && other.network == block.network => {
                Some(cidr)
            }
            _ => None,
        });
        let host = catalog.nodes.get(&block.node)?.name.clone();
        let detail = format!(
            "no host that is alive knows {}; {host} may, but is not heard of",
            base.name
        );
        Some(Target {
            name: base.name.clone(),
            family: base.family,
            port: base.port,
            link: base.link.clone(),
            node: Some(block.node.clone()),
            endpoints: vec![EndpointAt {
                network: block.network.clone(),
                address: gateway_of(cidr),
                address_v6: beside.map(gateway6_of),
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
        || endpoint.address_v6.is_some() && name.parse().ok() == endpoint.address_v6
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

fn question(
    from: &Record,
    container: &str,
    family: Family,
    port: Option<(Protocol, u16)>,
) -> EndQuestion {
    EndQuestion {
        container: container.to_owned(),
        from: from.endpoints.values().map(EndpointAt::of).collect(),
        port: wire_of(port),
        family,
    }
}

/// `HOST:PORT`, `[IPV6]:PORT`, or what stands for itself.
fn split(text: &str) -> (&str, Option<u16>) {
    if let Some(inner) = text.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':').map(str::parse) {
                Some(Ok(port)) => (host, Some(port)),
                _ => (text, None),
            },
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

async fn outside(name: &str, family: Family) -> Option<IpAddr> {
    let found = tokio::net::lookup_host((name, 0)).await.ok()?;
    let mut found = found.map(|address| address.ip());
    found.find(|address| Family::of(*address) == family)
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
        assert_eq!(split("[fd00::1]:80"), ("fd00::1", Some(80)));
        assert_eq!(split("[fd00::1]"), ("fd00::1", None));
        for wrong in ["[fd00::1", "[fd00::1]80", "[fd00::1]:http"] {
            assert_eq!(split(wrong), (wrong, None));
        }
    }
}
