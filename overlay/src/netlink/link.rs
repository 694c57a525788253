use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use futures_util::TryStreamExt;
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use super::{Netlink, OURS, to_io};
use crate::{MacAddr, netns::NetNs};

/// A network device, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) up: bool,
    pub(crate) arp: bool,
    pub(crate) loopback: bool,
    /// It was made by this crate.
    pub(crate) ours: bool,
    pub(crate) kind: Option<InfoKind>,
    pub(crate) bridge: Option<u32>,
    pub(crate) isolated: bool,
    /// It has a carrier, and its queue is open for packets (`operstate`).
    pub(crate) operating: bool,
    /// As a port of a bridge it takes frames.
    pub(crate) forwarding: bool,
    pub(crate) stp: bool,
    pub(crate) vxlan: Option<VxlanSettings>,
    pub(crate) counters: Counters,
}

/// Packets that a link has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What of a VXLAN device cannot be changed, only made anew.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct VxlanSettings {
    pub(crate) vni: u32,
    pub(crate) local: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) learning: bool,
}

/// A pair of devices, one here, one in a container.
pub(crate) struct NewVeth<'a> {
    pub(crate) name: &'a str,
    pub(crate) peer: &'a str,
    pub(crate) namespace: &'a NetNs,
    pub(crate) mac: MacAddr,
    pub(crate) mtu: u16,
}

impl Netlink {
    pub(crate) async fn links(&self) -> io::Result<Vec<Link>> {
        let links = self.handle.link().get().execute().map_ok(Link::from);
        links.try_collect().await.map_err(to_io)
    }

    pub(crate) async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await.map_err(to_io) {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge whose MAC stays, whatever ports come and go.
    pub(crate) async fn add_bridge(&self, name: &str, mac: MacAddr) -> io::Result<()> {
        let bridge = LinkBridge::new(name)
            .stp_state(BridgeStpState::Disabled)
            .link_group(OURS.into())
            .address(mac.0.to_vec());
        self.add_link(bridge.build()).await
    }

    /// Makes a VXLAN device that is told everything and learns nothing.
    pub(crate) async fn add_vxlan(
        &self,
        name: &str,
        settings: &VxlanSettings,
        mac: MacAddr,
        mtu: u16,
    ) -> io::Result<()> {
        let vxlan = new_vxlan(name, settings, mac, mtu);
        self.add_link(vxlan.link_group(OURS.into()).build()).await
    }

    /// Makes one that is no network's, and so does not have the mark of those.
    pub(crate) async fn add_trial_vxlan(
        &self,
        name: &str,
        settings: &VxlanSettings,
        mac: MacAddr,
        mtu: u16,
    ) -> io::Result<()> {
        self.add_link(new_vxlan(name, settings, mac, mtu).build())
            .await
    }

    pub(crate) async fn add_veth(&self, veth: &NewVeth<'_>) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(veth.peer)
            .address(veth.mac.0.to_vec())
            .mtu(veth.mtu.into())
            .setns_by_fd(veth.namespace.as_fd().as_raw_fd());
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .link_group(OURS.into())
            .address(MacAddr::of_port(veth.name).0.to_vec())
            .mtu(veth.mtu.into())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.add_link(pair.build()).await
    }

    pub(crate) async fn set_up(&self, index: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).up().build())
            .await
    }

    /// Marks a link as made by this crate.
    pub(crate) async fn set_ours(&self, index: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).link_group(OURS.into());
        self.change(link.build()).await
    }

    pub(crate) async fn set_mtu(&self, index: u32, mtu: u16) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).mtu(mtu.into());
        self.change(link.build()).await
    }

    pub(crate) async fn set_mac(&self, index: u32, mac: MacAddr) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).address(mac.0.to_vec());
        self.change(link.build()).await
    }

    pub(crate) async fn set_no_arp(&self, index: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).arp(false).build())
            .await
    }

    pub(crate) async fn set_no_stp(&self, index: u32) -> io::Result<()> {
        let bridge = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge)
            .index(index)
            .stp_state(BridgeStpState::Disabled);
        self.change(bridge.build()).await
    }

    /// Gives the link a remark, which the kernel keeps.
    pub(crate) async fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).alias(alias);
        self.change(link.build()).await
    }

    pub(crate) async fn set_bridge(&self, index: u32, bridge: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).controller(bridge);
        self.change(link.build()).await
    }

    /// Forbids, or allows, frames between this port and other isolated ports of its bridge.
    ///
    /// Frames may return by the port they came from: with br_netfilter the bridge itself translates
    /// addresses, and would else drop what a container sends to a published port of its own.
    pub(crate) async fn set_port(&self, index: u32, isolated: bool) -> io::Result<()> {
        let port = LinkBridgePort::new(index).isolated(isolated).hairpin(true);
        let request = self.handle.link().set_port(port.build());
        request.execute().await.map_err(to_io)
    }

    /// Deletes a link; that it is gone already is no error.
    pub(crate) async fn delete_link(&self, index: u32) -> io::Result<()> {
        match self.handle.link().del(index).execute().await.map_err(to_io) {
            Err(error) if is(&error, Errno::ENODEV) => Ok(()),
            other => other,
        }
    }

    async fn add_link(&self, link: LinkMessage) -> io::Result<()> {
        self.handle.link().add(link).execute().await.map_err(to_io)
    }

    async fn change(&self, link: LinkMessage) -> io::Result<()> {
        self.handle
            .link()
            .change(link)
            .execute()
            .await
            .map_err(to_io)
    }
}

