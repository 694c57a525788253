//! Putting a container into a network and taking it out again, while it runs or not.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use nuncio_overlay::{detach, veth_name};

use super::Daemon;
use super::config::{ContainerConfig, EndpointRequest, NetworkMode};
use super::container::{Container, locked};
use super::networks::{DEFAULT_NETWORK, Network};
use super::record::Record;
use super::refusal::Refusal;

impl Daemon {
    /// Puts a container into a further network: now if it runs, else when it starts.
    pub(crate) async fn network_connect(
        &self,
        wanted: &str,
        container: &Arc<Container>,
        request: EndpointRequest,
    ) -> anyhow::Result<()> {
        if let "host" | "none" = wanted {
            return connect_predefined(wanted, container).await;
        }
        let network = self.find_network(wanted).await?;
        let _turn = container.turn.lock().await;
        let record = container.view();
        check_mode(&record.config)?;
        if is_in(&record, network.name()) {
            let message = format!(
                "endpoint with name {} already exists in network {}",
                record.name,
                network.name()
            );
            return Err(Refusal::forbidden(message).into());
        }
        let asks_address = request.address.is_some() || request.address_v6.is_some();
        if network.is_default() && (asks_address || !request.aliases.is_empty()) {
            let message = if asks_address {
                "user specified IP address is supported on user defined networks only"
            } else {
                "network-scoped alias is supported only for containers in user defined networks"
            };
            return Err(Refusal::invalid(message).into());
        }
        if container.is_running() {
            self.connect_now(container, &network, &request).await?;
        }
        container.update(|record| {
            if mode_network(&record.config.host.network) == Some(network.name()) {
                record.config.left_first = false;
            }
            record
                .config
                .endpoints
                .insert(network.name().to_owned(), request);
        })?;
        self.tell_member(network.name(), network.id(), &container.id, "connect");
        Ok(())
    }

    /// A failure leaves the container as it was.
    async fn connect_now(
        &self,
        container: &Arc<Container>,
        network: &Network,
        request: &EndpointRequest,
    ) -> anyhow::Result<()> {
        let made = self.make_endpoint(network, &container.id, request).await;
        let mut endpoint = match made {
            Ok(endpoint) => endpoint,
            Err(error) => {
                // It may have got an address of one family.
                locked(&self.addresses).release_one(network.id(), &container.id)?;
                return Err(error);
            }
        };
        endpoint.index = free_index(&container.view()).context("more than 255 networks")?;
        let link = veth_name(&container.id, endpoint.index);
        container.update(|record| record.endpoints.insert(network.name().to_owned(), endpoint))?;
        let joined = async {
            self.sync().await?;
            self.require_sealed(&container.view())?;
            self.plug(container, network).await?;
            self.write_files(container, &container.view())
        };
        if let Err(error) = joined.await {
            let undone = self.take_out(container, network, &link).await;
            return match undone {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("{left:#}"))),
            };
        }
        self.publish(&container.view());
        self.await_registration().await;
        Ok(())
    }

    /// Takes a container out of a network, at once if it runs.
    pub(crate) async fn network_disconnect(
        &self,
        wanted: &str,
        container: &Arc<Container>,
        _force: bool,
    ) -> anyhow::Result<()> {
        if let "host" | "none" = wanted {
            return disconnect_predefined(wanted, container).await;
        }
        let network = self.find_network(wanted).await?;
        let _turn = container.turn.lock().await;
        let record = container.view();
        check_mode(&record.config)?;
        if !is_in(&record, network.name()) {
            return Err(not_connected(container, network.name()).into());
        }
        if let Some(endpoint) = record.endpoints.get(network.name()) {
            let link = veth_name(&container.id, endpoint.index);
            self.take_out(container, &network, &link).await?;
        }
        container.update(|record| {
            if mode_network(&record.config.host.network) == Some(network.name()) {
                record.config.left_first = true;
            }
            record.config.endpoints.remove(network.name());
        })?;
        if container.is_running() {
            self.write_files(container, &container.view())?;
        }
        self.tell_member(network.name(), network.id(), &container.id, "disconnect");
        Ok(())
    }

    /// Gives back a container's place in a network, and has another network lead out of it if that one did.
    async fn take_out(
        &self,
        container: &Arc<Container>,
        network: &Network,
        link: &str,
    ) -> anyhow::Result<()> {
        self.presence.withdraw(network.id(), &container.id);
        container.update(|record| record.endpoints.remove(network.name()))?;
        detach(link).await?;
        self.sync().await?;
        locked(&self.addresses).release_one(network.id(), &container.id)?;
        if !container.is_running() {
            return Ok(());
        }
        let record = container.view();
        let ways = [record.way_out(), record.way_out_v6()];
        let names: BTreeSet<&str> = ways.into_iter().flatten().map(|(name, _)| name).collect();
        for name in names {
            let next = match name {
                DEFAULT_NETWORK => self.default_network(),
                name => Some(self.find_network(name).await?),
            };
            if let Some(next) = next {
                self.plug(container, &next).await?;
            }
        }
        Ok(())
    }
}

