use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;

use super::{
    Object, ReconcileFailure,
    pass::{Pass, set_sysctl},
};
use crate::{
    Carrier, MacAddr, Segment, Vxlan,
    netlink::{Link, VxlanSettings},
    paths::CHECKSUM_LINK,
    tun,
};

/// `addr_gen_mode` of a link that makes itself no IPv6 address (`IN6_ADDR_GEN_MODE_NONE`).
const NO_ADDRESS: &str = "1";

/// Links by name.
pub(super) type Links = HashMap<String, Link>;

impl Pass<'_> {
    /// Makes bridges, VXLAN and TUN devices, removes ours that are not wanted, and returns what is there then.
    pub(super) async fn links(&mut self, segments: &[Segment]) -> Option<Links> {
        let found = self.list_links().await?;
        self.remove_unwanted(&found, segments).await;
        for segment in segments {
            if self.bad_names(segment) {
                continue;
            }
            self.bridge(segment, found.get(&segment.bridge)).await;
            if let Some(vxlan) = &segment.vxlan {
                let there = found.get(&vxlan.link);
                match vxlan.carrier {
                    Carrier::Vxlan => self.vxlan(segment, vxlan, there).await,
                    Carrier::Sealed => self.tun(segment, &vxlan.link, there).await,
                }
                if let Some(fallback) = &vxlan.fallback {
                    let link = &fallback.link;
                    self.tun(segment, link, found.get(link)).await;
                    self.either_way(vxlan);
                }
            }
        }
        let links = self.list_links().await?;
        self.ports(segments, &links).await;
        Some(links)
    }

    /// Removes the host's ends of all containers' links, and so the others.
    pub(super) async fn remove_veths(&mut self) {
        let Some(links) = self.list_links().await else {
            return;
        };
        for link in links
            .values()
            .filter(|link| link.ours && link.kind == Some(InfoKind::Veth))
        {
            let result = self.netlink.delete_link(link.index).await;
            self.removed(Object::Link(link.name.clone()), result);
        }
    }

    async fn list_links(&mut self) -> Option<Links> {
        let links = self.netlink.links().await;
        let links = self.listed("links", links)?;
        Some(
            links
                .into_iter()
                .map(|link| (link.name.clone(), link))
                .collect(),
        )
    }

    fn bad_names(&mut self, segment: &Segment) -> bool {
        let bad: Vec<_> = names(segment).filter(|name| !is_link_name(name)).collect();
        for name in &bad {
            self.fail(ReconcileFailure::LinkName((*name).to_owned()));
        }
        !bad.is_empty()
    }

    async fn remove_unwanted(&mut self, found: &Links, segments: &[Segment]) {
        let wanted: HashSet<_> = segments.iter().flat_map(names).collect();
        if let (true, Some(left)) = (segments.is_empty(), found.get(CHECKSUM_LINK)) {
            let result = self.netlink.delete_link(left.index).await;
            self.removed(Object::Link(left.name.clone()), result);
        }
        let kinds = [InfoKind::Bridge, InfoKind::Vxlan, InfoKind::Tun].map(Some);
        for link in found
            .values()
            .filter(|link| link.ours && kinds.contains(&link.kind))
        {
            if !wanted.contains(link.name.as_str()) {
                let result = self.netlink.delete_link(link.index).await;
                self.removed(Object::Link(link.name.clone()), result);
            }
        }
    }

    async fn bridge(&mut self, segment: &Segment, found: Option<&Link>) {
        let name = &segment.bridge;
        let object = Object::Link(name.clone());
        match found {
            Some(link) if !link.is_bridge() => self.fail(ReconcileFailure::Foreign(name.clone())),
            Some(_) if segment.adopted => self.stands(false, object),
            None if segment.adopted => self.fail(ReconcileFailure::NoBridge(name.clone())),
            Some(link) if !link.ours => self.fail(ReconcileFailure::Foreign(name.clone())),
            Some(link) => match self.mend_bridge(segment, link).await {
                Ok(false) => self.stands(false, object),
                mended => self.made(object, true, mended.map(drop)),
            },
            None => {
                let result = self.make_bridge(segment).await;
                self.made(object, false, result);
            }
        }
    }

    async fn make_bridge(&self, segment: &Segment) -> io::Result<()> {
        let name = &segment.bridge;
        self.netlink.add_bridge(name, bridge_mac(segment)).await?;
        // Only an MTU that is set after the bridge is made stays; else the ports decide.
        let link = self.netlink.link(name).await?.ok_or(Errno::ENODEV)?;
        self.netlink.set_mtu(link.index, segment.mtu).await?;
        answer_arp(segment)?;
        set_ipv6(segment, name).map(drop)
    }

    async fn mend_bridge(&self, segment: &Segment, link: &Link) -> io::Result<bool> {
        let mut mended = answer_arp(segment)?;
        let mac = bridge_mac(segment);
        if link.mac != Some(mac) {
            self.netlink.set_mac(link.index, mac).await?;
            mended = true;
        }
        if link.mtu != u32::from(segment.mtu) {
            self.netlink.set_mtu(link.index, segment.mtu).await?;
            mended = true;
        }
        mended |= set_ipv6(segment, &segment.bridge)?;
        if link.stp {
            self.netlink.set_no_stp(link.index).await?;
            mended = true;
        }
        if !link.up {
            self.netlink.set_up(link.index).await?;
            mended = true;
        }
        Ok(mended)
    }

    async fn vxlan(&mut self, segment: &Segment, vxlan: &Vxlan, found: Option<&Link>) {
        let object = Object::Link(vxlan.link.clone());
        let settings = VxlanSettings {
            vni: vxlan.vni.value(),
            local: Some(vxlan.local),
            port: vxlan.port,
            learning: false,
        };
        match found {
            Some(link) if !link.ours => self.fail(ReconcileFailure::Foreign(vxlan.link.clone())),
            Some(link) if link.vxlan.as_ref() == Some(&settings) => {
                match self.mend_vxlan(segment, vxlan, link).await {
                    Ok(false) => self.stands(false, object),
                    mended => self.made(object, true, mended.map(drop)),
                }
            }
            Some(link) => {
                // VNI, port and local address are fixed for life.
                let result = match self.netlink.delete_link(link.index).await {
                    Ok(()) => self.make_vxlan(segment, vxlan, &settings).await,
                    Err(error) => Err(error),
                };
                self.made(object, true, result);
            }
            None => {
                let result = self.make_vxlan(segment, vxlan, &settings).await;
                self.made(object, false, result);
            }
        }
    }

    async fn make_vxlan(
        &self,
        segment: &Segment,
        vxlan: &Vxlan,
        settings: &VxlanSettings,
    ) -> io::Result<()> {
        self.netlink
            .add_vxlan(&vxlan.link, settings, vxlan.mac, segment.mtu)
            .await?;
        set_ipv6(segment, &vxlan.link).map(drop)
    }

    async fn mend_vxlan(&self, segment: &Segment, vxlan: &Vxlan, link: &Link) -> io::Result<bool> {
        let mut mended = false;
        if link.mac != Some(vxlan.mac) {
            self.netlink.set_mac(link.index, vxlan.mac).await?;
            mended = true;
        }
        if link.mtu != u32::from(segment.mtu) {
            self.netlink.set_mtu(link.index, segment.mtu).await?;
            mended = true;
        }
        mended |= set_ipv6(segment, &vxlan.link)?;
        if link.arp {
            self.netlink.set_no_arp(link.index).await?;
            mended = true;
        }
        if !link.up {
            self.netlink.set_up(link.index).await?;
            mended = true;
        }
        Ok(mended)
    }

    /// A device of that name without our mark was made by a call that was killed before it could be marked.
    async fn tun(&mut self, segment: &Segment, name: &str, found: Option<&Link>) {
        let object = Object::Link(name.to_owned());
        let result = match found {
            Some(link) if link.kind != Some(InfoKind::Tun) => {
                return self.fail(ReconcileFailure::Foreign(name.to_owned()));
            }
            Some(link) => match self.mend_tun(segment, link).await {
                Ok(false) => return self.stands(false, object),
                mended => mended.map(drop),
            },
            None => self.make_tun(segment, name).await,
        };
        self.made(object, found.is_some_and(|link| link.ours), result);
    }

    async fn make_tun(&self, segment: &Segment, name: &str) -> io::Result<()> {
        tun::make(name).map_err(io::Error::other)?;
        let link = self.netlink.link(name).await?.ok_or(Errno::ENODEV)?;
        self.mend_tun(segment, &link).await.map(drop)
    }

    async fn mend_tun(&self, segment: &Segment, link: &Link) -> io::Result<bool> {
        let mut mended = false;
        if !link.ours {
            self.netlink.set_ours(link.index).await?;
            mended = true;
        }
        if link.mtu != u32::from(segment.mtu) {
            self.netlink.set_mtu(link.index, segment.mtu).await?;
            mended = true;
        }
        mended |= set_ipv6(segment, &link.name)?;
        if !link.up {
            self.netlink.set_up(link.index).await?;
            mended = true;
        }
        Ok(mended)
    }

    /// Has packets taken from a peer by either device, whichever leads back to it (rp_filter's loose mode).
    fn either_way(&mut self, vxlan: &Vxlan) {
        for link in vxlan.links() {
            let setting = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
            match set_sysctl(Path::new(&setting), "2") {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it could not be made, which is told
                Err(error) => self.made(Object::Link(link.to_owned()), true, Err(error)),
            }
        }
    }

    /// Puts containers' links back on their bridge, as after the bridge was deleted by hand.
    async fn ports(&mut self, segments: &[Segment], links: &Links) {
        for link in links
            .values()
            .filter(|link| link.ours && link.kind == Some(InfoKind::Veth))
        {
            let segment = segments
                .iter()
                .find(|segment| link.alias.as_ref() == Some(&segment.bridge));
            let Some(segment) = segment else { continue };
            let Some(bridge) = links.get(&segment.bridge) else {
                continue;
            };
            let isolated = segment.isolates_ports();
            if link.bridge == Some(bridge.index) && link.up && link.isolated == isolated {
                continue;
            }
            let result = self.plug(link, bridge, isolated).await;
            self.made(Object::Link(link.name.clone()), true, result);
        }
    }

    async fn plug(&self, link: &Link, bridge: &Link, isolated: bool) -> io::Result<()> {
        self.netlink.set_bridge(link.index, bridge.index).await?;
        self.netlink.set_port(link.index, isolated).await?;
        self.netlink.set_up(link.index).await
    }
}

