//! Services that nuncio does not run: entered by hand, checked by one host for all, and resolved by each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use nuncio_ambassador::{Check, CheckKind, Host};
use nuncio_registry::{
    Catalog, CheckRecord, Protocol, ServiceHealthRecord, ServiceRecord, Upstream, lookup,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Daemon;
use super::container::locked;
use super::refusal::Refusal;
use super::service_check;
use super::services::{EXPECTED, is_name};

/// Places of one service.
const MOST_PLACES: usize = 64;
/// Names of hosts outside that are resolved; those beyond have no address here.
const MOST_HOSTS: usize = 1024;
/// Tags of one service.
const MOST_TAGS: usize = 32;
/// How long an address is believed.
const RESOLVE: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_millis(250);
/// Checks that fail in a row, before a place is taken for down.
const FALL: u32 = 2;
/// Connections and queries at once.
const AT_ONCE: usize = 64;
const USUAL_INTERVAL: &str = "5s";
const USUAL_TIMEOUT: &str = "2s";

/// What is known of hosts outside.
#[derive(Default)]
pub(super) struct Outside {
    addresses: Mutex<BTreeMap<String, Vec<IpAddr>>>,
}

impl Outside {
    /// Those of a host's name, as last resolved.
    pub(super) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        locked(&self.addresses)
            .get(host)
            .cloned()
            .unwrap_or_default()
    }
}

/// A service as somebody wants it entered.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// As `tcp://HOST:PORT[,…]`.
    pub(crate) to: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// `tcp` or `http:/PATH`.
    pub(crate) check: Option<String>,
    pub(crate) interval: Option<String>,
    pub(crate) timeout: Option<String>,
}

impl TryFrom<Wanted> for ServiceRecord {
    type Error = Refusal;

    fn try_from(wanted: Wanted) -> Result<Self, Refusal> {
        if !is_name(&wanted.name) {
            let name = &wanted.name;
            return Err(Refusal::invalid(format!(
                "invalid service name {name:?}: {EXPECTED}"
            )));
        }
        let (protocol, upstreams) = places(&wanted.to)?;
        let check = check(&wanted)?;
        if check.is_some() && protocol == Protocol::Udp {
            return Err(Refusal::invalid(
                "a service over UDP cannot be checked: datagrams prove nothing to who sends them",
            ));
        }
        let tags: BTreeSet<String> = wanted.tags.into_iter().collect();
        if let Some(tag) = tags.iter().find(|tag| tag.is_empty() || tag.len() > 63) {
            return Err(Refusal::invalid(format!(
                "invalid tag {tag:?}: expected 1 to 63 bytes"
            )));
        }
        if tags.len() > MOST_TAGS {
            return Err(Refusal::invalid(format!(
                "{} tags: a service has {MOST_TAGS} at most",
                tags.len()
            )));
        }
        Ok(Self {
            name: wanted.name.to_ascii_lowercase(),
            upstreams,
            protocol,
            tags: tags.into_iter().collect(),
            check,
        })
    }
}

/// The places in `tcp://HOST:PORT,…`; after the first one the scheme may be left out.
fn places(texts: &[String]) -> Result<(Protocol, Vec<Upstream>), Refusal> {
    let mut protocol = None;
    let mut upstreams = Vec::<Upstream>::new();
    for text in texts.iter().flat_map(|text| text.split(',')) {
        let (scheme, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (Some(Protocol::Tcp), rest),
            Some(("udp", rest)) => (Some(Protocol::Udp), rest),
            Some((scheme, _)) => {
                return Err(Refusal::invalid(format!(
                    "unknown scheme {scheme:?} in {text:?}: expected tcp://HOST:PORT or udp://HOST:PORT"
                )));
            }
            None => (protocol, text),
        };
        let Some(scheme) = scheme else {
            return Err(no_place(text));
        };
        if *protocol.get_or_insert(scheme) != scheme {
            return Err(Refusal::invalid(format!(
                "{text:?} is of another protocol than the first one: register a service for each"
            )));
        }
        let upstream = place(rest).ok_or_else(|| no_place(text))?;
        if !upstreams.contains(&upstream) {
            upstreams.push(upstream);
        }
    }
    let Some(protocol) = protocol else {
        return Err(Refusal::invalid(
            "a service needs a place: give it tcp://HOST:PORT",
        ));
    };
    if upstreams.len() > MOST_PLACES {
        let number = upstreams.len();
        return Err(Refusal::invalid(format!(
            "{number} places: a service has {MOST_PLACES} at most"
        )));
    }
    Ok((protocol, upstreams))
}

fn no_place(text: &str) -> Refusal {
    Refusal::invalid(format!(
        "{text:?} is no place: expected tcp://HOST:PORT or udp://HOST:PORT, with a port from 1 to 65535"
    ))
}

