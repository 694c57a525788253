//! `nuncio daemon`: its flags, and what they mean once parsed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnetwork::Ipv4Network;
use nuncio_runtime::image::{InsecureRegistry, Mirror, RegistrySettings};

pub(crate) use self::registry::{RegistryAccess, RegistryChoice};
use super::host::{DEFAULT_HOST, Host};
use super::parse::{OtlpEndpoint, Size, Span};
use super::tls::{TlsArgs, TlsFiles};
use crate::daemon::audit;

mod registry;

/// Flags of `nuncio daemon`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DaemonArgs {
    /// Where images, containers and networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nuncio")]
    data_root: PathBuf,

    /// Where sockets and the state of running processes are kept
    #[arg(long, value_name = "DIR", default_value = "/run/nuncio")]
    exec_root: PathBuf,

    /// Socket to serve the API on (may be repeated)
    #[arg(short = 'H', long = "host", value_name = "unix://PATH|tcp://ADDR:PORT", default_value = DEFAULT_HOST)]
    hosts: Vec<Host>,

    /// The group that may use the unix sockets, beside root (default: nuncio, if there is such a group)
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Where changes by the API are written down, or `none` (default: audit.log in --data-root)
    #[arg(long, value_name = "PATH|none")]
    audit_log: Option<PathBuf>,

    /// The registry: `embedded`, or the URLs of an etcd cluster or of another nuncio daemon (default: the mesh's, if this
    /// host is in one, else embedded)
    #[arg(long, value_name = "embedded|URL,..")]
    registry: Option<RegistryChoice>,

    /// Where the embedded registry listens for other daemons (default: for this one only)
    #[arg(long, value_name = "ADDR:PORT")]
    registry_listen: Option<SocketAddr>,

    /// How large keys, values and history of the embedded registry may become; then it takes no more until some are deleted
    #[arg(long, value_name = "BYTES", default_value = "2g")]
    registry_quota: Size,

    #[command(flatten)]
    registry_access: RegistryAccess,

    /// The address by which other hosts reach this one (default: that of the route to the registry)
    #[arg(long = "advertise-addr", value_name = "IP")]
    advertise: Option<IpAddr>,

    /// A label of this host, by which services are placed: engine.labels.KEY (may be repeated)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,

    /// The name of this host among the others (default: its host name)
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// The bridge that the default network is on, which stays as it is, with its addresses and who else is on it; or `none`
    /// for no default network (default: one of our own, nuncio0)
    #[arg(short, long, value_name = "BRIDGE")]
    bridge: Option<String>,

    /// With --bridge: the part of the bridge's network that containers get addresses of, that no other machine has (default: all of it)
    #[arg(long, value_name = "CIDR", requires = "bridge")]
    fixed_cidr: Option<Ipv4Network>,

    /// With --bridge: which address leads out (default: the bridge's own)
    #[arg(long, value_name = "IP", requires = "bridge")]
    default_gateway: Option<Ipv4Addr>,

    /// Let the containers of the default network reach each other without a link
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    icc: bool,

    /// Let all containers connect to what listens on this host itself, rather than those alone that are run with
    /// `--add-host NAME:host-gateway`
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    host_access: bool,

    /// Ports of this host for `-P`, and for `-p` without one
    #[arg(long, value_name = "FIRST-LAST", default_value = "49000-49900")]
    publish_range: PortRange,

    /// Have the ambassador relay what containers connect to services, rather than rewrite it in the kernel (eBPF)
    #[arg(long)]
    no_direct: bool,

    /// Where this host itself, and others, may ask for names below service.nuncio, and for nothing else: the address of the
    /// host that listens, with port 53 unless another is given (may be 127.0.0.1)
    #[arg(long = "dns-addr", value_name = "IP[:PORT]", value_parser = dns_address)]
    dns: Option<SocketAddr>,

    /// Be a gateway, which gateways of other meshes reach here, with port 2390 unless another is given; the thousand ports
    /// behind that lead to services (`nuncio peer --help`)
    #[arg(long = "gateway-addr", value_name = "IP[:PORT]", value_parser = gateway_address)]
    gateway: Option<SocketAddr>,

    /// Let be what others change of links, routes and rules, rather than mend it at once: for `nuncio why` to be tried, and
    /// for whoever looks for a fault
    #[arg(long)]
    no_repair: bool,

    /// Have what containers of two hosts send each other pass bridge, routing and the rules of all nft tables, your own
    /// among them, instead of taking it past them
    #[arg(long)]
    no_shortcut: bool,

    /// Serve metrics there, for Prometheus: to everybody who reaches that port
    #[arg(long = "metrics-addr", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,

    /// Send traces of requests and flows to a collector of OpenTelemetry, by OTLP over HTTP
    #[arg(long = "otlp-endpoint", value_name = "http://HOST:PORT")]
    otlp: Option<OtlpEndpoint>,

    /// Serve the dashboard there, on this machine's loopback, to who shows the token that `nuncio dashboard` prints (default:
    /// nowhere; `nuncio dashboard` serves it by itself then)
    #[arg(long = "dashboard-addr", value_name = "ADDR:PORT", value_parser = loopback_address)]
    dashboard: Option<SocketAddr>,

    /// Let who may see that dashboard run programs in containers, too
    #[arg(long, requires = "dashboard")]
    dashboard_allow_exec: bool,

    /// UDP port that carries the overlay between hosts; the same on all of them
    #[arg(long, value_name = "PORT", default_value_t = 4789,
          value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,

    /// UDP port that carries encrypted networks between hosts
    #[arg(long, value_name = "PORT", default_value_t = 51820,
          value_parser = clap::value_parser!(u16).range(1..))]
    tunnel_port: u16,

    /// TCP port by which other hosts reach this one where UDP does not get through
    #[arg(long, value_name = "PORT", default_value_t = 51820,
          value_parser = clap::value_parser!(u16).range(1..))]
    fallback_port: u16,

    /// TCP port, inside the overlay, by which links of a mesh's other hosts get to this one, encrypted
    #[arg(long, value_name = "PORT", default_value_t = 51821,
          value_parser = clap::value_parser!(u16).range(1..))]
    link_port: u16,

    /// TCP port by which the other hosts of a mesh ask this one for events, figures and logs (`nuncio stats --all-nodes`), or 0:
    /// tell them nothing
    #[arg(long, value_name = "PORT", default_value_t = 51822)]
    peek_port: u16,

    /// Outside of a mesh: tell everybody who reaches --peek-port, by no certificate and in clear
    #[arg(long)]
    insecure_peek: bool,

    /// How long to wait for a reader of events, figures or a log that is followed when it takes nothing; then it is let go
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = reader_patience)]
    reader_patience: Duration,

    /// Where subnets are taken from: a pool, and how long the prefix of each subnet is (may be repeated)
    #[arg(long = "default-address-pool", value_name = "CIDR,SIZE")]
    pools: Vec<AddressPool>,

    /// A registry without TLS, or with a certificate that nobody vouches for: HOST[:PORT] or a network (may be repeated)
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Vec<InsecureRegistry>,

    /// A registry that is asked for Docker Hub's images first (may be repeated)
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Vec<Mirror>,

    /// Where certificates (HOST[:PORT]/*.crt) are that registries are trusted by (may be repeated)
    #[arg(long = "registry-certs", value_name = "DIR",
          default_values = ["/etc/nuncio/certs.d", "/etc/docker/certs.d"])]
    registry_certs: Vec<PathBuf>,

    /// The least severe messages to log, when NUNCIO_LOG and RUST_LOG are not set
    #[arg(long, value_name = "LEVEL", default_value = "info",
          value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: String,
}

