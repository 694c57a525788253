use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use tokio::time::{sleep, timeout};

use crate::{
    MacAddr, NetNs, OpenNetNsError, gateway, gateway6_of,
    kernel::is_link_name,
    netlink::{Link, Netlink, NewVeth, Route},
};

/// A link between a container and a bridge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttachRequest {
    /// The container's network namespace.
    pub netns: PathBuf,
    /// Name of the link inside, such as `eth0`.
    pub container_link: String,
    /// Name of its other end, see [`veth_name`](crate::veth_name).
    pub host_link: String,
    /// Bridge to put the other end on.
    pub bridge: String,
    /// The container's addresses: at most one of each family. Without one of IPv6 the link carries none.
    pub places: Vec<Place>,
    /// Address of the link inside, see [`MacAddr::of_address`].
    pub mac: MacAddr,
    /// MTU of both ends.
    pub mtu: u16,
    /// Whether other isolated links of the bridge are out of reach.
    pub isolated: bool,
}

/// A container's address in a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The address, with the prefix of its block.
    pub address: IpNetwork,
    /// Where the default route leads. `None` for an internal network, and for all but one of the
    /// networks of a container; the rest of `subnet` is then still reached through the block's gateway.
    pub gateway: Option<IpAddr>,
    /// Addresses of the whole network.
    pub subnet: IpNetwork,
}

