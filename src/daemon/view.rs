//! What the daemon shows, and the calls that only pass something on.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ipnetwork::IpNetwork;
use nuncio_overlay::gateway;
use nuncio_registry::NetworkRecord;
use nuncio_runtime::{Attach, AttachOptions};

use super::Daemon;
use super::container::Container;
use super::networks::{DEFAULT_NETWORK, Network, NetworkEndpoint, NetworkView, Pool};
use super::record::Phase;
use super::refusal::Refusal;

/// A host of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) alive: bool,
    pub(crate) me: bool,
}

/// The daemon and its machine.
#[derive(Clone, Debug)]
pub(crate) struct DaemonInfo {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Running, paused, stopped.
    pub(crate) containers: (usize, usize, usize),
    pub(crate) images: usize,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) registry: String,
    /// Since when the registry has not been heard from.
    pub(crate) registry_stale: Option<std::time::SystemTime>,
    pub(crate) nodes: usize,
    pub(crate) kernel: String,
    pub(crate) os: String,
    pub(crate) cpus: usize,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) cgroup_version: String,
    pub(crate) warnings: Vec<String>,
    /// As `KEY=VALUE`.
    pub(crate) labels: Vec<String>,
}

impl Daemon {
    /// The streams of a container, now or from its next start on.
    pub(crate) async fn attach(
        &self,
        container: &Arc<Container>,
        options: AttachOptions,
    ) -> anyhow::Result<Attach> {
        let gone = || Refusal::conflict(format!("container {} did not start", container.id));
        self.tell(container, "attach");
        Ok(container.attach(options).await?.ok_or_else(gone)?)
    }

    pub(crate) async fn resize(
        &self,
        container: &Arc<Container>,
        w: u16,
        h: u16,
    ) -> anyhow::Result<()> {
        match container.shim() {
            Some(shim) => {
                shim.resize(w, h).await?;
                let more = [("height", h.to_string()), ("width", w.to_string())];
                self.tell_more(container, "resize", more);
                Ok(())
            }
            None => {
                Err(Refusal::conflict(format!("container {} is not running", container.id)).into())
            }
        }
    }

    /// Process ids in a container, as the host sees them.
    pub(crate) fn container_pids(&self, container: &Arc<Container>) -> anyhow::Result<Vec<u32>> {
        if !container.is_running() {
            return Err(
                Refusal::conflict(format!("container {} is not running", container.id)).into(),
            );
        }
        let Phase::Running { pid, .. } = container.view().phase else {
            return Ok(Vec::new());
        };
        let mut pids = nuncio_runtime::processes(&container.run_directory)
            .with_context(|| format!("list the processes of container {}", container.id))?;
        if pids.is_empty() {
            pids.push(pid); // where there are no cgroups
        }
        self.tell(container, "top");
        Ok(pids)
    }

    pub(crate) fn nodes(&self) -> Vec<NodeView> {
        let catalog = self.catalog();
        let nodes = catalog.nodes.values().map(|node| NodeView {
            id: node.id.clone(),
            name: node.name.clone(),
            address: node.address,
            alive: catalog.alive.contains(&node.id),
            me: node.id == self.node.id,
        });
        nodes.collect()
    }

    pub(crate) fn networks(&self) -> Vec<NetworkView> {
        let predefined = [("host", "host"), ("none", "null")].map(|(name, driver)| NetworkView {
            id: format!(
                "{:0<64}",
                name.bytes()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            ),
            name: name.into(),
            driver: driver.into(),
            scope: "local",
            pools: Vec::new(),
            internal: false,
            attachable: false,
            vni: None,
            options: [].into(),
            labels: [].into(),
            created: "0001-01-01T00:00:00Z".into(),
            endpoints: Vec::new(),
            peers: Vec::new(),
        });
        self.all_networks()
            .iter()
            .map(|network| self.network_view(network))
            .chain(predefined)
            .collect()
    }

    pub(crate) async fn network(&self, wanted: &str) -> anyhow::Result<NetworkView> {
        if let Some(view) = self
            .networks()
            .into_iter()
            .find(|view| view.name == wanted || view.id == wanted)
        {
            return Ok(view);
        }
        Ok(self.network_view(&self.find_network(wanted).await?))
    }