const EXAMPLES: &str = "\
Examples:
  One host:
    nuncio daemon
  Two hosts that find each other, and let in nobody else (`nuncio init --help`):
    nuncio init --advertise-addr 10.0.0.1; nuncio daemon
    nuncio join TOKEN 10.0.0.1; nuncio daemon
  Two hosts on a network that you trust; the first one keeps the registry:
    nuncio daemon --registry-listen 10.0.0.1:2379 --advertise-addr 10.0.0.1
    nuncio daemon --registry http://10.0.0.1:2379 --advertise-addr 10.0.0.2
  With the API for operators elsewhere too, who show certificates (`nuncio cert create --help`):
    nuncio daemon -H unix:///run/nuncio/nuncio.sock -H tcp://10.0.0.1:2376
  With an etcd cluster, on every host:
    nuncio daemon --registry http://10.0.0.1:2379,http://10.0.0.2:2379,http://10.0.0.3:2379
  With one that knows its clients:
    nuncio daemon --registry https://10.0.0.1:2379 --registry-ca ca.pem --registry-cert host.pem --registry-key host.key";

impl DaemonArgs {
    /// What to log when the environment does not say.
    pub(crate) fn log_level(&self) -> &str {
        &self.log_level
    }
}

/// How to run the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DaemonOptions {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    /// Where to serve the API; at least one.
    pub(crate) hosts: Vec<Host>,
    /// By which certificates it is served over TCP; `None`: those of the mesh.
    pub(crate) tls: Option<TlsFiles>,
    /// Whose the sockets are, beside root's.
    pub(crate) group: Option<String>,
    /// Where changes are written down, if anywhere.
    pub(crate) audit_log: Option<PathBuf>,
    /// `None`: the mesh's, else the embedded one.
    pub(crate) registry: Option<RegistryChoice>,
    /// Where the embedded registry listens for others.
    pub(crate) registry_listen: Option<SocketAddr>,
    pub(crate) registry_access: RegistryAccess,
    /// Bytes of the embedded registry.
    pub(crate) registry_quota: u64,
    pub(crate) advertise: Option<IpAddr>,
    pub(crate) node_name: Option<String>,
    pub(crate) bridge: Option<String>,
    /// Where containers on that bridge get their addresses.
    pub(crate) fixed_cidr: Option<Ipv4Network>,
    /// Where the way out of that bridge is.
    pub(crate) default_gateway: Option<Ipv4Addr>,
    pub(crate) icc: bool,
    /// Whether all containers may connect to this host itself.
    pub(crate) host_access: bool,
    /// First and last port of this host for those who ask for none.
    pub(crate) publish_range: (u16, u16),
    /// This host's labels, by which services are placed.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// Whether connections to services may go straight to their containers.
    pub(crate) direct: bool,
    /// Where names of services are told to who is in no container.
    pub(crate) dns: Option<SocketAddr>,
    /// Where gateways of other meshes reach this one.
    pub(crate) gateway: Option<SocketAddr>,
    /// Whether what others change in the kernel is mended.
    pub(crate) repair: bool,
    /// Whether packets between containers of two hosts pass by bridge, routing and rules.
    pub(crate) shortcut: bool,
    pub(crate) metrics: Option<SocketAddr>,
    /// Where traces are sent to.
    pub(crate) otlp: Option<OtlpEndpoint>,
    /// Where the dashboard is served, and whether programs may be run from there.
    pub(crate) dashboard: Option<SocketAddr>,
    pub(crate) dashboard_exec: bool,
    pub(crate) vxlan_port: u16,
    pub(crate) tunnel_port: u16,
    pub(crate) fallback_port: u16,
    pub(crate) link_port: u16,
    /// 0: other hosts are told nothing.
    pub(crate) peek_port: u16,
    /// Whether they are told without a mesh, and everybody with them.
    pub(crate) insecure_peek: bool,
    /// How long a reader may take nothing of what has no end.
    pub(crate) reader_patience: Duration,
    /// Pools and the prefix length of the subnets taken from each; empty: the built-in ones.
    pub(crate) pools: Vec<(Ipv4Network, u8)>,
    /// How registries of images are reached.
    pub(crate) registries: Arc<RegistrySettings>,
}

