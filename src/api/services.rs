//! `/nuncio/v1/catalog` and `/nuncio/v1/services`: what can be found by name, and what is entered by hand.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use nuncio_registry::EndpointHealth;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::query::{Flag, Params};
use super::{Answer, Server, json};
use crate::daemon::outside::Wanted;
use crate::daemon::registered::{Kind, Registered};

/// Which of the services are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CatalogQuery {
    service: Option<String>,
    tag: Option<String>,
    /// By id or name.
    node: Option<String>,
    /// Only places that are to be used: whose checks go well, or that nobody checks.
    healthy: Flag,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Catalog {
    /// Of the registry; 0: it has not been heard from.
    revision: i64,
    /// Whether this may be out of date, as the registry does not answer.
    stale: bool,
    stale_since: Option<String>,
    services: Vec<Service>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    name: String,
    tags: BTreeSet<String>,
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    /// `container`, `external` or `imported`.
    kind: &'static str,
    /// An address, or the name of a host outside.
    address: String,
    /// As `6379/tcp`.
    ports: Vec<String>,
    tags: Vec<String>,
    /// `healthy`, `starting`, `unhealthy`, or `none` where nobody looks.
    health: &'static str,
    /// Why it is not well, if that is known.
    fault: Option<String>,
    #[serde(rename = "ContainerID")]
    container_id: Option<String>,
    container: Option<String>,
    #[serde(rename = "NetworkID")]
    network_id: Option<String>,
    network: Option<String>,
    /// The host that runs it, or that brings it in from another mesh.
    #[serde(rename = "NodeID")]
    node_id: Option<String>,
    node: Option<String>,
    /// Whether that host is heard of.
    alive: Option<bool>,
    /// The mesh it is of, if that is another one.
    peer: Option<String>,
}

/// A service that nuncio does not run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct Registration {
    name: String,
    to: Vec<String>,
    tags: Vec<String>,
    check: Option<String>,
    interval: Option<String>,
    timeout: Option<String>,
}

pub(crate) async fn catalog(State(daemon): Server, Params(query): Params<CatalogQuery>) -> Answer {
    let known = daemon.catalog();
    let networks: BTreeMap<String, String> = daemon
        .all_networks()
        .iter()
        .map(|network| (network.id().to_owned(), network.name().to_owned()))
        .collect();
    let view = View {
        networks: &networks,
        known: &known,
        here: &daemon.node.id,
    };
    let mut services = BTreeMap::<String, Service>::new();
    let name = query.service.as_ref().map(|name| name.to_ascii_lowercase());
    for one in daemon.registered(&known) {
        if name.as_ref().is_some_and(|name| *name != one.service) || !query.wants(&one, &view) {
            continue;
        }
        let service = services
            .entry(one.service.clone())
            .or_insert_with(|| Service {
                name: one.service.clone(),
                tags: BTreeSet::new(),
                endpoints: Vec::new(),
            });
        service.tags.extend(one.tags.iter().cloned());
        service.endpoints.push(view.endpoint(one));
    }
    let since = known
        .stale
        .and_then(|since| Timestamp::try_from(since).ok());
    json::sorted(Catalog {
        revision: known.revision,
        stale: known.stale.is_some() || known.revision == 0,
        stale_since: since.map(|since| since.to_string()),
        services: services.into_values().collect(),
    })
}

impl CatalogQuery {
    fn wants(&self, one: &Registered, view: &View<'_>) -> bool {
        let node = view.node_of(one);
        let is_node = |wanted: &String| {
            node.as_ref()
                .is_some_and(|(id, name)| id == wanted || name == wanted)
        };
        let is_well = matches!(
            one.health,
            EndpointHealth::Healthy | EndpointHealth::Unchecked
        );
        (is_well || !self.healthy.0)
            && self.tag.as_ref().is_none_or(|tag| one.tags.contains(tag))
            && self.node.as_ref().is_none_or(is_node)
    }
}

/// What is known beside what is registered.
struct View<'a> {
    networks: &'a BTreeMap<String, String>,
    known: &'a nuncio_registry::Catalog,
    here: &'a str,
}

impl View<'_> {
    /// Id and name of the host that a place depends on.
    fn node_of(&self, one: &Registered) -> Option<(String, String)> {
        match &one.kind {
            Kind::Container {
                node, node_name, ..
            } => Some((node.clone(), node_name.clone())),
            Kind::Imported { node, .. } => {
                let name = self.known.nodes.get(node).map(|known| known.name.clone());
                Some((node.clone(), name.unwrap_or_default()))
            }
            Kind::External => None,
        }
    }

    fn endpoint(&self, one: Registered) -> Endpoint {
        let node = self.node_of(&one);
        let is_alive = |id: &String| *id == self.here || self.known.alive.contains(id);
        let alive = node.as_ref().map(|(id, _)| is_alive(id));
        let (node_id, node) = node.unzip();
        let (kind, container, network_id, peer) = match one.kind {
            Kind::Container {
                id, name, network, ..
            } => ("container", Some((id, name)), Some(network), None),
            Kind::External => ("external", None, None, None),
            Kind::Imported { peer, .. } => ("imported", None, None, Some(peer)),
        };
        let (container_id, container) = container.unzip();
        Endpoint {
            kind,
            address: one.host,
            ports: one.ports.iter().map(ToString::to_string).collect(),
            tags: one.tags,
            health: one.health.word(),
            fault: one.fault,
            container_id,
            container,
            network: network_id
                .as_ref()
                .and_then(|id| self.networks.get(id).cloned()),
            network_id,
            node_id,
            node,
            alive,
            peer,
        }
    }
}

pub(crate) async fn register(
    State(daemon): Server,
    JsonBody(wanted): JsonBody<Registration>,
) -> Answer {
    let wanted = Wanted {
        name: wanted.name,
        to: wanted.to,
        tags: wanted.tags,
        check: wanted.check,
        interval: wanted.interval,
        timeout: wanted.timeout,
    };
    daemon.register_service(wanted).await?;
    Ok(StatusCode::CREATED.into_response())
}

pub(crate) async fn deregister(State(daemon): Server, Path(name): Path<String>) -> Answer {
    daemon.deregister_service(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
