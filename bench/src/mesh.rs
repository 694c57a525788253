//! Hosts that are in the registry alone, for what a real one beside them makes of it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, bail, ensure};
use nuncio_registry::{ConnectOptions, EndpointRecord, NodeRecord, Presence, Registry};

/// Addresses of the hosts: 198.18.100.1 and on.
const FIRST_HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 100, 1);
const MOST_HOSTS: u32 = 10_000;

/// Enters `hosts` hosts with `endpoints` containers in all, spread over all overlay networks there are; prints a line when
/// they are there, and removes them when its input ends.
pub(crate) fn run(registry: String, hosts: u32, endpoints: u32) -> Result<()> {
    ensure!(
        (1..=MOST_HOSTS).contains(&hosts),
        "{hosts} hosts: give 1 to {MOST_HOSTS}"
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        let options = ConnectOptions {
            endpoints: vec![registry],
            ..ConnectOptions::default()
        };
        let mut alive = Vec::new();
        for host in 0..hosts {
            let registry = Registry::connect(&options).await?;
            let share = endpoints / hosts + u32::from(host < endpoints % hosts);
            alive.push(enter(registry, host, share).await?);
        }
        for presence in &alive {
            presence.settled().await;
        }
        println!("{hosts} hosts, {endpoints} endpoints");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await?
            .context("wait for the end of the input")?;
        for presence in alive {
            presence.shutdown().await;
        }
        // With a host go its blocks; one that is only away keeps them.
        let registry = Registry::connect(&options).await?;
        for host in 0..hosts {
            registry.remove_node(&id_of(host)).await?;
        }
        Ok(())
    })
}

fn id_of(host: u32) -> String {
    format!("simulated-{host}")
}

/// One host, with its block of each network and its containers.
async fn enter(registry: Registry, host: u32, endpoints: u32) -> Result<Presence> {
    let [.., high, low] = host.to_be_bytes();
    let id = id_of(host);
    let node = NodeRecord {
        id: id.clone(),
        name: id.clone(),
        address: Ipv4Addr::from(u32::from(FIRST_HOST) + host).into(),
        mac: [2, 0, 1, 0, high, low],
        port: 4789,
        incarnation: 1,
        wireguard: None,
        fallback: None,
        links: None,
        peek: None,
        machine: None,
    };
    registry.register_node(&node).await?;
    let networks = registry.networks().await?;
    let networks: Vec<_> = networks
        .iter()
        .filter(|network| network.driver == "overlay")
        .collect();
    ensure!(!networks.is_empty(), "there is no overlay network yet");
    let mut blocks = Vec::new();
    for network in &networks {
        let subnet = network.subnet.into();
        let block = registry.claim_block(network, subnet, &id, 1, &[]).await?;
        let IpAddr::V4(first) = block.cidr.network() else {
            bail!("{} is no part of {}", block.cidr, network.subnet);
        };
        blocks.push(u32::from(first));
    }
    let records = (0..endpoints).map(|number| {
        let at = number as usize % blocks.len();
        let place = number / blocks.len() as u32;
        EndpointRecord {
            network: networks[at].id.clone(),
            id: format!("{host:08x}{number:056x}"),
            name: format!("c{host}-{number}"),
            node: id.clone(),
            node_name: id.clone(),
            address: Ipv4Addr::from(blocks[at] + 2 + place),
            address_v6: None,
            aliases: Vec::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            services: Vec::new(),
            health: nuncio_registry::EndpointHealth::Unchecked,
        }
    });
    let records: Vec<_> = records.collect();
    Ok(Presence::start(registry, &id, records))
}
