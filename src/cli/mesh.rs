//! `init` and `join`: they make this host a member of a mesh, before its daemon starts.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nuncio_mesh::{Draft, Home, JoinToken, NodeId};

use super::doctor;
use super::output::line;
use super::parse::Span;
use crate::daemon::{self, node};

/// How long one look-up of a name may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Certificates of a shorter life would expire between two looks at the clock.
const SHORTEST: Duration = Duration::from_secs(10);
/// Longer than this, a certificate that was stolen is good for too long.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Flags of `nuncio init`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio init --advertise-addr 10.0.0.1
  nuncio daemon
and on the other hosts, as it says:
  nuncio join TOKEN 10.0.0.1
  nuncio daemon")]
pub(super) struct InitArgs {
    /// The address by which other hosts reach this one, and the port of its registry (default: that of the default route,
    /// and 2379)
    #[arg(long, value_name = "IP[:PORT]")]
    advertise_addr: Option<Address>,

    /// Where the registry listens (default: at the advertised address)
    #[arg(long, value_name = "IP:PORT")]
    listen_addr: Option<SocketAddr>,

    /// An etcd cluster for the mesh's registry: refused, with the reason
    #[arg(long, value_name = "URL,..", hide = true)]
    registry: Option<String>,

    /// How long certificates of nodes are good; they are renewed at half of that
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    cert_expiry: Span,

    /// How long the first join token is good
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    token_ttl: Span,

    /// Where images, containers and networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nuncio")]
    data_root: PathBuf,
}

/// Flags of `nuncio join`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio join NUNCIO-1-... 10.0.0.1
  nuncio join - mesh.example.org:2379 < token")]
pub(super) struct JoinArgs {
    /// As `nuncio init` or `nuncio token create` printed it; - reads it from standard input
    pub(super) token: String,

    /// The mesh's manager
    #[arg(value_name = "HOST[:PORT]")]
    pub(super) host: String,

    /// The address by which other hosts reach this one (default: that of the default route)
    #[arg(long, value_name = "IP")]
    pub(super) advertise_addr: Option<IpAddr>,

    /// Where images, containers and networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nuncio")]
    pub(super) data_root: PathBuf,
}

/// Flags of `nuncio leave`.
#[derive(Args, Debug)]
#[command(after_help = "Example, while no daemon runs:
  nuncio leave
and on the mesh's manager, as it says:
  nuncio node rm NODE")]
pub(super) struct LeaveArgs {
    /// End the mesh, if this host is its manager: no other can be let in, or have its certificate renewed
    #[arg(short, long)]
    force: bool,

    /// Where images, containers and networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nuncio")]
    data_root: PathBuf,
}

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Address {
    ip: IpAddr,
    port: Option<u16>,
}

/// Not an address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address: expected IP or IP:PORT, as 10.0.0.1:2379")]
struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self {
                ip: address.ip(),
                port: Some(address.port()),
            }),
            _ => Err(NotAnAddress(text.to_owned())),
        }
    }
}

pub(super) async fn init(args: InitArgs) -> anyhow::Result<u8> {
    doctor::require_root("nuncio init")?;
    if let Some(registry) = &args.registry {
        bail!(
            "--registry {registry}: a mesh has its registry on its manager, which lets each node write its own records alone, and etcd knows no such rights. Leave --registry out; or leave out `nuncio init`, and run `nuncio daemon --registry {registry}` with --registry-ca, --registry-cert and --registry-key on each host"
        );
    }
    let lifetime = span(args.cert_expiry);
    if !(SHORTEST..=LONGEST).contains(&lifetime) {
        bail!("--cert-expiry {lifetime:?}: expected from {SHORTEST:?} to 2160h");
    }
    let advertise = match args.advertise_addr {
        Some(address) => address,
        None => Address {
            ip: nuncio_overlay::default_underlay_address().await.context(
                "choose an address for other hosts to reach this one: give one with --advertise-addr",
            )?,
            port: None,
        },
    };
    let registry = SocketAddr::from((
        advertise.ip,
        advertise.port.unwrap_or(daemon::REGISTRY_PORT),
    ));
    let listen = args.listen_addr.unwrap_or(registry);
    let (_lock, node) = prepare(&args.data_root)?;
    let draft = Draft::open(&args.data_root)?;
    let host = node::hostname();
    let home = draft.found(
        (&node, &host),
        (listen, registry),
        Some(advertise.ip),
        lifetime,
    )?;
    let authority = home
        .authority()?
        .context("the authority is where it was made")?;
    let token = authority.create_token(Some(span(args.token_ttl)), None)?;
    line(&format!(
        "Mesh initialized: current node ({node}) is now its manager, once `nuncio daemon` runs.

To add a node to this mesh, run the following command on it:

    nuncio join {} {registry}

To make other tokens, run 'nuncio token create' here.",
        token.reveal()
    ))?;
    Ok(0)
}