fn place(text: &str) -> Option<Upstream> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .filter(|inner| inner.contains(':'))?,
        None => host,
    };
    let part = |part: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !part.is_empty() && part.len() <= 63 && part.bytes().all(inside)
    };
    let is_host = host.parse::<IpAddr>().is_ok()
        || host.len() <= 253
            && host.split('.').all(part)
            && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_host.then(|| Upstream {
        host: host.to_owned(),
        port,
        weight: NonZeroU16::MIN,
    })
}

fn check(wanted: &Wanted) -> Result<Option<CheckRecord>, Refusal> {
    let time = |text: &Option<String>, usual: &str, what: &str| {
        let text = text.as_deref().unwrap_or(usual);
        service_check::span(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "invalid {what} {text:?}: expected 100ms to 1h, as 5s"
            ))
        })
    };
    let interval = time(&wanted.interval, USUAL_INTERVAL, "interval")?;
    let timeout = time(&wanted.timeout, USUAL_TIMEOUT, "timeout")?;
    let http = match wanted.check.as_deref() {
        None | Some("") => return Ok(None),
        Some("tcp") => None,
        Some(text) => match text
            .strip_prefix("http:")
            .filter(|path| service_check::is_path(path))
        {
            Some(path) => Some(path.to_owned()),
            None => {
                return Err(Refusal::invalid(format!(
                    "invalid check {text:?}: expected tcp or http:/PATH"
                )));
            }
        },
    };
    Ok(Some(CheckRecord {
        http,
        interval,
        timeout,
    }))
}

impl Daemon {
    /// Enters a service, or replaces the one that was entered under its name.
    pub(crate) async fn register_service(&self, wanted: Wanted) -> anyhow::Result<()> {
        let service = ServiceRecord::try_from(wanted)?;
        self.catch_up().await;
        let catalog = self.catalog();
        let named = self.registered(&catalog).into_iter();
        let holder = named
            .filter(|one| one.service == service.name)
            .find_map(|one| one.kind.holder());
        let holder = holder.or_else(|| self.container_called(&catalog, &service.name));
        if let Some(other) = holder {
            let name = &service.name;
            return Err(Refusal::conflict(format!(
                "the name {name} is taken by {other}: choose another one"
            ))
            .into());
        }
        self.registry.put_service(&service).await?;
        tracing::info!(service = service.name, "a service outside is registered");
        self.catch_up().await;
        self.sync().await
    }

    /// Which container is found by a name, whether or not it exposes something.
    fn container_called(&self, catalog: &Catalog, name: &str) -> Option<String> {
        let here = self
            .containers()
            .into_iter()
            .map(|container| container.name());
        let there = catalog
            .endpoints_named(name)
            .map(|endpoint| endpoint.name.clone());
        let mut found = here
            .filter(|here| here.eq_ignore_ascii_case(name))
            .chain(there);
        Some(format!("container {}", found.next()?))
    }

    pub(crate) async fn deregister_service(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_ascii_lowercase();
        if !is_name(&name) || !self.registry.remove_service(&name).await? {
            return Err(Refusal::not_found(format!(
                "no such external service: {name}; nuncio service ls shows those that there are"
            ))
            .into());
        }
        tracing::info!(service = name, "a service outside is deregistered");
        self.catch_up().await;
        self.sync().await
    }

    /// Where an external service is led to by a link, at one of its ports.
    pub(super) fn outside_hosts(catalog: &Catalog, name: &str, port: u16) -> Vec<Host> {
        if catalog.places(name).is_empty() {
            return Vec::new();
        }
        let upstreams = catalog.upstreams(name, Some(port)).into_iter();
        let host = |upstream: Upstream| Host {
            name: upstream.host,
            port: upstream.port,
            weight: upstream.weight,
        };
        upstreams.map(host).collect()
    }

    /// Checks what it is this host's turn to check, and resolves names, for ever.
    pub(super) async fn look_outside(self: Arc<Self>) {
        let mut resolved = Instant::now();
        let mut hosts = BTreeSet::new();
        let mut watches = BTreeMap::<String, Watch>::new();
        loop {
            sleep(LOOK).await;
            let catalog = self.catalog();
            let wanted = names(&catalog);
            if wanted != hosts || resolved.elapsed() >= RESOLVE && !wanted.is_empty() {
                (hosts, resolved) = (wanted, Instant::now());
                self.resolve(&hosts).await;
            }
            watches.retain(|name, watch| {
                let service = catalog.services.get(name);
                service.is_some_and(|service| {
                    **service == *watch.service && keeper(&catalog, name) == Some(&self.node.id)
                })
            });
            for (name, service) in &catalog.services {
                let is_mine = || keeper(&catalog, name) == Some(&self.node.id);
                if service.check.is_some() && !watches.contains_key(name) && is_mine() {
                    watches.insert(name.clone(), Watch::new(Arc::clone(service)));
                }
            }
            let due = watches
                .values_mut()
                .filter(|watch| watch.due <= Instant::now());
            join_all(due.map(|watch| watch.look(self.outside_room.clone()))).await;
            for watch in watches.values().filter(|watch| watch.is_known()) {
                self.tell_outside(&catalog, watch).await;
            }
        }
    }

