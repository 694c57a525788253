//! The two ends: whether they run and may meet, what the name means there, and who listens.

use std::net::IpAddr;
use std::path::Path;

use nuncio_overlay::{Protocol, resolve};

use super::mail::{EndAnswer, EndQuestion, EndpointAt};
use super::target::Target;
use super::{Daemon, Hop, Status, Why};
use crate::daemon::config::NetworkMode;
use crate::daemon::container::Container;
use crate::daemon::networks::Network;
use crate::daemon::record::{Phase, Record};

/// The order in which what comes in, and then what goes back, passes the places of a host.
const INWARD: [&str; 14] = [
    "underlay",
    "vxlan",
    "rules",
    "shortcut",
    "forwarding",
    "bridge",
    "port",
    "link",
    "address",
    "route",
    "peer-route",
    "neighbour",
    "fdb",
    "mtu",
];

impl Daemon {
    /// Tells whether a container runs; whether it has a network namespace.
    pub(super) fn life(&self, container: &Container, why: &mut Why) -> bool {
        let (hop, runs) = self.life_of(container);
        why.push(hop);
        runs
    }

    fn life_of(&self, container: &Container) -> (Hop, bool) {
        let record = container.view();
        let name = &record.name;
        let hop =
            |status, detail: String| Hop::new(&self.node.name, name, "container", status, detail);
        match record.phase {
            Phase::Running { .. } if container.is_paused() => {
                let hop = hop(
                    Status::Broken,
                    format!("{name} is paused: its processes stand still"),
                );
                (hop.mend(format!("nuncio unpause {name}")), true)
            }
            Phase::Running { pid, .. } => {
                (hop(Status::Ok, format!("{name} runs, process {pid}")), true)
            }
            Phase::Created => {
                let hop = hop(Status::Broken, format!("{name} was never started"));
                (hop.mend(format!("nuncio start {name}")), false)
            }
            Phase::Restarting { code, .. } | Phase::Exited { code, .. } => {
                let hop = hop(
                    Status::Broken,
                    format!("{name} does not run: it ended with status {code}"),
                );
                (
                    hop.mend(format!("nuncio start {name}; nuncio logs {name}")),
                    false,
                )
            }
        }
    }

    /// The network in which the two meet, and the other's address there.
    pub(super) fn meet(
        &self,
        from: &Record,
        target: &Target,
        port: Option<(Protocol, u16)>,
        why: &mut Why,
    ) -> Option<(Network, IpAddr)> {
        let hop = |status, detail: String| {
            Hop::new(&self.node.name, &from.name, "network", status, detail)
        };
        let no_ipv6 = |who: &str, network: &Network| {
            let detail = format!("{who} has no IPv6 address in {}", network.name());
            hop(Status::Broken, detail)
                .mend("nuncio network create --ipv6 ..., and connect both to it")
        };
        let networks = self.all_networks();
        let network_of = |id: &str| networks.iter().find(|network| network.id() == id).cloned();
        if from.endpoints.is_empty() {
            let mode = &from.config.host.network;
            let (status, detail) = match mode {
                NetworkMode::None => (
                    Status::Broken,
                    "it is in no network (--network none)".to_owned(),
                ),
                _ => (
                    Status::Unknown,
                    format!("it has no network of its own (--network {mode}): this is not walked"),
                ),
            };
            why.push(hop(status, detail));
            return None;
        }
        if let Some(address) = target.outside {
            let (_, endpoint) = from.way_out().or_else(|| {
                let mut all = from.endpoints.iter();
                all.next().map(|(name, endpoint)| (name.as_str(), endpoint))
            })?;
            let network = network_of(&endpoint.network_id)?;
            if EndpointAt::of(endpoint).address_of(target.family).is_none() {
                why.push(no_ipv6(&from.name, &network));
                return None;
            }
            return Some((network, address));
        }
        let shared = from.endpoints.values().find_map(|own| {
            let other = target
                .endpoints
                .iter()
                .find(|at| at.network == own.network_id)?;
            Some((network_of(&own.network_id)?, own, other))
        });
        let Some((network, own, other)) = shared else {
            let named = |id: &str| {
                network_of(id).map_or_else(
                    || id.chars().take(12).collect(),
                    |network| network.name().to_owned(),
                )
            };
            let theirs: Vec<_> = target
                .endpoints
                .iter()
                .map(|at| named(&at.network))
                .collect();
            let own: Vec<_> = from.endpoints.keys().cloned().collect();
            if theirs.is_empty() {
                return None; // it does not run, or nobody knows: that is told
            }
            let detail = format!(
                "they share no network: {} is in {}, {} in {}",
                from.name,
                own.join(" and "),
                target.name,
                theirs.join(" and ")
            );
            let mend = format!("nuncio network connect {} {}", theirs[0], from.name);
            why.push(hop(Status::Broken, detail).mend(mend));
            return None;
        };
        let (here, there) = (
            EndpointAt::of(own).address_of(target.family),
            other.address_of(target.family),
        );
        let (Some(_), Some(address)) = (here, there) else {
            let lacks = if here.is_none() {
                &from.name
            } else {
                &target.name
            };
            why.push(no_ipv6(lacks, &network));
            return None;
        };
        let allowed = self.allowed(from, target, &network, port);
        let both = format!("both are in {}", network.name());
        why.push(match allowed {
            Ok(()) => hop(Status::Ok, both),
            Err((what, mend)) => hop(Status::Broken, format!("{both}, but {what}")).mend(mend),
        });
        Some((network, address))
    }

