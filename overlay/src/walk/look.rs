//! What the kernel holds, asked at one moment.

use std::{fs, io, net::IpAddr};

use serde_json::Value;

use super::WalkRequest;
use crate::{
    NetNs,
    netlink::{Address, FdbRow, Link, Neighbour, Netlink, Way},
    nft,
};

/// In the container's network namespace.
pub(super) struct Inside {
    pub(super) link: Option<Link>,
    pub(super) addresses: Vec<Address>,
    /// Where packets to the other end go.
    pub(super) way: io::Result<Way>,
}

/// In the host's.
pub(super) struct Host {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) fdb: Vec<FdbRow>,
    /// Where packets to the other end go, and to the host that it is on.
    pub(super) way: io::Result<Way>,
    pub(super) underlay: Option<io::Result<Way>>,
    pub(super) forwarding: bool,
    /// The rules of what is bridged, too, are those of nft, iptables and ip6tables.
    pub(super) bridge_filtered: bool,
    /// All rules, as nft tells them in JSON.
    pub(super) rules: Result<Value, String>,
}

pub(super) async fn inside(request: &WalkRequest) -> io::Result<Inside> {
    let namespace = NetNs::open(&request.attached.netns).map_err(io::Error::other)?;
    let netlink = Netlink::open_in(&namespace).await?;
    Ok(Inside {
        link: netlink.link(&request.attached.container_link).await?,
        addresses: netlink.addresses().await?,
        way: netlink.way_to(request.other).await,
    })
}

pub(super) async fn host(request: &WalkRequest) -> io::Result<Host> {
    let netlink = Netlink::open()?;
    let vtep = request.peer.as_ref().map(|peer| peer.vtep);
    let is_set = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    let filtered = if request.other.is_ipv6() {
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
    } else {
        "/proc/sys/net/bridge/bridge-nf-call-iptables"
    };
    Ok(Host {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        neighbours: netlink.neighbours().await?,
        fdb: netlink.fdb().await?,
        way: netlink.way_to(request.other).await,
        underlay: match vtep {
            Some(vtep) => Some(netlink.way_to(vtep).await),
            None => None,
        },
        forwarding: is_set(&format!(
            "/proc/sys/{}",
            forwarding(request).replace('.', "/")
        )),
        bridge_filtered: is_set(filtered),
        rules: rules().await,
    })
}

/// The setting that makes the host a router, as `sysctl` calls it.
pub(super) fn forwarding(request: &WalkRequest) -> &'static str {
    match request.other {
        IpAddr::V4(_) => "net.ipv4.ip_forward",
        IpAddr::V6(_) => "net.ipv6.conf.all.forwarding",
    }
}

async fn rules() -> Result<Value, String> {
    let listed = nft::list_all().await.map_err(|error| error.to_string())?;
    serde_json::from_str(&listed).map_err(|error| format!("nft's list of rules: {error}"))
}

impl Host {
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    /// Whether a link has the address.
    pub(super) fn has(&self, link: u32, address: IpAddr) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|row| row.link == link && row.address.ip() == address)
    }
}