impl Link {
    pub(crate) fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }

    /// It carries a network to other hosts, and its routes and rows are those of peers.
    pub(crate) fn leads_to_peers(&self) -> bool {
        matches!(self.kind, Some(InfoKind::Vxlan | InfoKind::Tun))
    }

    fn read(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name = name,
            LinkAttribute::IfAlias(alias) => self.alias = Some(alias),
            LinkAttribute::OperState(state) => self.operating = state == State::Up,
            LinkAttribute::Mtu(mtu) => self.mtu = mtu,
            LinkAttribute::Stats64(stats) => {
                self.counters = Counters {
                    sent: stats.tx_packets,
                    received: stats.rx_packets,
                };
            }
            LinkAttribute::Address(bytes) => self.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Group(group) => self.ours = group == u32::from(OURS),
            LinkAttribute::Controller(index) => self.bridge = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    self.read_info(info);
                }
            }
            _ => {}
        }
    }

    fn read_info(&mut self, info: LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind),
            LinkInfo::Data(InfoData::Vxlan(infos)) => self.vxlan = Some(infos.into()),
            LinkInfo::Data(InfoData::Bridge(infos)) => {
                let off = InfoBridge::StpState(BridgeStpState::Disabled);
                self.stp = !infos.contains(&off);
            }
            LinkInfo::PortData(InfoPortData::BridgePort(infos)) => {
                let forwarding = InfoBridgePort::State(BridgePortState::Forwarding);
                self.forwarding = infos.contains(&forwarding);
                self.isolated = infos.contains(&InfoBridgePort::Isolated(true));
            }
            _ => {}
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            arp: !flags.contains(LinkFlags::Noarp),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        for attribute in message.attributes {
            link.read(attribute);
        }
        link
    }
}

impl From<Vec<InfoVxlan>> for VxlanSettings {
    fn from(infos: Vec<InfoVxlan>) -> Self {
        let mut settings = Self {
            vni: 0,
            local: None,
            port: 0,
            learning: false,
        };
        for info in infos {
            match info {
                InfoVxlan::Id(vni) => settings.vni = vni,
                InfoVxlan::Local(local) => settings.local = Some(local.into()),
                InfoVxlan::Local6(local) => settings.local = Some(local.into()),
                InfoVxlan::Port(port) => settings.port = port,
                InfoVxlan::Learning(learning) => settings.learning = learning,
                _ => {}
            }
        }
        settings
    }
}

fn new_vxlan(
    name: &str,
    settings: &VxlanSettings,
    mac: MacAddr,
    mtu: u16,
) -> LinkMessageBuilder<LinkVxlan> {
    let vxlan = LinkVxlan::new(name, settings.vni)
        .port(settings.port)
        .learning(settings.learning);
    let vxlan = match settings.local {
        Some(IpAddr::V4(local)) => vxlan.local(local),
        Some(IpAddr::V6(local)) => vxlan.local6(local),
        None => vxlan,
    };
    vxlan
        .address(mac.0.to_vec())
        .mtu(mtu.into())
        .arp(false)
        .up()
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