/// Of all links that a network needs on this host.
fn names(segment: &Segment) -> impl Iterator<Item = &str> {
    let tunnels = segment.vxlan.iter().flat_map(Vxlan::links);
    std::iter::once(segment.bridge.as_str()).chain(tunnels)
}

/// Left to itself the bridge takes a port's MAC, and containers would lose their gateway with that port.
fn bridge_mac(segment: &Segment) -> MacAddr {
    MacAddr::of_node(&segment.bridge)
}

/// Has the bridge answer for containers whose ports exchange no frames, at once, so that what may pass between them
/// comes by way of the host; tells whether that was to be changed.
fn answer_arp(segment: &Segment) -> io::Result<bool> {
    let net = Path::new("/proc/sys/net/ipv4");
    let bridge = &segment.bridge;
    let answer = net.join(format!("conf/{bridge}/proxy_arp_pvlan"));
    let delay = net.join(format!("neigh/{bridge}/proxy_delay"));
    if segment.icc {
        return set_sysctl(&answer, "0");
    }
    // A redirect would tell the containers to do without the host.
    let redirects = net.join(format!("conf/{bridge}/send_redirects"));
    let changed = [(&answer, "1"), (&delay, "0"), (&redirects, "0")]
        .map(|(path, value)| set_sysctl(path, value));
    changed
        .into_iter()
        .try_fold(false, |any, changed| Ok(any | changed?))
}