/// Why a container could not be attached. Nothing is left of the link then.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A name that the kernel would not take.
    #[error("`{0}` is no link name: 1 to 15 of letters, digits, `-`, `_` and `.` are")]
    LinkName(String),
    /// The container's namespace cannot be opened.
    #[error(transparent)]
    NetNs(#[from] OpenNetNsError),
    /// No such bridge.
    #[error("there is no bridge {0} to attach to")]
    NoBridge(String),
    /// Somebody else's bridge, which is left as it is.
    #[error("bridge {0} is down: set it up with `ip link set {0} up`")]
    BridgeDown(String),
    /// The name is that of another kind of link.
    #[error("link {0} was not made by nuncio")]
    Foreign(String),
    /// The kernel refused a step.
    #[error("{step} for link {link}")]
    Kernel {
        /// What was to be done.
        step: &'static str,
        /// The host's end.
        link: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a container could not be detached.
#[derive(Debug, thiserror::Error)]
#[error("delete link {link}")]
pub struct DetachError {
    link: String,
    source: io::Error,
}

/// Gives a container a link to a bridge, with address and routes. What of it is there already stays,
/// so that after a crash the same call completes it.
///
/// # Errors
///
/// Nothing is left of the link then, even if it was there before.
pub async fn attach(request: &AttachRequest) -> Result<(), AttachError> {
    for name in [&request.container_link, &request.host_link, &request.bridge] {
        if !is_link_name(name) {
            return Err(AttachError::LinkName(name.clone()));
        }
    }
    let step = Step(&request.host_link);
    let namespace = NetNs::open(&request.netns)?;
    let host = step.done("open a route socket", Netlink::open())?;
    let container = Netlink::open_in(&namespace).await;
    let container = step.done("open a route socket in the container", container)?;
    let links = Links {
        host,
        container,
        namespace,
    };
    let mut unfinished = None;
    let result = links.connect(request, &step, &mut unfinished).await;
    if let (Err(_), Some(index)) = (&result, unfinished)
        && let Err(error) = links.host.delete_link(index).await
    {
        tracing::warn!(link = request.host_link, %error, "delete a half-made link");
    }
    result
}

/// Removes a container's link, which goes with both its ends; that it is gone already is no error.
///
/// # Errors
///
/// If the kernel does not delete it.
pub async fn detach(host_link: &str) -> Result<(), DetachError> {
    let delete = async {
        let netlink = Netlink::open()?;
        match netlink.link(host_link).await? {
            Some(link) => netlink.delete_link(link.index).await,
            None => Ok(()),
        }
    };
    delete.await.map_err(|source| DetachError {
        link: host_link.to_owned(),
        source,
    })
}

/// The settings of IPv6 of each link.
const SETTINGS_V6: &str = "/proc/sys/net/ipv6/conf";
/// Where those ask who look for an IPv6 address, but for its last three bytes.
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
/// A port forwards within milliseconds, unless its bridge is down.
const FORWARDS: Duration = Duration::from_secs(2);

/// Both sides of a link in the making.
struct Links {
    host: Netlink,
    container: Netlink,
    namespace: NetNs,
}

impl Links {
    /// Notes in `unfinished` which link is to be taken back if it fails.
    async fn connect(
        &self,
        request: &AttachRequest,
        step: &Step<'_>,
        unfinished: &mut Option<u32>,
    ) -> Result<(), AttachError> {
        let bridge = step.done("look for the bridge", self.host.link(&request.bridge).await)?;
        let bridge = bridge.filter(Link::is_bridge);
        let bridge = bridge.ok_or_else(|| AttachError::NoBridge(request.bridge.clone()))?;
        if !bridge.ours && !bridge.up {
            return Err(AttachError::BridgeDown(request.bridge.clone()));
        }
        let outside = self.pair(request, step).await?;
        *unfinished = Some(outside);

        // What passes is bridged: at this end it is nobody's.
        let port = Path::new(SETTINGS_V6).join(&request.host_link);
        step.done("keep IPv6 off this end", without_v6(&port))?;
        step.done("set the MTU", self.host.set_mtu(outside, request.mtu).await)?;
        step.done(
            "join the bridge",
            self.host.set_bridge(outside, bridge.index).await,
        )?;
        let isolated = self.host.set_port(outside, request.isolated).await;
        step.done("set isolation", isolated)?;
        step.done("set up", self.host.set_up(outside).await)?;
        // From now on it is put back when somebody takes it away.
        let alias = self.host.set_alias(outside, &request.bridge).await;
        step.done("note the bridge", alias)?;
        for place in &request.places {
            let address = place.address.ip();
            let forgotten = self.host.delete_neighbour(bridge.index, address).await;
            step.done("forget the address's former MAC", forgotten)?;
        }
        self.configure(request, step).await
    }

    /// Finds the pair, or makes it, and returns the index of the host's end.
    async fn pair(&self, request: &AttachRequest, step: &Step<'_>) -> Result<u32, AttachError> {
        let name = &request.host_link;
        if let Some(outside) = step.done("look for the link", self.host.link(name).await)? {
            if !outside.ours {
                return Err(AttachError::Foreign(name.clone()));
            }
            let inside = self.container.link(&request.container_link).await;
            if step
                .done("look for the link inside", inside)?
                .is_some_and(|inside| {
                    inside.mac == Some(request.mac) && inside.mtu == u32::from(request.mtu)
                })
            {
                return Ok(outside.index);
            }
            step.done(
                "delete an outdated pair",
                self.host.delete_link(outside.index).await,
            )?;
        }
        let pair = NewVeth {
            name,
            peer: &request.container_link,
            namespace: &self.namespace,
            mac: request.mac,
            mtu: request.mtu,
        };
        step.done("make a pair", self.host.add_veth(&pair).await)?;
        let outside = step.done("look for the new link", self.host.link(name).await)?;
        let gone = || AttachError::Kernel {
            step: "find the new link",
            link: name.clone(),
            source: Errno::ENODEV.into(),
        };
        outside.map(|link| link.index).ok_or_else(gone)
    }

    async fn configure(&self, request: &AttachRequest, step: &Step<'_>) -> Result<(), AttachError> {
        let inside = self.container.link(&request.container_link).await;
        let inside = step.done("look for the link inside", inside)?;
        let inside = step
            .done("find the link inside", inside.ok_or(Errno::ENODEV.into()))?
            .index;
        let link = request.container_link.clone();
        let has_v6 = request.places.iter().any(|place| place.address.is_ipv6());
        let settings = self.namespace.run(move || settings(&link, has_v6)).await;
        step.done("set kernel settings inside", settings.and_then(|done| done))?;
        // Of IPv6 the kernel has routes only once the link is up.
        let up = self.container.set_up(inside).await;
        step.done("set up the link inside", up)?;
        for place in &request.places {
            let address = match behind_host(request, place) {
                Some(_) => IpNetwork::from(place.address.ip()),
                None => place.address,
            };
            let added = self.container.add_address(inside, address).await;
            step.done("add an address", added)?;
        }
        for route in routes(request, inside) {
            step.done("add a route", self.container.replace_route(route).await)?;
        }
        let reached = self.reached(request).await;
        step.done("wait for the bridge to forward", reached)?;
        let announced = self.container.set_mac(inside, request.mac).await;
        step.done("announce the address", announced)
    }

    /// Waits until the port takes frames and the bridge sends them, a moment after the link has come up, and until
    /// both ends hear who asks for their IPv6 addresses, a moment after they have them. What a container asked before
    /// would be lost, and only asked again after a second.
    async fn reached(&self, request: &AttachRequest) -> io::Result<()> {
        let reached = async {
            let mut pause = Duration::from_millis(1);
            while !(self.forwards(request).await? && self.hears(request).await?) {
                sleep(pause).await;
                pause *= 2;
            }
            Ok(())
        };
        let reached = timeout(FORWARDS, reached).await;
        reached.unwrap_or_else(|_| Err(Errno::ETIMEDOUT.into()))
    }

    async fn forwards(&self, request: &AttachRequest) -> io::Result<bool> {
        let port = self.host.link(&request.host_link).await?;
        let bridge = self.host.link(&request.bridge).await?;
        // Spanning tree has a port listen for half a minute first.
        let waits = bridge.as_ref().is_some_and(|bridge| bridge.stp);
        Ok(waits
            || port.is_some_and(|port| port.forwarding)
                && bridge.is_some_and(|bridge| bridge.operating))
    }

    async fn hears(&self, request: &AttachRequest) -> io::Result<bool> {
        for place in &request.places {
            if let IpNetwork::V6(address) = place.address {
                let link = request.container_link.clone();
                let inside = self.namespace.run(move || hears(&link, address.ip()));
                if !inside.await?? || !hears(&request.bridge, gateway6_of(address))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Whether a link of the calling thread's namespace is in the group that is asked for an address (RFC 4291 §2.7.1).
fn hears(link: &str, address: Ipv6Addr) -> io::Result<bool> {
    let group = SOLICITED_NODE | u128::from(address) & 0xff_ffff;
    let group = format!("{group:032x}");
    let groups = fs::read_to_string("/proc/thread-self/net/igmp6")?;
    Ok(groups.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(link) && words.next() == Some(&group)
    }))
}

/// The gateway of an IPv6 address that has no neighbour but that one: frames of an isolated port come to nobody else. (Of
/// IPv4 the bridge answers for the others, see [`Segment::linked`](crate::Segment::linked).)
fn behind_host(request: &AttachRequest, place: &Place) -> Option<IpAddr> {
    let alone = request.isolated && place.address.is_ipv6();
    alone.then(|| gateway(place.address))
}

fn routes(request: &AttachRequest, link: u32) -> impl Iterator<Item = Route> {
    let through = move |destination, gateway| Route {
        destination,
        gateway: Some(gateway),
        source: None,
        link,
        mtu: None,
    };
    request.places.iter().flat_map(move |place| {
        let behind = behind_host(request, place);
        let to_host = behind.map(|host| Route {
            gateway: None,
            ..through(IpNetwork::from(host), host)
        });
        let subnet = (behind.is_some() || place.subnet.prefix() < place.address.prefix())
            .then(|| through(place.subnet, gateway(place.address)));
        let default = place.gateway.and_then(|gateway| {
            let all = match gateway {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            Some(through(IpNetwork::new(all, 0).ok()?, gateway))
        });
        to_host.into_iter().chain(subnet).chain(default)
    })
}

/// With `arp_notify`, and `ndisc_notify` of IPv6, the kernel tells the neighbours when the MAC is set, so that none
/// keeps the MAC of who had the address before. Addresses are handed out, so none is asked for or doubted.
fn settings(link: &str, has_v6: bool) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/conf/{link}/arp_notify"), "1")?;
    let v6 = Path::new(SETTINGS_V6).join(link);
    if has_v6 {
        for (setting, value) in [
            ("accept_ra", "0"),
            ("accept_dad", "0"),
            ("ndisc_notify", "1"),
            ("disable_ipv6", "0"),
        ] {
            fs::write(v6.join(setting), value)?;
        }
    } else {
        without_v6(&v6)?;
    }
    Ok(())
}

/// Leaves a link, of which these are the settings, without IPv6; a kernel that knows none has none of them.
fn without_v6(settings: &Path) -> io::Result<()> {
    match fs::write(settings.join("disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names the link in errors.
struct Step<'a>(&'a str);

impl Step<'_> {
    fn done<T>(&self, step: &'static str, result: io::Result<T>) -> Result<T, AttachError> {
        result.map_err(|source| AttachError::Kernel {
            step,
            link: self.0.to_owned(),
            source,
        })
    }
}
