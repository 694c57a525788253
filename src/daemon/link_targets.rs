//! Finding what `--link` names, on this host or on another.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;

use super::Daemon;
use super::config::{ContainerConfig, LinkRequest, NetworkMode, Port};
use super::container::{Container, locked};
use super::link_tls;
use super::networks::{DEFAULT_NETWORK, Network};
use super::outfit::hostname_of;
use super::record::{Link, LinkedContainer, Phase, Record};
use super::refusal::Refusal;

impl Daemon {
    /// Refuses links to what is nowhere; whether it can be linked to is seen at the start.
    pub(super) async fn check_links(&self, config: &ContainerConfig) -> anyhow::Result<()> {
        link_tls::check_labels(config)?;
        for request in &config.host.links {
            let target = &request.target;
            let is_known = || {
                self.container(target).is_ok()
                    || self.catalog().endpoints_named(target).next().is_some()
                    || !self.catalog().places(target).is_empty()
            };
            if !is_known() {
                self.catch_up().await; // it may have been started a moment ago
            }
            if !is_known() {
                return Err(no_link_target(target).into());
            }
        }
        Ok(())
    }

    /// Refuses links to nothing in user-defined networks, where a link is only a further name.
    pub(super) async fn check_link_targets(
        &self,
        record: &Record,
        joined: &[Network],
    ) -> anyhow::Result<()> {
        for request in &record.config.host.links {
            let here = self.container(&request.target).is_ok();
            let there = joined.iter().any(|network| {
                let catalog = self.catalog();
                catalog
                    .endpoints_in(network.id())
                    .any(|endpoint| endpoint.name == request.target)
            });
            let outside = !self.catalog().places(&request.target).is_empty();
            if !here && !there && !outside {
                return Err(no_link_target(&request.target).into());
            }
        }
        Ok(())
    }

    /// Finds what `--link` names: a container of this host, else one of another host, for which an
    /// address is set aside where this host's ambassador will stand in for it.
    pub(super) async fn resolve_links(&self, record: &Record) -> anyhow::Result<Vec<Link>> {
        let mut links = Vec::new();
        for request in &record.config.host.links {
            let link = match self.container(&request.target) {
                Ok(target) => local_link(&target.view(), &request.alias)?,
                Err(_) => {
                    let plain = link_tls::is_plain(&record.config, &request.alias);
                    self.remote_link(request, plain).await?
                }
            };
            links.push(link);
        }
        Ok(links)
    }

    async fn remote_link(&self, request: &LinkRequest, plain: bool) -> anyhow::Result<Link> {
        let LinkRequest { target, alias, .. } = request;
        let mut exposed = self.exposed_elsewhere(target);
        if exposed.is_none() {
            self.catch_up().await; // it may have been started a moment ago
            exposed = self.exposed_elsewhere(target);
        }
        let Some(mut ports) = exposed else {
            return Err(no_link_target(target).into());
        };
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() {
            return Err(Refusal::invalid(format!(
                "cannot link to {target} on another host: it exposes no port; start it with --expose PORT"
            ))
            .into());
        }
        let default = self
            .mesh_default()
            .map(Network::Mesh)
            .context("no default network")?;
        let owner = link_owner(target, plain);
        let (address, _) = self.allocate(&default, &owner, None).await?;
        let (target, alias) = (target.to_owned(), alias.to_owned());
        Ok(Link {
            target,
            alias,
            address,
            remote: true,
            plain,
            ports,
            local: None,
        })
    }

    /// The ports of what is called so and is not on this host; `None` if nothing is.
    fn exposed_elsewhere(&self, target: &str) -> Option<Vec<Port>> {
        let catalog = self.catalog();
        let endpoints = self.remote_endpoints(&catalog, target);
        if !endpoints.is_empty() {
            return Some(endpoints.into_iter().flat_map(|(_, ports)| ports).collect());
        }
        let registered = self.registered(&catalog).into_iter();
        let outside = registered.filter(|one| one.service == target && one.network().is_none());
        let ports: Vec<Port> = outside.flat_map(|one| one.ports).collect();
        (!ports.is_empty()).then_some(ports)
    }

