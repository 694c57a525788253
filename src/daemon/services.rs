//! Services: containers that are found under one name, at an address that leads to all of them.
//!
//! A container joins by its label. Who is in a service is in the registry with the containers
//! themselves; the address is one of the host's own on whose containers it is used, so that no host
//! has to ask another for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use nuncio_ambassador::{Check, Host};
use nuncio_registry::{EndpointHealth, EndpointRecord, ServiceOffer, weight_of};
use serde::{Deserialize, Serialize};

use super::config::{ContainerConfig, NetworkMode, Port, Protocol};
use super::container::{Container, locked};
use super::health::HealthStatus;
use super::networks::{DEFAULT_NETWORK, Network};
use super::offering::{self, services_of};
use super::plane::{Sight, port_of};
use super::record::{Phase, Record};
use super::refusal::Refusal;
use super::service_check::ServiceCheck;
use super::{Daemon, SERVICES, state_file};

/// The label by which a container joins a service.
pub(super) const LABEL: &str = "nuncio.service";
/// The owners of services' addresses begin with it.
pub(super) const OWNER: &str = "service:";
/// As long as a part of a name in DNS may be.
const LONGEST_NAME: usize = 63;
/// What a service may be called.
pub(super) const EXPECTED: &str = "expected 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or \
                                   digit";

/// A service of one network, as this host's containers see it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Id of the network.
    pub(super) network: String,
    /// What the network is called among those that this host knows.
    pub(super) network_name: String,
    /// In lower case.
    pub(super) name: String,
    /// Where this host's containers find it. `None` while this host has no address to give.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) members: Vec<Member>,
}

/// A container of a service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(super) id: String,
    pub(super) node: String,
    pub(super) address: Ipv4Addr,
    #[serde(default)]
    pub(super) address_v6: Option<Ipv6Addr>,
    pub(super) ports: Vec<Port>,
    /// Its share of newcomers, against the other members'.
    #[serde(default = "usual")]
    pub(super) weight: NonZeroU16,
    /// How it is looked at by who connects to it.
    #[serde(default)]
    pub(super) check: Option<ServiceCheck>,
    /// How it is, as its own host finds.
    #[serde(default)]
    pub(super) health: Option<HealthStatus>,
}

impl Member {
    /// Its addresses, that of IPv4 first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.address_v6.map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.address)).chain(v6)
    }

    fn health(&self) -> EndpointHealth {
        health_of(self.health)
    }
}

/// How a container is, for others.
pub(super) fn health_of(status: Option<HealthStatus>) -> EndpointHealth {
    match status {
        None => EndpointHealth::Unchecked,
        Some(HealthStatus::Starting) => EndpointHealth::Starting,
        Some(HealthStatus::Healthy) => EndpointHealth::Healthy,
        Some(HealthStatus::Unhealthy) => EndpointHealth::Unhealthy,
    }
}

fn status_of(health: EndpointHealth) -> Option<HealthStatus> {
    match health {
        EndpointHealth::Unchecked => None,
        EndpointHealth::Starting => Some(HealthStatus::Starting),
        EndpointHealth::Healthy => Some(HealthStatus::Healthy),
        EndpointHealth::Unhealthy => Some(HealthStatus::Unhealthy),
    }
}

fn usual() -> NonZeroU16 {
    NonZeroU16::MIN
}

/// The services of one network.
type Members = BTreeMap<String, Vec<Member>>;
/// Who was in each service when that was last known, by network.
pub(crate) type KnownServices = BTreeMap<String, Members>;

impl Service {
    /// The members that newcomers are led to: who is well, else who starts.
    pub(super) fn fit(&self) -> impl Iterator<Item = &Member> {
        let fittest = EndpointHealth::fittest(self.members.iter().map(Member::health));
        self.members
            .iter()
            .filter(move |member| fittest.includes(member.health()))
    }

    /// What those expose, all together.
    pub(super) fn ports(&self) -> BTreeSet<Port> {
        let ports = self.fit().flat_map(|member| &member.ports);
        ports.copied().collect()
    }

    /// How the members are looked at, if one of them wants it. Datagrams prove nothing to who sends them.
    pub(super) fn check(&self, port: Port) -> Option<Check> {
        let mut checks = self
            .members
            .iter()
            .filter_map(|member| member.check.as_ref());
        let check = checks.find_map(ServiceCheck::of_ambassador);
        check.filter(|_| port.protocol == Protocol::Tcp)
    }

    /// Those that are to be used and expose `port`.
    pub(super) fn at(&self, port: Port) -> Vec<Host> {
        let exposes = |member: &&Member| member.ports.contains(&port);
        let host = |member: &Member| Host {
            name: member.address.to_string(),
            port: port.number,
            weight: member.weight,
        };
        self.fit().filter(exposes).map(host).collect()
    }
}