/// Has a link of ours carry IPv6 if its network does, and nothing of it else; tells whether that was to be changed.
///
/// It gets no address of its own making, which would be a way around the rules, and believes no router. The MTU comes
/// first: with one below 1280 all these settings go, and are not what they were when they come back.
fn set_ipv6(segment: &Segment, link: &str) -> io::Result<bool> {
    let settings = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{link}"));
    let disable = settings.join("disable_ipv6");
    if !segment.has_v6() {
        return match set_sysctl(&disable, "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false), // a kernel without IPv6
            other => other,
        };
    }
    let own = settings.join("addr_gen_mode");
    if fs::read_to_string(&own)?.trim() != NO_ADDRESS {
        set_sysctl(&disable, "1")?; // so that the one it has made goes
    }
    let changed = [
        (&own, NO_ADDRESS),
        (&settings.join("accept_ra"), "0"),
        (&disable, "0"),
    ]
    .map(|(path, value)| set_sysctl(path, value));
    changed
        .into_iter()
        .try_fold(false, |any, changed| Ok(any | changed?))
}

/// Whether the kernel takes it as a link's name, and nft within quotes.
#[must_use]
pub fn is_link_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_what_the_kernel_takes() {
        for good in ["nuncio0", "nb-01234567", "br.1"] {
            assert!(is_link_name(good), "{good}");
        }
        for bad in ["", "sixteen-letters-", "a b", "a/b", "a\"b", "..", "a*"] {
            assert!(!is_link_name(bad), "{bad}");
        }
    }
}