    /// The containers that are linked to others.
    pub(crate) fn linking(&self) -> Vec<Record> {
        let linking = self.containers().into_iter();
        let linking = linking.filter(|container| container.has_links());
        linking.map(|container| container.view()).collect()
    }

    /// The names by which those of `linking` are linked to a container, as `/web/db`.
    pub(crate) fn link_names(linking: &[Record], target: &Record) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for other in linking {
            let on_default = other.config.host.network == NetworkMode::Default;
            let links = other.config.host.links.iter().filter(|_| on_default);
            let to_it = links.filter(|link| {
                link.target == target.name
                    || link.target.len() >= 12 && target.id.starts_with(&link.target)
            });
            names.extend(to_it.map(|link| format!("/{}/{}", other.name, link.alias)));
        }
        names.sort_unstable();
        names
    }

    /// Takes a link away from the container that has it: at once, if it runs, from its hosts file.
    pub(crate) async fn unlink(
        &self,
        container: &Arc<Container>,
        alias: &str,
    ) -> anyhow::Result<()> {
        let _turn = container.turn.lock().await;
        let record = container.view();
        let is_it = |link: &LinkRequest| link.alias == alias;
        if !record.config.host.links.iter().any(is_it) {
            let message = format!("No such link: /{}/{alias}", record.name);
            return Err(Refusal::not_found(message).into());
        }
        container.update(|record| {
            record.config.host.links.retain(|link| link.alias != alias);
            record.links.retain(|link| link.alias != alias);
        })?;
        if container.is_running() {
            self.write_files(container, &container.view())?;
        }
        self.sync().await?;
        self.release_unused_links()
    }

    /// Frees the stand-in addresses of links that no container has any more.
    pub(super) fn release_unused_links(&self) -> anyhow::Result<()> {
        let mut wanted = BTreeSet::new();
        for container in self.containers() {
            wanted.extend(
                container
                    .view()
                    .links
                    .iter()
                    .filter(|link| link.remote)
                    .map(|link| link_owner(&link.target, link.plain)),
            );
        }
        let mut addresses = locked(&self.addresses);
        for owner in addresses.owners() {
            if owner.starts_with("link:") && !wanted.contains(&owner) {
                addresses.release(&owner)?;
            }
        }
        Ok(())
    }
}

/// Who holds the address at which the ambassador stands in for `target`.
fn link_owner(target: &str, plain: bool) -> String {
    format!("link:{target}{}", if plain { "/plain" } else { "" })
}

fn no_link_target(target: &str) -> Refusal {
    Refusal::invalid(format!(
        "could not get container for {target}: No such container: {target} on this host, nor one that runs on another"
    ))
}

fn local_link(target: &Record, alias: &str) -> anyhow::Result<Link> {
    let running = matches!(target.phase, Phase::Running { .. });
    if !running {
        let message = format!(
            "Cannot link to a non running container: /{} AS {alias}",
            target.name
        );
        return Err(Refusal::conflict(message).into());
    }
    let Some(endpoint) = target.endpoints.get(DEFAULT_NETWORK) else {
        let message = format!(
            "Cannot link to /{}, as it does not belong to the default network",
            target.name
        );
        return Err(Refusal::conflict(message).into());
    };
    let mut ports = target.config.exposed.clone();
    ports.extend(target.published.iter().map(|published| published.port));
    Ok(Link {
        target: target.name.clone(),
        alias: alias.to_owned(),
        address: endpoint.address,
        remote: false,
        plain: false,
        ports,
        local: Some(LinkedContainer {
            id: target.id.clone(),
            hostname: hostname_of(target),
            env: target.config.env.clone(),
        }),
    })
}