/// The services of a container of another host, or of a daemon that knew the label alone.
pub(super) fn offers_of(endpoint: &EndpointRecord) -> Vec<ServiceOffer> {
    let labelled = || {
        let name = endpoint.labels.get(LABEL).filter(|name| is_name(name))?;
        Some(ServiceOffer {
            name: name.to_ascii_lowercase(),
            tags: Vec::new(),
            ports: endpoint.ports.clone(),
        })
    };
    match endpoint.services.is_empty() {
        false => endpoint.services.clone(),
        true => labelled().into_iter().collect(),
    }
}

/// Refuses labels that name no service, or no way to check it.
pub(super) fn check_label(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if let Some(name) = labels.get(LABEL)
        && !is_name(name)
    {
        return Err(Refusal::invalid(format!(
            "invalid service name {name:?} in label {LABEL}: {EXPECTED}"
        )));
    }
    ServiceCheck::of(labels).map(drop)
}

/// What is to be said of labels that have no effect.
pub(super) fn warnings(config: &ContainerConfig) -> Vec<String> {
    let mut warnings = offering::warnings(config);
    warnings.extend(lost(config));
    warnings
}

fn lost(config: &ContainerConfig) -> Option<String> {
    let named = matches!(&config.host.network, NetworkMode::Named(name) if name != DEFAULT_NETWORK)
        || config
            .endpoints
            .keys()
            .any(|name| !matches!(name.as_str(), "default" | DEFAULT_NETWORK));
    let is_lost = config.labels.contains_key(LABEL) && !named;
    is_lost.then(|| {
        format!("label {LABEL}: services are on user-defined networks, and the container is in none; give it --network")
    })
}

/// Whether a service may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= LONGEST_NAME
        && at_end(bytes.first())
        && at_end(bytes.last())
        && bytes.iter().copied().all(inside)
        && !name.contains("..")
}

impl Daemon {
    /// The services of the networks that this host's containers are in. One that is new gets an address.
    pub(super) fn services(&self, sight: &Sight) -> Vec<Service> {
        let networks = sight.networks.iter();
        let used = networks.filter(|network| !network.is_default() && is_used(sight, network));
        let mut known = locked(&self.services);
        let mut next = KnownServices::new();
        let mut services = Vec::new();
        for network in used {
            let mut members = self.members(sight, network);
            if let Some(before) = known.get(network.id()) {
                let is_away = |member: &Member| self.is_away(sight, network, member);
                recall(&mut members, before, is_away);
            }
            for (name, members) in &members {
                services.push(Service {
                    network: network.id().to_owned(),
                    network_name: title(sight, network),
                    name: name.clone(),
                    address: self.service_address(network, name),
                    members: members.clone(),
                });
            }
            if !members.is_empty() {
                next.insert(network.id().to_owned(), members);
            }
        }
        if *known != next && sight.catalog.revision > 0 {
            *known = next;
            self.keep_services(&known);
        }
        services
    }

    /// Whether a container's processes may look for a service.
    pub(super) fn may_use_services(&self, record: &Record) -> bool {
        let known = locked(&self.services);
        matches!(record.config.host.network, NetworkMode::Container(_)) && !known.is_empty()
            || (record.endpoints.values()).any(|endpoint| known.contains_key(&endpoint.network_id))
    }

    /// The cgroups of a network's containers, as far as there are any now.
    pub(super) fn cgroups(&self, sight: &Sight, service: &Service) -> Vec<PathBuf> {
        let Some(parent) = sight.cgroup2.as_ref().filter(|_| self.options.direct) else {
            return Vec::new();
        };
        let inside = sight
            .active
            .iter()
            .filter(|record| self.is_in(record, &service.network));
        let cgroups = inside.filter_map(|record| {
            let parent = match record.config.host.cgroup_parent.as_str() {
                "" => parent.clone(),
                own => nuncio_runtime::cgroup2(own)?,
            };
            Some(parent.join(&record.id))
        });
        cgroups.filter(|cgroup| cgroup.is_dir()).collect()
    }

    /// Why no container's connections to services can go straight, if that is so.
    pub(super) fn not_direct(&self, sight: &Sight) -> Option<String> {
        let reason = if !self.options.direct {
            "the daemon was started with --no-direct"
        } else if sight.cgroup2.is_none() {
            "this machine has no cgroup2 hierarchy for containers, see nuncio doctor"
        } else {
            return None;
        };
        Some(reason.to_owned())
    }

    /// Frees the addresses of services that are no more, or not of use here.
    pub(super) fn release_unused_services(&self, sight: &Sight) -> anyhow::Result<()> {
        if sight.catalog.revision == 0 {
            return Ok(()); // nothing is known yet
        }
        let owner = |service: &Service| owner(&service.network, &service.name);
        let wanted: BTreeSet<String> = sight.services.iter().map(owner).collect();
        let mut addresses = locked(&self.addresses);
        for owner in addresses.owners() {
            if owner.starts_with(OWNER) && !wanted.contains(&owner) {
                addresses.release(&owner)?;
            }
        }
        Ok(())
    }