/// Flags that contradict each other.
#[derive(Debug, thiserror::Error)]
#[error(
    "--registry-listen {listen} with --registry {urls}: only the embedded registry can listen; \
     leave one of the two out"
)]
pub(crate) struct ListenWithoutEmbedded {
    listen: SocketAddr,
    urls: String,
}

impl TryFrom<DaemonArgs> for DaemonOptions {
    type Error = anyhow::Error;

    fn try_from(args: DaemonArgs) -> anyhow::Result<Self> {
        if let (Some(RegistryChoice::Urls(urls)), Some(listen)) =
            (&args.registry, args.registry_listen)
        {
            let urls = urls.join(",");
            return Err(ListenWithoutEmbedded { listen, urls }.into());
        }
        let audit_log = match args.audit_log {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(path),
            None => Some(args.data_root.join(audit::FILE)),
        };
        Ok(Self {
            data_root: args.data_root,
            exec_root: args.exec_root,
            hosts: args.hosts,
            tls: args.tls.server()?,
            group: args.group,
            audit_log,
            registry_access: args.registry_access,
            registry_quota: args.registry_quota.bytes().unsigned_abs(),
            registry: args.registry,
            registry_listen: args.registry_listen,
            advertise: args.advertise,
            node_name: args.node_name,
            bridge: args.bridge,
            fixed_cidr: args.fixed_cidr,
            default_gateway: args.default_gateway,
            icc: args.icc,
            host_access: args.host_access,
            publish_range: (args.publish_range.first, args.publish_range.last),
            labels: labels(&args.labels),
            direct: !args.no_direct,
            dns: args.dns,
            gateway: args.gateway,
            repair: !args.no_repair,
            shortcut: !args.no_shortcut,
            metrics: args.metrics,
            otlp: args.otlp,
            dashboard: args.dashboard,
            dashboard_exec: args.dashboard_allow_exec,
            vxlan_port: args.vxlan_port,
            tunnel_port: args.tunnel_port,
            fallback_port: args.fallback_port,
            link_port: args.link_port,
            peek_port: args.peek_port,
            insecure_peek: args.insecure_peek,
            reader_patience: args.reader_patience,
            pools: args
                .pools
                .into_iter()
                .map(|pool| (pool.base, pool.size))
                .collect(),
            registries: Arc::new(RegistrySettings {
                insecure: args.insecure_registries,
                mirrors: args.registry_mirrors,
                certificates: args.registry_certs,
            }),
        })
    }
}

