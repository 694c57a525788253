//! `network create`.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use bollard_stubs::models::{
    ConfigReference, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse,
};
use clap::Args;
use ipnetwork::IpNetwork;

use super::output::{line, warn};
use super::parse::KeyValue;
use crate::client::Client;

/// Flags of `network create`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio network create -d overlay mesh
  nuncio network create -d overlay --opt encrypted secret
  nuncio network create -d overlay --subnet 10.64.0.0/16 backend")]
pub(super) struct CreateArgs {
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

    /// Addresses that no container is to have, and what for
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<KeyValue>,

    /// Who gives out addresses; default is the one there is
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,

    /// An option of who does: refused, it has none
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<KeyValue>,

    /// Whether it carries IPv4, without which there is nothing
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: bool,

    /// Carry IPv6, too: of a --subnet of its own, or one out of fd00::/8
    #[arg(long)]
    ipv6: bool,

    /// How far it reaches: local for a bridge, swarm for an overlay
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,

    /// Take the settings of another network: refused
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,

    /// Settings for other networks: refused
    #[arg(long)]
    config_only: bool,

    /// Swarm's routing mesh: refused
    #[arg(long)]
    ingress: bool,

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

pub(super) async fn create(args: CreateArgs, client: &Client) -> anyhow::Result<u8> {
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
            driver: Some(args.ipam_driver),
            config: Some(config),
            options: Some(map(&args.ipam_opt)),
        }),
        options: Some(map(&args.opt)),
        labels: Some(map(&args.label)),
        scope: args.scope,
        enable_ipv4: Some(args.ipv4),
        enable_ipv6: Some(args.ipv6),
        config_only: Some(args.config_only),
        config_from: args.config_from.map(|network| ConfigReference {
            network: Some(network),
        }),
        ingress: Some(args.ingress),
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
    for pair in &args.aux_address {
        let address: IpAddr = (pair.value.parse())
            .with_context(|| format!("invalid aux-address {}={}", pair.key, pair.value))?;
        configs[holder("aux-address", address)?]
            .auxiliary_addresses
            .get_or_insert_default()
            .insert(pair.key.clone(), pair.value.clone());
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