    fn network_view(&self, network: &Network) -> NetworkView {
        let catalog = self.catalog();
        let here = self
            .containers()
            .into_iter()
            .filter(|container| container.is_active())
            .map(|container| container.view());
        let mut endpoints: Vec<NetworkEndpoint> = here
            .flat_map(|record| {
                let of_network = record
                    .endpoints
                    .into_values()
                    .find(|endpoint| endpoint.network_id == network.id());
                of_network.map(|endpoint| NetworkEndpoint {
                    container_id: record.id,
                    name: record.name,
                    mac: endpoint.mac,
                    address: endpoint.address,
                    prefix: endpoint.block.prefix(),
                    v6: endpoint.v6.map(|v6| (v6.address, v6.block.prefix())),
                })
            })
            .collect();
        let elsewhere = catalog
            .endpoints_in(network.id())
            .filter(|endpoint| endpoint.node != self.node.id);
        endpoints.extend(elsewhere.filter(|_| !network.is_default()).map(|endpoint| {
            NetworkEndpoint {
                container_id: endpoint.id.clone(),
                name: endpoint.name.clone(),
                mac: nuncio_overlay::MacAddr::of_address(endpoint.address).0,
                address: endpoint.address,
                prefix: network.subnet().prefix(),
                v6: endpoint
                    .address_v6
                    .zip(network.subnet_v6().map(|subnet| subnet.prefix())),
            }
        }));
        let mut peers: Vec<(String, IpAddr)> = catalog
            .blocks_of(network.id())
            .filter_map(|block| catalog.nodes.get(&block.node))
            .map(|node| (node.name.clone(), node.address))
            .collect();
        peers.sort();
        peers.dedup();
        let pools = match network {
            Network::Local(network) => network.pools(),
            Network::Mesh(record) => self.mesh_pools(record),
        };
        let (driver, scope, vni, attachable) = match network {
            Network::Mesh(record) if record.name == DEFAULT_NETWORK => {
                ("bridge", "local", Some(record.vni), false)
            }
            Network::Mesh(record) => ("overlay", "swarm", Some(record.vni), record.attachable),
            Network::Local(_) => ("bridge", "local", None, false),
        };
        let (options, labels, created) = match network {
            Network::Mesh(record) => (
                record.options.clone(),
                record.labels.clone(),
                record.created.clone(),
            ),
            Network::Local(local) => (
                local.options.clone(),
                local.labels.clone(),
                local.created.clone(),
            ),
        };
        NetworkView {
            id: network.id().to_owned(),
            name: network.name().to_owned(),
            driver: driver.into(),
            scope,
            pools,
            internal: network.internal(),
            attachable,
            vni,
            options,
            labels,
            created,
            endpoints,
            peers,
        }
    }

    /// Of an overlay every host is the gateway of its own blocks.
    fn mesh_pools(&self, network: &NetworkRecord) -> Vec<Pool> {
        let blocks = self.own_blocks(&network.id);
        let own = |subnet: IpNetwork| {
            let mut blocks = blocks.iter().copied();
            blocks.find(|block| block.is_ipv6() == subnet.is_ipv6())
        };
        let pool = |subnet: IpNetwork| {
            let is_of = |address: &IpAddr| address.is_ipv6() == subnet.is_ipv6();
            let reserved = network.reserved().filter(|(_, address)| is_of(address));
            Pool {
                subnet,
                gateway: network.gateways().find(is_of).or(own(subnet).map(gateway)),
                range: network.range(subnet.is_ipv6()),
                reserved: reserved
                    .map(|(what, address)| (what.to_owned(), address))
                    .collect(),
            }
        };
        network.subnets().map(pool).collect()
    }

    pub(crate) fn info(&self) -> anyhow::Result<DaemonInfo> {
        let containers = self.containers();
        let running = containers
            .iter()
            .filter(|container| container.is_running())
            .count();
        let paused = containers
            .iter()
            .filter(|container| container.is_running() && container.is_paused())
            .count();
        let mut warnings = self.path_warnings();
        if let Some(why) = &self.presence.state().borrow().kept_out {
            warnings.push(format!("WARNING: other hosts do not see this one: {why}"));
        }
        let catalog = self.catalog();
        let uname = rustix::system::uname();
        let system = rustix::system::sysinfo();
        let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Ok(DaemonInfo {
            labels: self
                .options
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            id: self.node.id.clone(),
            name: self.node.name.clone(),
            containers: (running - paused, paused, containers.len() - running),
            images: self.images.list().len(),
            data_root: self.options.data_root.clone(),
            exec_root: self.options.exec_root.clone(),
            registry: match (&self.mesh, &self.options.registry) {
                (Some(mesh), _) => mesh.registry_url(),
                (None, choice) => self.registry_place(choice.as_ref()),
            },
            registry_stale: catalog.stale,
            nodes: catalog.nodes.len(),
            kernel: uname.release().to_string_lossy().into_owned(),
            os: os_name(),
            cpus: std::thread::available_parallelism()
                .context("count processors")?
                .get(),
            memory: system.totalram * u64::from(system.mem_unit),
            cgroup_version: if v2 { "2" } else { "1" }.into(),
            warnings,
        })
    }
}

fn os_name() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}
