//! `network`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use bollard_stubs::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Network, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
};
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;

use super::failure::each;
use super::human;
use super::inspect;
use super::list::{List, filters, row};
use super::network_prune::{self, NetworkPruneArgs};
use super::output::{line, warn};
use super::parse::{KeyValue, Link};
use crate::client::Client;

/// `nuncio network`.
#[derive(Args, Debug)]
pub(super) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all there is to know of networks, as JSON
    Inspect(InspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all networks that no container uses
    Prune(NetworkPruneArgs),
    /// Join a container to a network
    Connect(ConnectArgs),
    /// Take a container out of a network
    Disconnect(DisconnectArgs),
}

pub(super) async fn run(args: NetworkArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        NetworkCommand::Create(args) => create(args, client).await,
        NetworkCommand::Ls(args) => list(args, client).await,
        NetworkCommand::Inspect(args) => {
            inspect::networks(args.networks, args.format, client).await
        }
        NetworkCommand::Rm(args) => remove(args, client).await,
        NetworkCommand::Prune(args) => network_prune::run(args, client).await,
        NetworkCommand::Connect(args) => connect(args, client).await,
        NetworkCommand::Disconnect(args) => disconnect(args, client).await,
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio network create -d overlay mesh
  nuncio network create -d overlay --subnet 10.64.0.0/16 backend")]
struct CreateArgs {
    /// bridge: on this host; overlay: across hosts
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,

    /// Addresses of the network (default: from the daemon's pools)
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,

    /// Address of the network's gateway
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,

    /// The part of the subnet that containers take addresses from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,

    /// No way out of the network
    #[arg(long)]
    internal: bool,

    /// Containers may join it by hand
    #[arg(long)]
    attachable: bool,

    /// An option of the driver
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<KeyValue>,

    /// Metadata
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<KeyValue>,

    #[arg(value_name = "NETWORK")]
    name: String,
}

async fn create(args: CreateArgs, client: &Client) -> anyhow::Result<u8> {
    let config = ipam_config(&args)?;
    let map = |pairs: &[KeyValue]| -> HashMap<String, String> {
        pairs
            .iter()
            .map(|pair| (pair.key.clone(), pair.value.clone()))
            .collect()
    };
    let request = NetworkCreateRequest {
        name: args.name,
        driver: Some(args.driver),
        internal: Some(args.internal),
        attachable: Some(args.attachable),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(config),
            options: None,
        }),
        options: Some(map(&args.opt)),
        labels: Some(map(&args.label)),
        ..NetworkCreateRequest::default()
    };
    let answer = client
        .post("/networks/create")
        .json(&request)
        .send()
        .await?;
    let created: NetworkCreateResponse = answer.json().await?;
    if !created.warning.is_empty() {
        warn(&format!("WARNING: {}", created.warning));
    }
    line(&created.id)?;
    Ok(0)
}

/// Ranges and gateways, each with the subnet that holds it.
fn ipam_config(args: &CreateArgs) -> anyhow::Result<Vec<IpamConfig>> {
    let subnets = networks("subnet", &args.subnet)?;
    let mut configs: Vec<IpamConfig> = subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: Some(subnet.to_string()),
            ..IpamConfig::default()
        })
        .collect();
    let holder = |what: &str, address: IpAddr| {
        let found = subnets.iter().position(|subnet| subnet.contains(address));
        found.with_context(|| {
            format!("no matching subnet for {what} {address}: give one with --subnet")
        })
    };
    for range in networks("range", &args.ip_range)? {
        configs[holder("range", range.ip())?].ip_range = Some(range.to_string());
    }
    for gateway in &args.gateway {
        configs[holder("gateway", *gateway)?].gateway = Some(gateway.to_string());
    }
    Ok(configs)
}

