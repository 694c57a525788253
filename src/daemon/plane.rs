//! One view of what is known, and the host brought to it: kernel, ambassador and name server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context;
use nuncio_overlay::{
    HostBridge, HostState, Kernel, host_bridge, inner_mtu, mtu_of_address, sealed_mtu,
};
use nuncio_registry::{Catalog, EndpointHealth};

use super::Daemon;
use super::config::{ContainerConfig, Port, Protocol};
use super::container::locked;
use super::health::HealthStatus;
use super::networks::Network;
use super::node::Identity;
use super::offering::{IGNORED, is_ignored, services_of};
use super::outfit::CGROUP_PARENT;
use super::record::Record;
use super::services::{LABEL, Service, health_of};

/// One view of everything that decides what this host does, so that all parts agree.
pub(super) struct Sight {
    pub(super) catalog: std::sync::Arc<Catalog>,
    pub(super) networks: Vec<Network>,
    /// The bridges of those on one that is not ours, as far as they are there.
    pub(super) bridges: BTreeMap<String, HostBridge>,
    /// Containers that run or are about to.
    pub(super) active: Vec<Record>,
    /// The ids of those that have been asked to end.
    pub(super) leaving: BTreeSet<String>,
    /// How those are that are checked, by id.
    pub(super) health: BTreeMap<String, HealthStatus>,
    /// MTU of this host's link to the underlay, and of what fits into VXLAN on it.
    pub(super) underlay: u16,
    pub(super) mtu: u16,
    /// The same of encrypted networks.
    pub(super) sealed_mtu: u16,
    pub(super) services: Vec<Service>,
    /// Where containers have their cgroups in the hierarchy of cgroup2, if there is one.
    pub(super) cgroup2: Option<PathBuf>,
}

impl Daemon {
    /// Brings kernel, ambassador and name server to what is wanted now.
    pub(crate) async fn sync(&self) -> anyhow::Result<()> {
        let mut kernel = self.kernel.lock().await;
        self.weigh_fallback();
        let sight = self.sight().await?;
        let state = self.host_state(&sight)?;
        self.probe_paths(&state, sight.underlay).await;
        self.program(&mut kernel, state).await?;
        let unserved = self.ambassador.configure(&self.forwards(&sight)).await?;
        self.note_unserved(unserved);
        self.ambassador.name(&self.names(&sight)).await?;
        self.seal(&sight).await;
        self.release_unused_services(&sight)
    }

    /// With `--no-repair` only when something else is wanted than before.
    async fn program(&self, kernel: &mut Kernel, state: HostState) -> anyhow::Result<()> {
        if !self.options.repair && locked(&self.programmed).as_ref() == Some(&state) {
            return Ok(());
        }
        let reconciled = kernel.reconcile(&state).await;
        self.tell_repairs(kernel.take_repaired());
        let report = reconciled.context("program the kernel")?;
        if report.changes() > 0 {
            tracing::debug!(?report, "kernel changed");
        }
        if !self.options.repair {
            *locked(&self.programmed) = Some(state);
        }
        Ok(())
    }

    /// Greatest packet of a network that no option of its own makes smaller.
    pub(super) async fn mtu(&self, sealed: bool) -> anyhow::Result<u16> {
        self.fits_into(mtu_of_address(self.node.address).await?, sealed)
    }

    /// Greatest packet of a container's link to a network.
    pub(super) async fn mtu_in(&self, network: &Network) -> anyhow::Result<u16> {
        if !network.is_adopted() {
            return Ok(network.mtu(self.mtu(network.is_sealed()).await?));
        }
        // A smaller one would become that of the bridge.
        let bridge = host_bridge(&network.bridge()).await?;
        let bridge = bridge.with_context(|| format!("there is no bridge {}", network.bridge()))?;
        Ok(bridge.mtu)
    }

    fn fits_into(&self, underlay: u16, sealed: bool) -> anyhow::Result<u16> {
        let within = if sealed { sealed_mtu } else { inner_mtu };
        Ok(within(underlay, self.node.address.is_ipv6())?)
    }

