//! Starting a container: from its record to a running process, or back to nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use ipnetwork::IpNetwork;
use nuncio_overlay::{AttachRequest, MacAddr, NetNs, Place, attach, veth_name};
use nuncio_runtime::{Shim, bundle};

use super::config::{ContainerConfig, EndpointRequest, NetworkMode, Port};
use super::container::Container;
use super::health::{self, Health};
use super::networks::{DEFAULT_NETWORK, Network};
use super::offering::services_of;
use super::outfit::owns_namespace;
use super::record::{Endpoint, Phase, PublishedPort, Record, StartFailure};
use super::refusal::Refusal;
use super::{Daemon, ports};

/// Who starts a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Starter {
    User,
    /// Its restart policy.
    Policy,
}

impl Daemon {
    /// Starts a container by request; `false` if it runs already. A start that fails leaves nothing of it on the host.
    pub(crate) async fn start(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> anyhow::Result<bool> {
        let _turn = container.turn.lock().await;
        if container.is_running() {
            return Ok(false);
        }
        container.set_status(|status| status.restarting = false);
        let started = self.start_by(container, Starter::User).await;
        let auto_remove = container.view().config.host.auto_remove;
        if started.is_err()
            && auto_remove
            && !container.status().borrow().removed
            && let Err(error) = self.discard(container, true).await
        {
            tracing::error!(
                id = container.id,
                error = format!("{error:#}"),
                "remove after a failed start"
            );
        }
        started.map(|()| true)
    }

    /// Starts a container whose turn the caller has, and which does not run.
    pub(super) async fn start_by(
        self: &Arc<Self>,
        container: &Arc<Container>,
        starter: Starter,
    ) -> anyhow::Result<()> {
        if container.status().borrow().removed {
            return Err(Refusal::not_found(format!("No such container: {}", container.id)).into());
        }
        container.set_status(|status| status.error.clear());
        match self.bring_up(container, starter).await {
            Ok(shim) => {
                tracing::info!(id = container.id, name = container.name(), "started");
                let record = container.view();
                self.tell_mounts(&record);
                self.tell_networks(&record, "connect");
                self.tell(container, "start");
                self.watch_health(container, Health::new());
                self.watch_over(Arc::clone(container), shim);
                Ok(())
            }
            Err(error) => {
                let text = format!("{error:#}");
                container.abandon();
                if let Err(leftover) = self.tear_down(container).await {
                    tracing::error!(
                        id = container.id,
                        error = format!("{leftover:#}"),
                        "undo a failed start"
                    );
                }
                note_failure(container, starter, text);
                Err(blame(error))
            }
        }
    }

    async fn bring_up(
        &self,
        container: &Arc<Container>,
        starter: Starter,
    ) -> anyhow::Result<Arc<Shim>> {
        let record = container.view();
        let image = self.find_image(&record.image_id).await?;
        if record.unprepared {
            self.prepare_mounts(container, &image).await?;
        }
        let rootfs = self.images.mount(&image, &container.directory).await?;
        let joined = self.join_networks(container).await?;
        if let Err(error) = self.announce_links().await {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "other hosts will let in links that are not encrypted later"
            );
        }
        if owns_namespace(&record.config.host.network) {
            NetNs::remove(&container.netns)?;
            NetNs::create(&container.netns).await?;
        }
        container.set_health(health::begun(&record.config));
        container.set_active(true);
        self.sync().await?;
        self.require_ports(&container.view())?;
        self.require_sealed(&container.view())?;
        for network in &joined {
            self.plug(container, network).await?;
        }
        let mounts = self.mount_sources(&record).await?;
        let spec = self.spec(container, rootfs.merged, mounts)?;
        bundle::write(&container.run_directory, &spec)?;
        let shim = Arc::new(self.shims.spawn(&container.run_directory).await?);
        container.adopt(Arc::clone(&shim)).await?;
        if let Some((rows, columns)) = record.config.terminal_size {
            shim.resize(columns, rows).await?;
        }
        if self.may_use_services(&container.view()) {
            self.sync().await?; // its cgroup is there now, and none of its processes has begun
        }
        let pid = shim.state().await?.pid.unwrap_or_default(); // asked first: it may end at once
        shim.start().await?;
        container.update(|record| {
            record.phase = Phase::Running {
                pid,
                started: jiff::Timestamp::now(),
                paused: false,
            };
            (record.failure, record.health) = (None, None);
            if starter == Starter::User {
                (record.restarts, record.stopped) = (0, false);
            }
        })?;
        container.set_status(|status| (status.running, status.restarting) = (true, false));
        self.publish(&container.view());
        self.await_registration().await;
        if !services_of(&record.config).is_empty()
            && let Err(error) = self.sync().await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "lead a service to its new container"
            );
        }
        Ok(shim)
    }

    /// Gives the container its place in its networks, its links and its host ports, all written down.
    async fn join_networks(&self, container: &Container) -> anyhow::Result<Vec<Network>> {
        let record = container.view();
        let mut joined = Vec::new();
        let mut endpoints = BTreeMap::new();
        for (wanted, request) in wanted_networks(&record.config) {
            let network = match wanted.as_str() {
                DEFAULT_NETWORK => self.default_network(),
                _ => Some(self.find_network(&wanted).await?),
            };
            let network =
                network.ok_or_else(|| Refusal::not_found(format!("network {wanted} not found")))?;
            let mut endpoint = self
                .make_endpoint(&network, &container.id, &request)
                .await?;
            endpoint.index = u8::try_from(joined.len()).context("more than 255 networks")?;
            endpoints.insert(network.name().to_owned(), endpoint);
            joined.push(network);
        }
        let links = if joined.iter().any(Network::is_default) {
            self.resolve_links(&record).await?
        } else {
            self.check_link_targets(&record, &joined).await?;
            Vec::new()
        };
        // By the network that leads out a container's ports are reached.
        let planned = Record {
            endpoints: endpoints.clone(),
            ..record.clone()
        };
        let out = planned.way_out().map(|(name, _)| name);
        let published_by = joined.iter().find(|network| Some(network.name()) == out);
        let host_address = published_by.and_then(|network| network.options().host_binding);
        let host = &record.config.host;
        let all: &[Port] = if host.publish_all {
            &record.config.exposed
        } else {
            &[]
        };
        let choose = async || -> anyhow::Result<Vec<PublishedPort>> {
            if endpoints.is_empty() {
                return Ok(Vec::new()); // host, none and container:X publish nothing
            }
            let others = self.containers();
            let others = others
                .iter()
                .filter(|other| other.id != container.id && other.is_active());
            let taken: Vec<PublishedPort> =
                others.flat_map(|other| other.view().published).collect();
            let choice = ports::Choice {
                range: self.options.publish_range,
                host_address,
                taken: &taken,
                is_free: &ports::is_free,
                has_v6: ports::has_v6(),
            };
            Ok(ports::choose(&host.publish, all, &choice)?)
        };
        let published = choose().await?;
        container.update(|record| {
            record.endpoints = endpoints;
            record.links = links;
            record.published = published;
        })?;
        Ok(joined)
    }

    /// Makes the container's link to a network's bridge, or sets one right that is there. The first of its networks
    /// that leads out of this host has its default route.
    pub(super) async fn plug(
        &self,
        container: &Container,
        network: &Network,
    ) -> anyhow::Result<()> {
        let record = container.view();
        attach(&self.attach_request(container, &record, network).await?).await?;
        Ok(())
    }

    /// How a container's link to a network's bridge is to be.
    pub(super) async fn attach_request(
        &self,
        container: &Container,
        record: &super::record::Record,
        network: &Network,
    ) -> anyhow::Result<AttachRequest> {
        let endpoint = record
            .endpoints
            .get(network.name())
            .context("an endpoint that is not written down")?;
        let leads_out = |way: Option<(&str, &Endpoint)>| {
            way.is_some_and(|(_, out)| out.index == endpoint.index)
        };
        let v4 = Place {
            address: IpNetwork::new(endpoint.address.into(), endpoint.block.prefix())?,
            gateway: (endpoint.gateway.filter(|_| leads_out(record.way_out()))).map(IpAddr::V4),
            subnet: network.subnet().into(),
        };
        let mut places = vec![v4];
        if let Some((v6, subnet)) = endpoint.v6.zip(network.subnet_v6()) {
            places.push(Place {
                address: IpNetwork::new(v6.address.into(), v6.block.prefix())?,
                gateway: (v6.gateway.filter(|_| leads_out(record.way_out_v6()))).map(IpAddr::V6),
                subnet: subnet.into(),
            });
        }
        Ok(AttachRequest {
            netns: container.netns.clone(),
            container_link: format!("eth{}", endpoint.index),
            host_link: veth_name(&container.id, endpoint.index),
            bridge: network.bridge(),
            places,
            mac: MacAddr(endpoint.mac),
            mtu: self.mtu_in(network).await?,
            isolated: !self.icc(network) && !network.is_adopted(),
        })
    }
}