    /// Has new connections to a container's service go to the other members, before it is asked to end.
    pub(super) async fn leave_service(&self, container: &Container) {
        let record = container.view();
        container.set_leaving();
        if services_of(&record.config).is_empty() {
            return;
        }
        self.publish(&record);
        self.await_registration().await;
        if let Err(error) = self.sync().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "lead a service away from a container that is to end"
            );
        }
    }

    /// Who is in each service now.
    fn members(&self, sight: &Sight, network: &Network) -> Members {
        let mut members = Members::new();
        for record in &sight.active {
            let is_there = matches!(record.phase, Phase::Running { .. })
                && !sight.leaving.contains(&record.id);
            let mut endpoints = record.endpoints.values();
            let endpoint = endpoints.find(|endpoint| endpoint.network_id == network.id());
            let (true, Some(endpoint)) = (is_there, endpoint) else {
                continue;
            };
            let check = ServiceCheck::of(&record.config.labels).ok().flatten();
            for offer in services_of(&record.config) {
                members.entry(offer.name).or_default().push(Member {
                    id: record.id.clone(),
                    node: self.node.id.clone(),
                    address: endpoint.address,
                    address_v6: endpoint.v6.map(|v6| v6.address),
                    ports: offer.ports.iter().map(port_of).collect(),
                    weight: weight_of(&record.config.labels),
                    check: check.clone(),
                    health: sight.health.get(&record.id).copied(),
                });
            }
        }
        for endpoint in sight.catalog.endpoints_in(network.id()) {
            if endpoint.node == self.node.id {
                continue;
            }
            let check = ServiceCheck::of(&endpoint.labels).ok().flatten();
            for offer in offers_of(endpoint) {
                members.entry(offer.name).or_default().push(Member {
                    id: endpoint.id.clone(),
                    node: endpoint.node.clone(),
                    address: endpoint.address,
                    address_v6: endpoint.address_v6,
                    ports: offer.ports.iter().map(port_of).collect(),
                    weight: weight_of(&endpoint.labels),
                    check: check.clone(),
                    health: status_of(endpoint.health),
                });
            }
        }
        members
    }

    /// Whether a container that is not heard of may well run: its host is not heard of either, and nobody
    /// else has its address.
    fn is_away(&self, sight: &Sight, network: &Network, member: &Member) -> bool {
        let here = sight
            .active
            .iter()
            .flat_map(|record| record.endpoints.values());
        let mut here = here.filter(|endpoint| endpoint.network_id == network.id());
        let mut there = sight.catalog.endpoints_in(network.id());
        member.node != self.node.id
            && !sight.catalog.alive.contains(&member.node)
            && !here.any(|endpoint| endpoint.address == member.address)
            && !there.any(|endpoint| endpoint.address == member.address)
    }

    /// Whether the container's processes are in the network, be it by way of another container.
    fn is_in(&self, record: &Record, network: &str) -> bool {
        self.namespace_holder(record).is_some_and(|holder| {
            let mut endpoints = holder.endpoints.values();
            endpoints.any(|endpoint| endpoint.network_id == network)
        })
    }

    fn service_address(&self, network: &Network, name: &str) -> Option<Ipv4Addr> {
        let blocks = match network {
            Network::Local(network) => vec![network.subnet.into()],
            Network::Mesh(network) => self.blocks_in(&network.id, network.subnet.into()),
        };
        let owner = owner(network.id(), name);
        let allocated = locked(&self.addresses).allocate(network.id(), &blocks, &owner, None);
        let told = |error: &nuncio_overlay::AllocateError| {
            tracing::warn!(service = name, %error, "a service goes without an address");
        };
        match allocated.inspect_err(told).ok()? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None, // of a block of IPv4 there is none
        }
    }

    /// Where this host's containers find a service, if it has an address here.
    pub(super) fn held_address(&self, network: &str, name: &str) -> Option<IpAddr> {
        let owner = owner(network, name);
        let held = locked(&self.addresses).held(network);
        held.into_iter()
            .find_map(|(address, holder)| (holder == owner).then_some(address))
    }

    fn keep_services(&self, known: &KnownServices) {
        let path = self.options.data_root.join(SERVICES);
        if let Err(error) = state_file::write(&path, known) {
            tracing::warn!(
                error = format!("{error:#}"),
                "services may break if the next daemon starts without a registry"
            );
        }
    }
}