    /// Says how a service's places are, if that is not what is said already.
    async fn tell_outside(&self, catalog: &Catalog, watch: &Watch) {
        let health = ServiceHealthRecord {
            name: watch.service.name.clone(),
            node: self.node.id.clone(),
            places: watch.places(),
        };
        let said = catalog.service_health.get(&health.name);
        let lease = self.presence.state().borrow().lease;
        let (Some(lease), false) = (lease, said.is_some_and(|said| **said == health)) else {
            return; // nobody would hear it now, or all know it
        };
        for (place, fault) in &health.places {
            tracing::info!(
                service = health.name,
                place,
                fault,
                "a place outside was looked at"
            );
        }
        match self.registry.put_service_health(&health, lease).await {
            Ok(()) => self.catch_up().await,
            Err(error) => tracing::debug!(%error, "say how a service outside is"),
        }
    }

    async fn resolve(&self, hosts: &BTreeSet<String>) {
        let mut queries = JoinSet::new();
        for host in hosts.iter().cloned() {
            let room = self.outside_room.clone();
            queries.spawn(async move {
                let _turn = room.acquire().await;
                let found = lookup(&host, RESOLVE_TIMEOUT).await;
                (host, found.map_err(|error| error.to_string()))
            });
        }
        let mut next = locked(&self.outside.addresses).clone();
        next.retain(|host, _| hosts.contains(host));
        while let Some(Ok((host, found))) = queries.join_next().await {
            match found {
                Ok(address) => drop(next.insert(host, vec![address])),
                // What was known of it may well be so still.
                Err(error) => tracing::debug!(host, error, "resolve a host outside"),
            }
        }
        let changed = {
            let mut known = locked(&self.outside.addresses);
            let changed = *known != next;
            *known = next;
            changed
        };
        if changed && let Err(error) = self.sync().await {
            tracing::warn!(error = format!("{error:#}"), "tell names of hosts outside");
        }
    }
}

/// The hosts outside that have to be resolved.
fn names(catalog: &Catalog) -> BTreeSet<String> {
    let upstreams = catalog
        .services
        .values()
        .flat_map(|service| &service.upstreams);
    let named = upstreams.filter(|upstream| upstream.host.parse::<IpAddr>().is_err());
    named
        .map(|upstream| upstream.host.clone())
        .take(MOST_HOSTS)
        .collect()
}

/// Which of the hosts that live looks at a service for all: each finds the same one, without asking. While they do not
/// agree on who lives, two may look, and say the same.
fn keeper<'a>(catalog: &'a Catalog, service: &str) -> Option<&'a String> {
    let rank = |node: &&String| {
        let mut hasher = DefaultHasher::new();
        (service, node).hash(&mut hasher);
        hasher.finish()
    };
    catalog.alive.iter().min_by_key(rank)
}

/// A service that this host looks at.
struct Watch {
    service: Arc<ServiceRecord>,
    due: Instant,
    /// For each place how often in a row it has failed, and why; `None` before the first look.
    found: Vec<Option<(u32, String)>>,
}

impl Watch {
    fn new(service: Arc<ServiceRecord>) -> Self {
        let found = vec![None; service.upstreams.len()];
        Self {
            service,
            due: Instant::now(),
            found,
        }
    }