/// Remembers why a start failed. One by request has an exit code of its own; else that of the last run stays.
fn note_failure(container: &Container, starter: Starter, error: String) {
    let code = match starter {
        Starter::User => exit_code_of(&error),
        Starter::Policy => container.status().borrow().code,
    };
    let failure = StartFailure { code, error };
    container.set_status(|status| {
        (status.code, status.error) = (failure.code, failure.error.clone());
    });
    if let Err(error) = container.update(|record| record.failure = Some(failure)) {
        let error = format!("{error:#}");
        tracing::error!(id = container.id, error, "write down a failed start");
    }
}

/// The networks a container is to be in, by name.
fn wanted_networks(config: &ContainerConfig) -> BTreeMap<String, EndpointRequest> {
    let mut wanted = config.endpoints.clone();
    let first = match &config.host.network {
        NetworkMode::Default => DEFAULT_NETWORK,
        NetworkMode::Named(name) => name,
        NetworkMode::None if config.left_first => return wanted,
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => {
            return BTreeMap::new();
        }
    };
    let asked = wanted.remove("default").unwrap_or_default();
    if !config.left_first {
        wanted.entry(first.to_owned()).or_insert(asked);
    }
    wanted
}

/// Makes a command that cannot be run the caller's to mend.
pub(super) fn blame(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let is_blamed = error.chain().any(<dyn std::error::Error>::is::<Refusal>);
    match exit_code_of(&text) {
        126 | 127 if !is_blamed => Refusal::invalid(text).into(),
        _ => error,
    }
}

/// The exit code that Docker gives a container whose process could not be run, by the words of the error.
pub(super) fn exit_code_of(error: &str) -> i32 {
    const MISSING: [&str; 3] = [
        "executable file not found",
        "no such file or directory",
        "system cannot find",
    ];
    const NOT_EXECUTABLE: [&str; 3] = ["permission denied", "is a directory", "not a directory"];
    let error = error.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| error.contains(word));
    match () {
        () if says(&MISSING) => 127,
        () if says(&NOT_EXECUTABLE) => 126,
        () => 128,
    }
}