    pub(super) async fn sight(&self) -> anyhow::Result<Sight> {
        let containers = self.containers();
        let active = containers
            .iter()
            .filter(|container| container.is_active())
            .map(|container| container.view());
        let leaving = containers
            .iter()
            .filter(|container| container.is_leaving())
            .map(|container| container.id.clone());
        let health = containers
            .iter()
            .filter_map(|container| Some((container.id.clone(), container.health()?.status)));
        let underlay = mtu_of_address(self.node.address).await?;
        *locked(&self.underlay_mtu) = Some(underlay);
        let bridges = self.adopted_bridges().await;
        let mut sight = Sight {
            active: active.collect(),
            leaving: leaving.collect(),
            health: health.collect(),
            catalog: self.catalog(),
            networks: self.all_networks(),
            bridges,
            underlay,
            mtu: self.fits_into(underlay, false)?,
            sealed_mtu: self.fits_into(underlay, true)?,
            services: Vec::new(),
            cgroup2: nuncio_runtime::cgroup2(CGROUP_PARENT),
        };
        sight.services = self.services(&sight);
        Ok(sight)
    }

    /// Where a container of the default network runs on other hosts, and what it exposes.
    pub(super) fn remote_endpoints(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Vec<(Ipv4Addr, Vec<Port>)> {
        let Some(default) = self.mesh_default() else {
            return Vec::new();
        };
        let found = catalog.endpoints_in(&default.id);
        found
            .filter(|endpoint| endpoint.name == name && endpoint.node != self.node.id)
            .filter(|endpoint| endpoint.health != EndpointHealth::Unhealthy)
            .map(|endpoint| {
                (
                    endpoint.address,
                    endpoint.ports.iter().map(port_of).collect(),
                )
            })
            .collect()
    }

    /// Tells other hosts of a container that runs.
    pub(super) fn publish(&self, record: &Record) {
        let local = locked(&self.local_networks).clone();
        let container = self.container(&record.id).ok();
        let is_leaving = container
            .as_ref()
            .is_some_and(|container| container.is_leaving());
        let health = container.and_then(|container| Some(container.health()?.status));
        for mut endpoint in registrations(record, &self.node, |network| local.contains_key(network))
        {
            endpoint.health = health_of(health);
            if is_leaving {
                endpoint.services.clear();
                endpoint.labels.remove(LABEL);
            }
            self.presence.publish(endpoint);
        }
    }

    /// Drops what is left of networks that the registry says are gone.
    pub(super) async fn forget_removed_networks(&self) -> anyhow::Result<()> {
        let known: Vec<String> = locked(&self.blocks).keys().cloned().collect();
        let catalog = self.catalog();
        let missing: Vec<String> = known
            .into_iter()
            .filter(|id| !catalog.networks.contains_key(id))
            .collect();
        if missing.is_empty() || catalog.stale.is_some() {
            return Ok(());
        }
        let there = self.registry.networks().await?;
        for id in missing
            .iter()
            .filter(|id| !there.iter().any(|network| network.id == **id))
        {
            self.forget_network(id)?;
        }
        Ok(())
    }
}

/// What other hosts should know of a container: its place in each of the mesh's networks.
pub(super) fn registrations(
    record: &Record,
    node: &Identity,
    is_local: impl Fn(&str) -> bool,
) -> Vec<nuncio_registry::EndpointRecord> {
    let endpoints = record
        .endpoints
        .values()
        .filter(|endpoint| !is_local(&endpoint.network_id));
    endpoints
        .map(|endpoint| nuncio_registry::EndpointRecord {
            network: endpoint.network_id.clone(),
            id: record.id.clone(),
            name: record.name.clone(),
            node: node.id.clone(),
            node_name: node.name.clone(),
            address: endpoint.address,
            address_v6: endpoint.v6.map(|v6| v6.address),
            aliases: endpoint.aliases.clone(),
            ports: record.config.exposed.iter().map(record_of).collect(),
            labels: labels_for_others(&record.config),
            services: services_of(&record.config),
            health: EndpointHealth::Unchecked,
        })
        .collect()
}

fn labels_for_others(config: &ContainerConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    if is_ignored(config) {
        labels.insert(IGNORED.to_owned(), String::new());
    }
    labels
}

pub(super) fn record_of(port: &Port) -> nuncio_registry::PortRecord {
    let protocol = match port.protocol {
        Protocol::Tcp => nuncio_registry::Protocol::Tcp,
        Protocol::Udp => nuncio_registry::Protocol::Udp,
    };
    nuncio_registry::PortRecord {
        port: port.number,
        protocol,
    }
}

pub(super) fn port_of(port: &nuncio_registry::PortRecord) -> Port {
    let protocol = match port.protocol {
        nuncio_registry::Protocol::Tcp => Protocol::Tcp,
        nuncio_registry::Protocol::Udp => Protocol::Udp,
    };
    Port {
        number: port.port,
        protocol,
    }
}
