//! Ports of services that answer on every host, whichever of them run the tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::EndpointPortConfig;
use nuncio_ambassador::spec::EdgeSpec;
use nuncio_ambassador::{ForwardSpec, Host, ProxyVersion, Target};
use nuncio_registry::{
    Catalog, DesiredKind, DesiredRecord, EndpointHealth, EndpointRecord, weight_of,
};

use super::outfit::{INGRESS, SERVICE_ID, TASK_ID};
use super::services::ServiceState;
use super::spec;
use crate::daemon::Daemon;
use crate::daemon::config::{Port, Protocol};
use crate::daemon::forwards::forward;
use crate::daemon::networks::Network;
use crate::daemon::plane::Sight;
use crate::daemon::ports::has_v6;
use crate::daemon::refusal::Refusal;

/// A label of a service: the first bytes of each connection to its tasks say who the client is.
const PROXY: &str = "nuncio.proxy-protocol";
/// Ports that are published without a number get one of these, as Swarm's.
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;
const IS_INGRESS: &str = "it came to a service's published port";

/// The version that a service's label asks for.
pub(super) fn proxy(labels: &BTreeMap<String, String>) -> Result<Option<ProxyVersion>, Refusal> {
    match labels.get(PROXY).map(String::as_str) {
        None => Ok(None),
        Some("v1" | "1") => Ok(Some(ProxyVersion::V1)),
        Some("v2" | "2") => Ok(Some(ProxyVersion::V2)),
        Some(other) => Err(Refusal::invalid(format!(
            "invalid label {PROXY}={other}: expected v1 or v2"
        ))),
    }
}

/// What a port of a service is called among the numbers that were chosen for it.
fn key(port: &EndpointPortConfig) -> String {
    let target = port.target_port.unwrap_or_default();
    format!("{target}/{}", spec::protocol(port))
}

/// The ports that a service publishes on every host, each with the number that was asked or chosen.
pub(crate) fn published(record: &DesiredRecord) -> Vec<EndpointPortConfig> {
    let parsed = spec::parse(&record.spec).unwrap_or_default();
    let chosen = ServiceState::of(record).ports;
    let ports = spec::ports(&parsed).into_iter().map(|mut port| {
        if port.published_port.unwrap_or_default() == 0 && spec::is_ingress(&port) {
            port.published_port = chosen.get(&key(&port)).map(|number| i64::from(*number));
        }
        port
    });
    ports.collect()
}

/// Chooses numbers for ports that are published without; those that were chosen before stay.
pub(super) fn choose(
    catalog: &Catalog,
    id: Option<&str>,
    wanted: &[EndpointPortConfig],
    before: &BTreeMap<String, u16>,
) -> Result<BTreeMap<String, u16>, Refusal> {
    let others = catalog.desired.all(DesiredKind::Service);
    let others = others.filter(|other| id != Some(&other.id));
    let taken = others
        .flat_map(|other| published(other))
        .chain(wanted.iter().cloned());
    let mut taken: BTreeSet<i64> = taken.filter_map(|port| port.published_port).collect();
    let mut chosen = BTreeMap::new();
    let open = wanted
        .iter()
        .filter(|port| spec::is_ingress(port) && port.published_port.unwrap_or_default() == 0);
    for port in open {
        let old = before.get(&key(port)).copied();
        let old = old.filter(|number| !taken.contains(&i64::from(*number)));
        let free = || {
            DYNAMIC
                .into_iter()
                .find(|number| !taken.contains(&i64::from(*number)))
        };
        let number = old.or_else(free).ok_or_else(|| {
            Refusal::conflict(format!(
                "no port is free of {} to {} for {}",
                DYNAMIC.start(),
                DYNAMIC.end(),
                key(port)
            ))
        })?;
        taken.insert(i64::from(number));
        chosen.insert(key(port), number);
    }
    Ok(chosen)
}

impl Daemon {
    /// Has this host a part in the network of published ports, once there are any.
    pub(in crate::daemon) async fn enter_ingress(&self) -> anyhow::Result<()> {
        let catalog = self.catalog();
        let mut services = catalog.desired.all(DesiredKind::Service);
        if !services.any(|service| {
            let offer = self.parsed.service(service);
            offer.ports.iter().any(spec::is_ingress)
        }) {
            return Ok(());
        }
        let Some(network) = catalog.network_named(INGRESS) else {
            return Ok(());
        };
        if self.own_blocks(&network.id).is_empty() {
            self.claim_block(network, network.subnet.into()).await?;
        }
        Ok(())
    }

    /// Each published port of a service leads to its tasks, wherever they run.
    pub(in crate::daemon) fn ingress_forwards(&self, sight: &Sight) -> Vec<ForwardSpec> {
        let ingress = sight.networks.iter().find(|network| match network {
            Network::Mesh(network) => network.name == INGRESS,
            Network::Local(_) => false,
        });
        let Some(ingress) = ingress else {
            return Vec::new();
        };
        let mut specs = Vec::new();
        let tasks = by_service(sight, ingress.id());
        for service in sight.catalog.desired.all(DesiredKind::Service) {
            let Some(tasks) = tasks.get(service.id.as_str()) else {
                continue; // it has none
            };
            let offer = self.parsed.service(service);
            for port in offer.ports.iter().filter(|port| spec::is_ingress(port)) {
                let target = u16::try_from(port.target_port.unwrap_or_default());
                let number = u16::try_from(port.published_port.unwrap_or_default());
                let (Ok(target), Ok(number @ 1..)) = (target, number) else {
                    continue;
                };
                let to = hosts(tasks, target);
                let protocol = match spec::protocol(port) {
                    "udp" => Protocol::Udp,
                    _ => Protocol::Tcp,
                };
                let at = Port { number, protocol };
                let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let v6 = has_v6().then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
                for address in [v4].into_iter().chain(v6) {
                    let family = if address.is_ipv4() { "" } else { "6" };
                    let name = format!("ingress{family}/{}/{at}", service.name);
                    specs.push(ForwardSpec {
                        target: Target::Host(to.clone()),
                        not_direct: Some(IS_INGRESS.to_owned()),
                        edge: EdgeSpec {
                            send_proxy: offer.proxy.filter(|_| protocol == Protocol::Tcp),
                            ..EdgeSpec::default()
                        },
                        ..forward(name, (address, at), &[], at)
                    });
                }
            }
        }
        specs
    }
}

/// The tasks that somebody may be led to, by service.
fn by_service<'a>(sight: &'a Sight, network: &str) -> BTreeMap<&'a str, Vec<&'a EndpointRecord>> {
    let mut found: BTreeMap<&str, Vec<&EndpointRecord>> = BTreeMap::new();
    for endpoint in sight.catalog.endpoints_in(network) {
        let is_led_to = endpoint.labels.contains_key(TASK_ID) && !endpoint.services.is_empty();
        if let Some(service) = endpoint.labels.get(SERVICE_ID).filter(|_| is_led_to) {
            found.entry(service).or_default().push(endpoint);
        }
    }
    found
}

/// Those of a service's tasks that newcomers are led to.
fn hosts(tasks: &[&EndpointRecord], port: u16) -> Vec<Host> {
    let fittest = EndpointHealth::fittest(tasks.iter().map(|endpoint| endpoint.health));
    let fit = tasks
        .iter()
        .filter(|endpoint| fittest.includes(endpoint.health));
    fit.map(|endpoint| Host {
        name: endpoint.address.to_string(),
        port,
        weight: weight_of(&endpoint.labels),
    })
    .collect()
}