/// Not where something can listen.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of this host: expected IP or IP:PORT, as 10.0.0.1:{1}")]
struct NotAnAddress(String, u16);

/// Datagrams are answered from the address that was asked, which one that stands for all does not tell.
fn dns_address(text: &str) -> Result<SocketAddr, NotAnAddress> {
    one_address(text, 53)
}

fn gateway_address(text: &str) -> Result<SocketAddr, NotAnAddress> {
    one_address(text, crate::daemon::peers::PORT)
}

/// How long a reader is waited for.
fn reader_patience(text: &str) -> anyhow::Result<Duration> {
    let span: Span = text.parse()?;
    let nanoseconds = u64::try_from(span.nanoseconds()).unwrap_or_default();
    let patience = Duration::from_nanos(nanoseconds);
    anyhow::ensure!(
        patience >= Duration::from_secs(1),
        "{text}: expected 1s or more"
    );
    Ok(patience)
}

fn one_address(text: &str, usual: u16) -> Result<SocketAddr, NotAnAddress> {
    let bare = || Some(SocketAddr::new(text.parse().ok()?, usual));
    let address = text.parse().ok().or_else(bare);
    let is_one = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
    address
        .filter(is_one)
        .ok_or_else(|| NotAnAddress(text.to_owned(), usual))
}