    fn is_known(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    async fn look(&mut self, room: Arc<Semaphore>) {
        let Some(record) = &self.service.check else {
            return;
        };
        let check = check_of(record);
        self.due = Instant::now() + record.interval;
        let looks = self.service.upstreams.iter().map(|upstream| {
            let (check, room) = (&check, room.clone());
            async move {
                let _turn = room.acquire().await;
                look(check, upstream).await
            }
        });
        let results = join_all(looks).await;
        for (found, result) in self.found.iter_mut().zip(results) {
            *found = Some(match (result, found.take()) {
                (Ok(()), _) => (0, String::new()),
                // The first look decides alone.
                (Err(fault), None) => (FALL, fault),
                (Err(fault), Some((failed, _))) => (failed.saturating_add(1), fault),
            });
        }
    }

    /// What is to be said of each place: nothing of those that are well.
    fn places(&self) -> BTreeMap<String, String> {
        let places = self.service.upstreams.iter().zip(&self.found);
        let said = places.map(|(upstream, found)| {
            let failed = found.as_ref().filter(|(failed, _)| *failed >= FALL);
            let fault = failed.map(|(_, fault)| fault.clone());
            (upstream.to_string(), fault.unwrap_or_default())
        });
        said.collect()
    }
}

fn check_of(record: &CheckRecord) -> Check {
    let kind = record
        .http
        .as_deref()
        .map_or(CheckKind::Tcp, service_check::http);
    Check {
        interval: record.interval,
        timeout: record.timeout,
        ..Check::new(kind)
    }
}

async fn look(check: &Check, upstream: &Upstream) -> Result<(), String> {
    let address = match upstream.host.parse() {
        Ok(address) => address,
        Err(_) => lookup(&upstream.host, check.timeout)
            .await
            .map_err(|error| format!("resolve {}: {error}", upstream.host))?,
    };
    check.ask(SocketAddr::new(address, upstream.port)).await
}

/// Room for what looks outside.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(to: &str) -> Wanted {
        Wanted {
            name: "Redis".to_owned(),
            to: vec![to.to_owned()],
            ..Wanted::default()
        }
    }

    fn refused(wanted: Wanted) -> String {
        ServiceRecord::try_from(wanted)
            .expect_err("refused")
            .message
    }

    #[test]
    fn places_are_addresses_or_names_with_ports() {
        let service =
            ServiceRecord::try_from(wanted("tcp://db.lan:1,10.0.0.1:2,tcp://[fd00::1]:3"))
                .expect("a service");
        let shown: Vec<_> = service.upstreams.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["db.lan:1", "10.0.0.1:2", "[fd00::1]:3"]);
        assert_eq!(service.name, "redis");
    }

    #[test]
    fn what_is_no_service_is_refused_by_what_is_wrong() {
        assert!(refused(wanted("http://a:1")).contains("unknown scheme \"http\""));
        for wrong in [
            "",
            "a:1",
            "tcp://",
            "tcp://a",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://1.2.3:1",
            "tcp://[a]:1",
            "tcp://a b:1",
        ] {
            assert!(refused(wanted(wrong)).contains("is no place"), "{wrong:?}");
        }
        assert!(refused(wanted("tcp://a:1,udp://a:2")).contains("another protocol"));
        let named = Wanted {
            name: "a/b".to_owned(),
            ..wanted("tcp://a:1")
        };
        assert!(refused(named).contains("invalid service name \"a/b\""));
        let many = (1..=65)
            .map(|port| format!("tcp://a:{port}"))
            .collect::<Vec<_>>();
        assert!(refused(wanted(&many.join(","))).contains("64 at most"));
        let check = |check: &str, to: &str| Wanted {
            check: Some(check.to_owned()),
            ..wanted(to)
        };
        assert!(refused(check("icmp", "tcp://a:1")).contains("expected tcp or http:/PATH"));
        assert!(refused(check("tcp", "udp://a:1")).contains("over UDP cannot be checked"));
        let slow = Wanted {
            interval: Some("2d".to_owned()),
            ..wanted("tcp://a:1")
        };
        assert!(refused(slow).contains("invalid interval \"2d\""));
    }

    #[test]
    fn all_hosts_find_the_same_keeper_among_those_who_live() {
        let mut catalog = Catalog::default();
        assert_eq!(keeper(&catalog, "redis"), None);
        catalog.alive = (0..8).map(|n| format!("node-{n}")).collect();
        let first = keeper(&catalog, "redis").expect("one").clone();
        catalog.alive.remove(&first);
        let second = keeper(&catalog, "redis").expect("another");
        assert_ne!(*second, first);
        let keepers: BTreeSet<_> = (0..64)
            .map(|n| keeper(&catalog, &format!("s{n}")))
            .collect();
        assert!(keepers.len() > 3, "the work is spread");
    }

    #[test]
    fn a_place_is_down_after_two_failures_in_a_row_or_the_first_of_all() {
        let service = ServiceRecord::try_from(wanted("tcp://10.0.0.1:1")).expect("a service");
        let mut watch = Watch::new(Arc::new(service));
        assert!(!watch.is_known());
        watch.found = vec![Some((0, String::new()))];
        assert_eq!(watch.places()["10.0.0.1:1"], "");
        watch.found = vec![Some((1, "refused".to_owned()))];
        assert_eq!(watch.places()["10.0.0.1:1"], "");
        watch.found = vec![Some((2, "refused".to_owned()))];
        assert_eq!(watch.places()["10.0.0.1:1"], "refused");
    }
}