    /// Whether a network's own policy lets the one connect to the other, else why not and what to do.
    fn allowed(
        &self,
        from: &Record,
        target: &Target,
        network: &Network,
        port: Option<(Protocol, u16)>,
    ) -> Result<(), (String, String)> {
        let here = !target.is_elsewhere(&self.node.id);
        if !network.is_default() || (here && self.options.icc) {
            return Ok(());
        }
        let to = &target.name;
        let why = if here {
            "with --icc=false"
        } else {
            "on different hosts"
        };
        let Some(link) = &target.link else {
            return Err((
                format!("{why} only a link lets {} reach {to}", from.name),
                format!("nuncio run --link {to} ..., or put both into a network of their own"),
            ));
        };
        let linked = link.ports.iter().any(|exposed| {
            port.is_none_or(|(protocol, number)| {
                (exposed.protocol.to_string(), exposed.number) == (protocol.to_string(), number)
            })
        });
        if linked {
            return Ok(());
        }
        let (protocol, number) = port.unwrap_or((Protocol::Tcp, 0));
        Err((
            format!("the link to {to} is for exposed ports only, and {number}/{protocol} is not"),
            format!(
                "start {to} with --expose {number}/{protocol}, and {} again",
                from.name
            ),
        ))
    }

    /// What the name means to the container.
    pub(super) async fn tell_name(
        &self,
        from: &Record,
        netns: &Path,
        network: &Network,
        target: &Target,
        address: IpAddr,
        why: &mut Why,
    ) {
        let hop = |status, detail: String| {
            Hop::new(&self.node.name, &from.name, "name", status, detail).symptom(4)
        };
        if let Some(link) = &target.link {
            let detail = format!("{} is {} in its hosts file", link.alias, link.address);
            return why.push(hop(Status::Ok, detail));
        }
        let Some(name) = &target.asked_by_name else {
            return;
        };
        if network.is_default() {
            return why.push(hop(
                Status::Unknown,
                format!("the default network has no names: {name} means something only by a link"),
            ));
        }
        let services = match self.sight().await {
            Ok(sight) => sight.services,
            Err(_) => Vec::new(),
        };
        let virtual_address = services
            .iter()
            .find(|service| service.name == *name && service.network == network.id());
        // It is of IPv4, and names have no other then.
        let virtual_address = virtual_address.and_then(|service| service.address);
        let mend = "nuncio network disconnect and connect it, or use the address".to_owned();
        why.push(match resolve(netns, name, address.is_ipv6()).await {
            Ok(found)
                if found.contains(&address)
                    || virtual_address.is_some_and(|address| found.contains(&address.into())) =>
            {
                hop(Status::Ok, format!("{name} is {}", list(&found)))
            }
            Ok(found) if found.is_empty() => hop(
                Status::Broken,
                format!("DNS in {} knows no {name}", from.name),
            )
            .mend(mend),
            Ok(found) => hop(
                Status::Broken,
                format!(
                    "DNS says that {name} is {}, but it has {address}",
                    list(&found)
                ),
            )
            .mend(mend),
            Err(error) => hop(
                Status::Broken,
                format!(
                    "DNS at 127.0.0.11 in {} does not answer: {error}",
                    from.name
                ),
            )
            .mend("restart nuncio daemon, which keeps the ambassador"),
        });
    }

    /// What this host sees of a container of its own that somebody else wants to reach.
    pub(super) async fn end(
        &self,
        container: &Container,
        asked: &EndQuestion,
        port: Option<(Protocol, u16)>,
    ) -> anyhow::Result<EndAnswer> {
        let record = container.view();
        let (hop, runs) = self.life_of(container);
        let mut hops = vec![hop];
        let networks = self.all_networks();
        let shared = networks.into_iter().find_map(|network| {
            let is = |at: &&EndpointAt| at.network == network.id();
            let here = record
                .endpoints
                .values()
                .any(|own| own.network_id == network.id());
            let from = asked.from.iter().find(is).filter(|_| here)?;
            Some((network, from.address_of(asked.family)?))
        });
        if let (true, Some((network, from))) = (runs, shared) {
            hops.extend(self.inward(&record, &network, from, port).await?);
        }
        Ok(EndAnswer {
            name: record.name.clone(),
            endpoints: record.endpoints.values().map(EndpointAt::of).collect(),
            hops,
        })
    }

    /// The way to a container of this host, from where packets come in.
    pub(super) async fn far_end(
        &self,
        record: &Record,
        network: &Network,
        from: IpAddr,
        port: Option<(Protocol, u16)>,
    ) -> anyhow::Result<Vec<Hop>> {
        let container = self.container(&record.id)?;
        let (hop, runs) = self.life_of(&container);
        let mut hops = vec![hop];
        if runs {
            hops.extend(self.inward(record, network, from, port).await?);
        }
        Ok(hops)
    }

    async fn inward(
        &self,
        record: &Record,
        network: &Network,
        from: IpAddr,
        port: Option<(Protocol, u16)>,
    ) -> anyhow::Result<Vec<Hop>> {
        let request = self
            .walk_request(record, network, from, false, port)
            .await?;
        let mut hops = self.walked(&record.name, &request).await;
        hops.sort_by_key(|hop| INWARD.iter().position(|place| *place == hop.hop));
        if let Some(port) = port {
            let elsewhere = request.peer.is_some() && network.is_default();
            hops.extend(elsewhere.then(|| self.exposed(record, port)));
            hops.push(
                self.listener(record, request.address.ip(), port, &request.attached.netns)
                    .await,
            );
        }
        Ok(hops)
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}