/// Not on loopback.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not on this machine's loopback, beyond which the dashboard would be in clear: expected 127.0.0.1:PORT or \
     [::1]:PORT; from elsewhere, use `nuncio -H tcp://HOST:PORT dashboard`, or ssh -L"
)]
pub(crate) struct NotLoopback(String);

pub(crate) fn loopback_address(text: &str) -> Result<SocketAddr, NotLoopback> {
    let address = text.parse().ok();
    let address = address.filter(|address: &SocketAddr| address.ip().is_loopback());
    address.ok_or_else(|| NotLoopback(text.to_owned()))
}

/// Ports of the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct PortRange {
    first: u16,
    last: u16,
}

/// No range of ports.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no range of ports: expected FIRST-LAST of 1 to 65535, as 49000-49900")]
struct NotARange(String);

impl FromStr for PortRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        let parsed = || {
            let (first, last) = text.split_once('-')?;
            Some((number(first)?, number(last)?))
        };
        match parsed() {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            _ => Err(NotARange(text.to_owned())),
        }
    }
}

/// Where subnets are taken from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct AddressPool {
    base: Ipv4Network,
    /// Prefix length of each subnet.
    size: u8,
}

/// Not a pool and a prefix length.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not an address pool: expected an IPv4 network and the prefix length of the subnets \
     to take from it, no shorter than the network's and at most 29, as 10.64.0.0/12,24"
)]
struct NotAPool(String);

impl FromStr for AddressPool {
    type Err = NotAPool;

    fn from_str(text: &str) -> Result<Self, NotAPool> {
        let wrong = || NotAPool(text.to_owned());
        let (base, size) = docker_pool(text)
            .or_else(|| text.split_once(','))
            .ok_or_else(wrong)?;
        let base: Ipv4Network = base.parse().map_err(|_| wrong())?;
        let size: u8 = size.parse().map_err(|_| wrong())?;
        let aligned = base.ip() == base.network();
        if aligned && (base.prefix()..=29).contains(&size) {
            Ok(Self { base, size })
        } else {
            Err(wrong())
        }
    }
}

/// The values of `base=CIDR,size=N`, which is how dockerd writes a pool.
fn docker_pool(text: &str) -> Option<(&str, &str)> {
    let (base, size) = text.strip_prefix("base=")?.split_once(',')?;
    Some((base, size.strip_prefix("size=")?))
}

/// A label without a value has an empty one, as Docker's daemon has it.
fn labels(given: &[String]) -> std::collections::BTreeMap<String, String> {
    let pair = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    given.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        let range = "40000-40000".parse::<PortRange>().ok();
        let expected = PortRange {
            first: 40000,
            last: 40000,
        };
        assert_eq!(range, Some(expected));
        for wrong in ["", "80", "0-80", "81-80", "1-65536", "1-2-3", "-", "a-b"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_name_servers() {
        let port = |text| dns_address(text).ok().map(|address| address.port());
        assert_eq!(port("127.0.0.1"), Some(53));
        assert_eq!(port("[::1]:5353"), Some(5353));
        for wrong in [
            "",
            "53",
            ":53",
            "0.0.0.0:53",
            "::",
            "127.0.0.1:0",
            "localhost:53",
        ] {
            assert_eq!(port(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn pools() {
        for right in ["10.64.0.0/12,24", "base=10.64.0.0/12,size=24"] {
            let pool = right
                .parse::<AddressPool>()
                .map(|pool| (pool.base.to_string(), pool.size));
            assert_eq!(pool.ok(), Some(("10.64.0.0/12".to_owned(), 24)), "{right}");
        }
        for wrong in [
            "10.0.0.0/8",
            "10.0.0.0/16,8",
            "10.0.0.1/16,24",
            "10.0.0.0/8,30",
            "x,24",
        ] {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
    }
}