pub(super) async fn join(args: JoinArgs) -> anyhow::Result<u8> {
    doctor::require_root("nuncio join")?;
    let token: JoinToken = match args.token.as_str() {
        "-" => read_token()?.parse()?,
        text => text.parse()?,
    };
    let address = resolve(&args.host).await?;
    let (_lock, node) = prepare(&args.data_root)?;
    let draft = Draft::open(&args.data_root)?;
    let key = draft.key()?;
    let welcome = nuncio_mesh::join(&token, address, (&node, &node::hostname()), &key).await?;
    let member = (token.mesh(), &node);
    draft.accept(member, address, args.advertise_addr, (&welcome, &key))?;
    line("This node joined a mesh. Start its daemon with 'nuncio daemon'.")?;
    Ok(0)
}

/// Keeps daemons out of a data directory meanwhile, and finds out which node it is that of.
pub(super) fn leave(args: &LeaveArgs) -> anyhow::Result<u8> {
    doctor::require_root("nuncio leave")?;
    let (_lock, node) = prepare(&args.data_root)?;
    let Some(home) = Home::open(&args.data_root)? else {
        bail!("this node is not part of a mesh");
    };
    let is_manager = home.membership().manager == node;
    if is_manager && !args.force {
        bail!(
            "this node is the manager of its mesh, which ends with it: its authority, tokens and members would be gone. Use --force if that is meant"
        );
    }
    home.leave()?;
    line("This node left the mesh.")?;
    if !is_manager {
        line(&format!(
            "
To have the others forget it, run the following command on the mesh's manager:

    nuncio node rm {node}"
        ))?;
    }
    Ok(0)
}

fn prepare(data_root: &Path) -> anyhow::Result<(std::fs::File, NodeId)> {
    std::fs::create_dir_all(data_root).with_context(|| format!("make {}", data_root.display()))?;
    let lock = daemon::lock(data_root)?;
    Ok((lock, node::Identity::reserve(data_root)?.parse()?))
}

fn read_token() -> anyhow::Result<String> {
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
    read.context("read the token from standard input")?;
    Ok(text)
}

/// An address, or a name that has one, perhaps with a port.
async fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(Address { ip, port }) = host.parse() {
        return Ok((ip, port.unwrap_or(daemon::REGISTRY_PORT)).into());
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)),
        None => (host, Some(daemon::REGISTRY_PORT)),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match port {
        Some(port) if !name.is_empty() && name.chars().all(named) => {
            let looked_up = nuncio_registry::lookup(name, LOOKUP).await;
            let ip = looked_up.map_err(|error| anyhow::anyhow!("look up {name}: {error}"))?;
            Ok((ip, port).into())
        }
        _ => bail!("{host:?} is no host: expected HOST or HOST:PORT, as 10.0.0.1:2379"),
    }
}

pub(super) fn span(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.nanoseconds()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| {
            text.parse::<Address>()
                .ok()
                .map(|it| (it.ip.to_string(), it.port))
        };
        assert_eq!(parsed("10.0.0.1"), Some(("10.0.0.1".to_owned(), None)));
        assert_eq!(
            parsed("10.0.0.1:80"),
            Some(("10.0.0.1".to_owned(), Some(80)))
        );
        assert_eq!(
            parsed("[fd00::1]:80"),
            Some(("fd00::1".to_owned(), Some(80)))
        );
        for wrong in ["", "eth0", "10.0.0.1:0", "10.0.0.1:x", "10.0.0:80"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn hosts_that_are_none() {
        for wrong in ["", ":80", "a b", "host:0", "host:port", "http://host"] {
            let error = resolve(wrong).await.expect_err("no host").to_string();
            assert!(error.contains("expected HOST or HOST:PORT"), "{error}");
        }
    }
}
