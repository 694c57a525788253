//! `network`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::{
    EndpointIpamConfig, EndpointSettings, Network, NetworkConnectRequest, NetworkDisconnectRequest,
};
use clap::{Args, Subcommand};

use super::failure::each;
use super::human;
use super::inspect;
use super::list::{List, filters, labelled, row};
use super::network_create::{CreateArgs, create};
use super::output::line;
use super::parse::{Filter, KeyValue, Link};
use super::prune::{self, NetworkPruneArgs};
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
        NetworkCommand::Prune(args) => prune::networks(args, client).await,
        NetworkCommand::Connect(args) => connect(args, client).await,
        NetworkCommand::Disconnect(args) => disconnect(args, client).await,
    }
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
    filter: Vec<Filter>,

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
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get("/networks")
        .optional("filters", filters(&args.filter));
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
        let of_row = row([
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
            ("IPv4", network.enable_ipv4.unwrap_or(true).to_string()),
            ("IPv6", network.enable_ipv6.unwrap_or_default().to_string()),
            ("Internal", network.internal.unwrap_or_default().to_string()),
            ("CreatedAt", created_at(network.created.as_deref())),
        ]);
        labelled(of_row, network.labels.unwrap_or_default())
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

/// As Go prints a time.
fn created_at(time: Option<&str>) -> String {
    let time = time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let time = time
        .unwrap_or_default()
        .to_zoned_datetime(jiff::tz::TimeZone::UTC);
    time.strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC").to_string()
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Taken for old scripts' sake: all is shown
    #[arg(short, long)]
    verbose: bool,

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

    /// Its IPv6 address there
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,

    /// A link-local address: refused
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<IpAddr>,

    /// The network with the highest leads out of the container
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    gw_priority: Option<i64>,

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
    let link_local: Vec<String> = args.link_local_ip.iter().map(ToString::to_string).collect();
    let ipam = EndpointIpamConfig {
        ipv4_address: args.ip.map(|ip| ip.to_string()),
        ipv6_address: args.ip6.map(|ip| ip.to_string()),
        link_local_ips: (!link_local.is_empty()).then_some(link_local),
    };
    let options = args
        .driver_opt
        .into_iter()
        .map(|option| (option.key, option.value));
    let request = NetworkConnectRequest {
        container: Some(args.container),
        endpoint_config: Some(EndpointSettings {
            ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
            gw_priority: args.gw_priority,
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