fn is_used(sight: &Sight, network: &Network) -> bool {
    let mut endpoints = sight
        .active
        .iter()
        .flat_map(|record| record.endpoints.values());
    endpoints.any(|endpoint| endpoint.network_id == network.id())
}

/// The network's name, or its id if a bridge of this host and a network of the mesh share one.
fn title(sight: &Sight, network: &Network) -> String {
    let same = |other: &&Network| other.name() == network.name();
    match sight.networks.iter().filter(same).count() {
        0 | 1 => network.name().to_owned(),
        _ => network.id().to_owned(),
    }
}

/// Who holds a service's address.
fn owner(network: &str, name: &str) -> String {
    format!("{OWNER}{network}:{name}")
}

/// Keeps a service with nobody left in it at those of before that may only be out of touch.
fn recall(now: &mut Members, before: &Members, is_away: impl Fn(&Member) -> bool) {
    for (name, members) in before {
        if now.contains_key(name) {
            continue;
        }
        let away: Vec<_> = members
            .iter()
            .filter(|member| is_away(member))
            .cloned()
            .collect();
        if !away.is_empty() {
            now.insert(name.clone(), away);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), name.to_owned())])
    }

    fn member(id: &str, node: &str) -> Member {
        Member {
            id: id.to_owned(),
            node: node.to_owned(),
            address: [10, 1, 0, 2].into(),
            address_v6: None,
            ports: vec!["6379/tcp".parse().expect("a port")],
            weight: usual(),
            check: None,
            health: None,
        }
    }

    #[test]
    fn a_label_names_a_service() {
        for name in ["redis", "Redis-2", "a.b_c"] {
            assert!(check_label(&labels(name)).is_ok());
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for wrong in ["", "-a", "a-", ".", "a..b", "a/b", "a b", "ä", &long] {
            let refusal = check_label(&labels(wrong)).expect_err("refused");
            assert!(
                refusal.message.contains("expected 1 to 63"),
                "{}",
                refusal.message
            );
        }
    }

    #[test]
    fn newcomers_are_led_to_who_is_well_or_else_to_who_starts() {
        let with = |id: &str, last: u8, health| Member {
            address: [10, 1, 0, last].into(),
            health,
            ..member(id, "n")
        };
        let mut service = Service {
            network: "0".to_owned(),
            network_name: "mesh".to_owned(),
            name: "redis".to_owned(),
            address: None,
            members: vec![with("a", 2, Some(HealthStatus::Starting))],
        };
        let port: Port = "6379/tcp".parse().expect("a port");
        let led_to = |service: &Service| -> Vec<String> {
            service.at(port).into_iter().map(|host| host.name).collect()
        };
        assert_eq!(led_to(&service), ["10.1.0.2"]);
        service
            .members
            .push(with("b", 3, Some(HealthStatus::Healthy)));
        service.members.push(with("c", 4, None));
        assert_eq!(led_to(&service), ["10.1.0.3", "10.1.0.4"]);
        service
            .members
            .iter_mut()
            .for_each(|member| member.health = Some(HealthStatus::Unhealthy));
        assert!(led_to(&service).is_empty() && service.ports().is_empty());
    }

    #[test]
    fn only_those_out_of_touch_are_recalled_and_only_where_nobody_is_left() {
        let before = Members::from([
            ("gone".to_owned(), vec![member("a", "here")]),
            (
                "left".to_owned(),
                vec![member("b", "there"), member("c", "away")],
            ),
            (
                "lost".to_owned(),
                vec![member("d", "there"), member("e", "away")],
            ),
        ]);
        let mut now = Members::from([("left".to_owned(), vec![member("b", "there")])]);
        recall(&mut now, &before, |member| member.node == "away");
        let expected = Members::from([
            ("left".to_owned(), vec![member("b", "there")]),
            ("lost".to_owned(), vec![member("e", "away")]),
        ]);
        assert_eq!(now, expected);
    }

    #[test]
    fn each_port_leads_to_those_who_expose_it() {
        let port = |text: &str| text.parse::<Port>().expect("a port");
        let mut other = member("b", "n");
        other.address = [10, 1, 0, 3].into();
        other.ports.push(port("53/udp"));
        other.weight = NonZeroU16::new(3).expect("not 0");
        let service = Service {
            network: "0".to_owned(),
            network_name: "mesh".to_owned(),
            name: "redis".to_owned(),
            address: None,
            members: vec![member("a", "n"), other],
        };
        let ports: Vec<_> = service.ports().into_iter().collect();
        assert_eq!(ports, [port("53/udp"), port("6379/tcp")]);
        let [only] = &service.at(port("53/udp"))[..] else {
            panic!("one of them");
        };
        assert_eq!(
            (only.name.as_str(), only.port, only.weight.get()),
            ("10.1.0.3", 53, 3)
        );
        assert_eq!(service.at(port("6379/tcp")).len(), 2);
    }
}