fn networks(what: &str, texts: &[String]) -> anyhow::Result<Vec<IpNetwork>> {
    let network = |text: &String| {
        let network: IpNetwork = match text.parse() {
            Ok(network) if text.contains('/') => network,
            _ => bail!(
                "invalid {what} {text}: expected an address and a prefix length, as 10.64.0.0/16"
            ),
        };
        if network.ip() != network.network() {
            let right = (network.network(), network.prefix());
            bail!(
                "invalid {what} {network}: it should be {}/{}",
                right.0,
                right.1
            );
        }
        Ok(network)
    };
    texts.iter().map(network).collect()
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio network ls --filter driver=overlay")]
struct LsArgs {
    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,

    /// Show those for which this holds
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Subnet", "SUBNET"),
];

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get("/networks")
        .optional("filters", filters(&args.filter)?);
    let mut networks: Vec<Network> = call.send().await?.json().await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = networks.into_iter().map(|network| {
        let id = network.id.unwrap_or_default();
        let config = network
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default();
        let subnets: Vec<String> = config
            .into_iter()
            .filter_map(|config| config.subnet)
            .collect();
        row([
            (
                "ID",
                if args.no_trunc {
                    id
                } else {
                    human::short_id(&id).to_owned()
                },
            ),
            ("Name", network.name.unwrap_or_default()),
            ("Driver", network.driver.unwrap_or_default()),
            ("Scope", network.scope.unwrap_or_default()),
            ("Subnet", subnets.join(",")),
        ])
    });
    let list = List {
        fields: FIELDS,
        columns: vec!["ID", "Name", "Driver", "Scope"],
        rows: rows.collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Do not mind if there is none
    #[arg(short, long)]
    force: bool,

    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

async fn remove(args: RmArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.networks, async |network| {
        match client.delete(&format!("/networks/{network}")).send().await {
            Err(error) if args.force && error.is_not_found() => Ok(()),
            answer => {
                answer?;
                line(network)
            }
        }
    })
    .await
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio network connect --alias cache mesh redis-server")]
struct ConnectArgs {
    /// Another name for the container in this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,

    /// Its IPv4 address in this network
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,

    /// Reach another container by a name
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<Link>,

    /// An option of the driver
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<KeyValue>,

    #[arg(value_name = "NETWORK")]
    network: String,

    #[arg(value_name = "CONTAINER")]
    container: String,
}

async fn connect(args: ConnectArgs, client: &Client) -> anyhow::Result<u8> {
    let ipam = args.ip.map(|ip| EndpointIpamConfig {
        ipv4_address: Some(ip.to_string()),
        ..EndpointIpamConfig::default()
    });
    let options = args
        .driver_opt
        .into_iter()
        .map(|option| (option.key, option.value));
    let request = NetworkConnectRequest {
        container: Some(args.container),
        endpoint_config: Some(EndpointSettings {
            ipam_config: ipam,
            aliases: Some(args.alias),
            links: Some(args.link.iter().map(ToString::to_string).collect()),
            driver_opts: Some(options.collect()),
            ..EndpointSettings::default()
        }),
    };
    client
        .post(&format!("/networks/{}/connect", args.network))
        .json(&request)
        .send()
        .await?;
    Ok(0)
}

#[derive(Args, Debug)]
struct DisconnectArgs {
    /// Though the container does not answer
    #[arg(short, long)]
    force: bool,

    #[arg(value_name = "NETWORK")]
    network: String,

    #[arg(value_name = "CONTAINER")]
    container: String,
}

async fn disconnect(args: DisconnectArgs, client: &Client) -> anyhow::Result<u8> {
    let request = NetworkDisconnectRequest {
        container: Some(args.container),
        force: Some(args.force),
    };
    client
        .post(&format!("/networks/{}/disconnect", args.network))
        .json(&request)
        .send()
        .await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_whole_networks() {
        let parse = |text: &str| networks("subnet", &[text.to_owned()]);
        assert!(parse("10.64.0.0/16").is_ok());
        for wrong in ["10.0.0.0/33", "10.0.0.0", "x", "10.0.0.1/24"] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(
                error.starts_with(&format!("invalid subnet {wrong}: ")),
                "{error}"
            );
        }
    }
}
