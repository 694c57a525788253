//! `peer`: other meshes, with registries of their own, that lend services to this one or borrow from it.

use std::net::{IpAddr, SocketAddr};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::each;
use super::list::{List, row};
use super::mesh::span;
use super::output::line;
use super::parse::Span;
use crate::client::Client;
use crate::daemon::peers::PORT;

/// `nuncio peer`.
#[derive(Args, Debug)]
#[command(after_help = "\
Two meshes, each with its registry. On a gateway of east, which has the service:
  nuncio daemon --gateway-addr 192.0.2.1 ..
  nuncio peer export redis
  nuncio peer token
On a gateway of west:
  nuncio daemon --gateway-addr 198.51.100.1 ..
  nuncio peer add east 192.0.2.1 --token NUNCIO-PEER-1-..
On each host of west:
  nuncio run --link redis.east:redis ..

A mesh may have several gateways: export and pair on each of them.")]
pub(super) struct PeerArgs {
    #[command(subcommand)]
    command: PeerCommand,
}

#[derive(Debug, Subcommand)]
enum PeerCommand {
    /// Lend services of this mesh to all that have been let in
    Export(NamesArgs),
    /// Lend services to nobody any more
    Unexport(NamesArgs),
    /// Make a token that lets in one gateway of another mesh
    Token(TokenArgs),
    /// Borrow what the gateway of another mesh lends: its SERVICE is SERVICE.NAME here
    Add(AddArgs),
    /// List the meshes that lend or borrow, and what
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Forget meshes: borrow nothing from them, and lend nothing to them
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Args, Debug)]
struct NamesArgs {
    /// Services by name, as `nuncio service ls` shows them
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

#[derive(Args, Debug)]
struct TokenArgs {
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: Span,

    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
struct AddArgs {
    /// What the other mesh is called here
    #[arg(value_name = "NAME")]
    name: String,

    /// Where its gateway is; the port is 2390 unless another is given
    #[arg(value_name = "IP[:PORT]", value_parser = address)]
    address: SocketAddr,

    /// What `nuncio peer token` printed there; - reads it from standard input
    #[arg(long, value_name = "TOKEN|-")]
    token: String,
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Show only names
    #[arg(short, long)]
    quiet: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Meshes by name, or the beginning of a gateway's key
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Not where a gateway is.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of a gateway: expected IP or IP:PORT, as 192.0.2.1:{PORT}")]
struct NotAGateway(String);

fn address(text: &str) -> Result<SocketAddr, NotAGateway> {
    let bare = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    let address = text.parse().ok().or_else(bare);
    address
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| NotAGateway(text.to_owned()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewPeer<'a> {
    name: &'a str,
    address: SocketAddr,
    token: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TokenRequest {
    ttl: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TokenMade {
    token: String,
    address: SocketAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Peers {
    peers: Vec<Peer>,
    exports: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    name: String,
    role: String,
    addresses: Vec<SocketAddr>,
    keys: Vec<String>,
    connected: usize,
    services: Vec<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Role", "ROLE"),
    ("Gateways", "GATEWAYS"),
    ("Connected", "CONNECTED"),
    ("Services", "SERVICES"),
    ("Keys", "KEYS"),
];

pub(super) async fn run(args: PeerArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        PeerCommand::Export(args) => {
            each(&args.services, async |name: &String| {
                let path = format!("/nuncio/v1/exports/{name}");
                client.put(&path).send().await?;
                line(name)
            })
            .await
        }
        PeerCommand::Unexport(args) => delete(&args.services, "exports", client).await,
        PeerCommand::Token(args) => token(args, client).await,
        PeerCommand::Add(args) => add(args, client).await,
        PeerCommand::Ls(args) => list(&args, client).await,
        PeerCommand::Rm(args) => delete(&args.names, "peers", client).await,
    }
}

async fn delete(names: &[String], what: &str, client: &Client) -> anyhow::Result<u8> {
    each(names, async |name: &String| {
        client
            .delete(&format!("/nuncio/v1/{what}/{name}"))
            .send()
            .await?;
        line(name)
    })
    .await
}

async fn token(args: TokenArgs, client: &Client) -> anyhow::Result<u8> {
    let ttl = span(args.ttl).as_secs();
    let call = client
        .post("/nuncio/v1/peers/tokens")
        .json(&TokenRequest { ttl });
    let TokenMade { token, address } = call.send().await?.json().await?;
    if args.quiet {
        line(&token)?;
        return Ok(0);
    }
    line(&format!(
        "To borrow what this gateway lends, run the following command on a gateway of the other mesh:\n\n    \
         nuncio peer add NAME {address} --token {token}\n"
    ))?;
    Ok(0)
}

async fn add(args: AddArgs, client: &Client) -> anyhow::Result<u8> {
    let token = match args.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?,
        token => token.to_owned(),
    };
    if token.trim().is_empty() {
        bail!("--token is empty: give what `nuncio peer token` printed on the other gateway");
    }
    let peer = NewPeer {
        name: &args.name,
        address: args.address,
        token: token.trim(),
    };
    client.post("/nuncio/v1/peers").json(&peer).send().await?;
    line(&args.name)?;
    Ok(0)
}

async fn list(args: &LsArgs, client: &Client) -> anyhow::Result<u8> {
    let Peers { peers, exports } = client.get("/nuncio/v1/peers").send().await?.json().await?;
    let list = List {
        fields: FIELDS,
        columns: vec!["Name", "Role", "Gateways", "Connected", "Services"],
        rows: peers
            .into_iter()
            .map(|peer| fields(peer, &exports))
            .collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("Name")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

fn fields(peer: Peer, exports: &[String]) -> Map<String, Value> {
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let services = match peer.role.as_str() {
        "lends" => peer.services,
        _ => exports.to_vec(),
    };
    row([
        ("Name", peer.name),
        ("Role", peer.role),
        ("Gateways", addresses.join(",")),
        (
            "Connected",
            format!("{}/{}", peer.connected, peer.keys.len()),
        ),
        ("Services", services.join(",")),
        ("Keys", peer.keys.join(",")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_at_an_address() {
        let port = |text| address(text).ok().map(|address| address.port());
        assert_eq!((port("192.0.2.1"), port("[::1]:1")), (Some(PORT), Some(1)));
        for wrong in ["", "east", "192.0.2.1:0", "192.0.2.1:x"] {
            assert_eq!(port(wrong), None, "{wrong:?}");
        }
    }
}