const OF_HOST: &str =
    "container cannot be disconnected from host network or connected to host network";
const OF_NONE: &str = "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// Only a container that was in `none`, and left it, comes back there.
async fn connect_predefined(wanted: &str, container: &Container) -> anyhow::Result<()> {
    let _turn = container.turn.lock().await;
    let config = container.view().config;
    let nowhere = config.host.network == NetworkMode::None
        && config.left_first
        && config.endpoints.is_empty();
    match wanted {
        "host" => Err(Refusal::invalid(OF_HOST).into()),
        _ if nowhere => container.update(|record| record.config.left_first = false),
        _ => Err(Refusal::invalid(OF_NONE).into()),
    }
}

/// A container that leaves `none` can be put into other networks.
async fn disconnect_predefined(wanted: &str, container: &Container) -> anyhow::Result<()> {
    let _turn = container.turn.lock().await;
    let config = container.view().config;
    match (wanted, &config.host.network) {
        ("host", NetworkMode::Host) => Err(Refusal::invalid(OF_HOST).into()),
        ("none", NetworkMode::None) if !config.left_first => {
            container.update(|record| record.config.left_first = true)
        }
        _ => Err(not_connected(container, wanted).into()),
    }
}

fn not_connected(container: &Container, network: &str) -> Refusal {
    Refusal::forbidden(format!(
        "container {} is not connected to network {network}",
        container.id
    ))
}

/// Refuses containers whose namespace is not their own, or is to have no networks.
fn check_mode(config: &ContainerConfig) -> Result<(), Refusal> {
    let message = match &config.host.network {
        NetworkMode::Default | NetworkMode::Named(_) => return Ok(()),
        NetworkMode::None if config.left_first => return Ok(()),
        NetworkMode::Container(_) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
        NetworkMode::Host => OF_HOST,
        NetworkMode::None => OF_NONE,
    };
    Err(Refusal::invalid(message))
}

/// The network that `--network` named.
fn mode_network(mode: &NetworkMode) -> Option<&str> {
    match mode {
        NetworkMode::Default => Some(DEFAULT_NETWORK),
        NetworkMode::Named(name) => Some(name),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => None,
    }
}

fn is_in(record: &Record, network: &str) -> bool {
    let first =
        !record.config.left_first && mode_network(&record.config.host.network) == Some(network);
    first || record.config.endpoints.contains_key(network) || record.endpoints.contains_key(network)
}

/// The lowest that none of the container's links has.
fn free_index(record: &Record) -> Option<u8> {
    (0..=u8::MAX).find(|index| {
        record
            .endpoints
            .values()
            .all(|endpoint| endpoint.index != *index)
    })
}
