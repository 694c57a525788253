use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnetwork::Ipv4Network;
use nix::errno::Errno;
use tokio::time::{sleep, timeout};

use crate::{
    MacAddr, NetNs, OpenNetNsError, gateway_of,
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
    /// The container's address, with the prefix of its block.
    pub address: Ipv4Network,
    /// Where the default route leads. `None` for an internal network, and for all but one of the
    /// networks of a container; the rest of `subnet` is then still reached through the block's gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses of the whole network.
    pub subnet: Ipv4Network,
    /// Address of the link inside, see [`MacAddr::of_address`].
    pub mac: MacAddr,
    /// MTU of both ends.
    pub mtu: u16,
    /// Whether other isolated links of the bridge are out of reach.
    pub isolated: bool,
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

        let alias = self.host.set_alias(outside, &request.bridge).await;
        step.done("note the bridge", alias)?;
        step.done("set the MTU", self.host.set_mtu(outside, request.mtu).await)?;
        step.done(
            "join the bridge",
            self.host.set_bridge(outside, bridge.index).await,
        )?;
        let isolated = self.host.set_port(outside, request.isolated).await;
        step.done("set isolation", isolated)?;
        step.done("set up", self.host.set_up(outside).await)?;
        let address = request.address.ip();
        let forgotten = self.host.delete_neighbour(bridge.index, address).await;
        step.done("forget the address's former MAC", forgotten)?;
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
        let settings = self.namespace.run(move || settings(&link)).await;
        step.done("set kernel settings inside", settings.and_then(|done| done))?;
        let added = self.container.add_address(inside, request.address).await;
        step.done("add the address", added)?;
        step.done(
            "set up the link inside",
            self.container.set_up(inside).await,
        )?;
        for route in routes(request, inside) {
            step.done("add a route", self.container.replace_route(route).await)?;
        }
        step.done(
            "wait for the bridge to forward",
            self.forwarding(request).await,
        )?;
        let announced = self.container.set_mac(inside, request.mac).await;
        step.done("announce the address", announced)
    }

    /// Waits until the port takes frames and the bridge sends them, a moment after the link has come up.
    /// What a container asked before would be lost, and only asked again after a second.
    async fn forwarding(&self, request: &AttachRequest) -> io::Result<()> {
        let forwards = async {
            let mut pause = Duration::from_millis(1);
            loop {
                let port = self.host.link(&request.host_link).await?;
                let bridge = self.host.link(&request.bridge).await?;
                // Spanning tree has a port listen for half a minute first.
                if bridge.as_ref().is_some_and(|bridge| bridge.stp) {
                    return Ok(());
                }
                if port.is_some_and(|port| port.forwarding)
                    && bridge.is_some_and(|bridge| bridge.operating)
                {
                    return Ok(());
                }
                sleep(pause).await;
                pause *= 2;
            }
        };
        let forwards = timeout(FORWARDS, forwards).await;
        forwards.unwrap_or_else(|_| Err(Errno::ETIMEDOUT.into()))
    }
}

fn routes(request: &AttachRequest, link: u32) -> impl Iterator<Item = Route> {
    let through = |destination, gateway| Route {
        destination,
        gateway: Some(gateway),
        source: None,
        link,
        mtu: None,
    };
    let subnet = (request.subnet.prefix() < request.address.prefix())
        .then(|| through(request.subnet, gateway_of(request.address)));
    let default = Ipv4Network::from(Ipv4Addr::UNSPECIFIED);
    let default = Ipv4Network::new(default.ip(), 0).ok();
    let default = default
        .zip(request.gateway)
        .map(|(all, gateway)| through(all, gateway));
    subnet.into_iter().chain(default)
}

/// With `arp_notify` the kernel tells the neighbours (gratuitous ARP) when the MAC is set, so that none
/// keeps the MAC of who had the address before.
fn settings(link: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/conf/{link}/arp_notify"), "1")?;
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        fs::write(ipv6, "1")?; // the overlay carries IPv4 only
    }
    Ok(())
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
