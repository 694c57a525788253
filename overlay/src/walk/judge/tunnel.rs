//! The tunnel between hosts, and what it is carried by.

use super::{Finding, Hop, Host, Verdict, WalkRequest};
use crate::{
    Carrier, Peer, Vxlan,
    netlink::{FdbRow, Link, Neighbour, VxlanSettings},
};

/// The way to another host of the network; not by this host's route where packets get `past` it.
pub(super) fn tunnel(
    peer: &Peer,
    vxlan: &Vxlan,
    past: bool,
    request: &WalkRequest,
    host: &Host,
) -> Vec<Finding> {
    let name = &vxlan.link;
    let Some(link) = host.link(name) else {
        let detail = format_args!("there is no VXLAN device {name}").to_string();
        return vec![
            Finding::broken(Hop::Tunnel, detail, "restart nuncio daemon"),
            underlay(peer, vxlan, host),
        ];
    };
    let (around, is_around) = vxlan.link_to(peer.vtep);
    let Some(way) = host.link(around) else {
        let detail = format_args!(
            "there is no device {around}, by which it goes while VXLAN does not get through"
        )
        .to_string();
        return vec![Finding::broken(
            Hop::Tunnel,
            detail,
            "restart nuncio daemon",
        )];
    };
    if is_around {
        let (sent, received) = (way.counters.sent, way.counters.received);
        let detail =
            format_args!("{around} leads around VXLAN, by TLS; {sent} packets out, {received} in")
                .to_string();
        return vec![
            Finding::fine(Hop::Tunnel, detail),
            peer_route(peer, way, request, host),
            underlay(peer, vxlan, host),
        ];
    }
    let mut findings = vec![device(vxlan, link)];
    if !past {
        findings.push(peer_route(peer, link, request, host));
    }
    if vxlan.carrier == Carrier::Vxlan {
        findings.push(neighbour(peer, link, host));
        findings.push(fdb(peer, link, host));
    }
    findings.push(underlay(peer, vxlan, host));
    findings.extend(request.fits.map(|fits| mtu(fits, peer, link, host)));
    findings
}

/// Whether the host sends longer packets than get there.
fn mtu(fits: u16, peer: &Peer, link: &Link, host: &Host) -> Finding {
    let way = host.way.as_ref().ok().filter(|way| way.link == link.index);
    let sent = way.and_then(|way| way.mtu).unwrap_or(link.mtu);
    if sent > u32::from(fits) {
        let mend = format!(
            "ip route replace {} via {} dev {} onlink mtu {fits}",
            peer.block,
            peer.next_hop(),
            link.name
        );
        let detail =
            format_args!("packets of {sent} bytes are sent, but only {fits} get there").to_string();
        return Finding::broken(Hop::Mtu, detail, mend);
    }
    let narrow = if sent < link.mtu {
        ", as the path is narrow"
    } else {
        ""
    };
    Finding::fine(
        Hop::Mtu,
        format_args!("packets of up to {sent} bytes get there{narrow}"),
    )
}

fn device(vxlan: &Vxlan, link: &Link) -> Finding {
    let name = &vxlan.link;
    let wanted = VxlanSettings {
        vni: vxlan.vni.value(),
        local: Some(vxlan.local),
        port: vxlan.port,
        learning: false,
    };
    if vxlan.carrier == Carrier::Vxlan && link.vxlan.as_ref() != Some(&wanted) {
        let detail =
            format_args!("{name} has not the VNI, address and port it should have").to_string();
        return Finding::broken(Hop::Tunnel, detail, format!("ip link delete {name}"));
    }
    if !link.up {
        return Finding::broken(
            Hop::Tunnel,
            format_args!("{name} is down"),
            format!("ip link set {name} up"),
        );
    }
    let (sent, received) = (link.counters.sent, link.counters.received);
    Finding::fine(
        Hop::Tunnel,
        format_args!(
            "{name} is up, VNI {}; {sent} packets out, {received} in",
            wanted.vni
        ),
    )
}

fn peer_route(peer: &Peer, link: &Link, request: &WalkRequest, host: &Host) -> Finding {
    let (gateway, other) = (peer.next_hop(), request.other);
    let mend = format!(
        "ip route replace {} via {gateway} dev {} onlink",
        peer.block, link.name
    );
    match &host.way {
        Err(error) => Finding::broken(
            Hop::PeerRoute,
            format_args!("this host has no route to {other}: {error}"),
            mend,
        ),
        Ok(way) if way.link == link.index && way.gateway == Some(gateway) => Finding::fine(
            Hop::PeerRoute,
            format_args!("{} via {gateway} on {}", peer.block, link.name),
        ),
        Ok(way) => Finding::broken(
            Hop::PeerRoute,
            format_args!(
                "this host sends what is for {other} out by {}, not {}",
                host.name(way.link),
                link.name
            ),
            mend,
        ),
    }
}

fn neighbour(peer: &Peer, link: &Link, host: &Host) -> Finding {
    let gateway = peer.next_hop();
    let is = |row: &&Neighbour| row.link == link.index && row.address == gateway;
    let mend = format!(
        "ip neighbour replace {gateway} lladdr {} dev {} nud permanent",
        peer.mac, link.name
    );
    match host.neighbours.iter().find(is) {
        Some(row) if row.mac == peer.mac => {
            Finding::fine(Hop::Neighbour, format_args!("{gateway} is {}", row.mac))
        }
        Some(row) => Finding::broken(
            Hop::Neighbour,
            format_args!("{gateway} is taken to be {}, but is {}", row.mac, peer.mac),
            mend,
        ),
        None => Finding::broken(
            Hop::Neighbour,
            format_args!(
                "nothing says which MAC address {gateway} has on {}",
                link.name
            ),
            mend,
        ),
    }
}

fn fdb(peer: &Peer, link: &Link, host: &Host) -> Finding {
    let is = |row: &&FdbRow| row.link == link.index && row.mac == peer.mac;
    let (mac, vtep) = (peer.mac, peer.vtep);
    let mend = format!(
        "bridge fdb replace {mac} dev {} dst {vtep} self permanent",
        link.name
    );
    match host.fdb.iter().find(is) {
        Some(row) if row.vtep == vtep => {
            Finding::fine(Hop::Fdb, format_args!("{mac} is behind {vtep}"))
        }
        Some(row) => Finding::broken(
            Hop::Fdb,
            format_args!(
                "{mac} is taken to be behind {}, but is behind {vtep}",
                row.vtep
            ),
            mend,
        ),
        None => Finding::broken(
            Hop::Fdb,
            format_args!("nothing says behind which host {mac} is on {}", link.name),
            mend,
        ),
    }
}

fn underlay(peer: &Peer, vxlan: &Vxlan, host: &Host) -> Finding {
    let (vtep, local) = (peer.vtep, vxlan.local);
    let owner = host.addresses.iter().find(|row| row.address.ip() == local);
    let Some(owner) =
        owner.and_then(|owner| host.links.iter().find(|link| link.index == owner.link))
    else {
        let detail = format_args!("this host has lost its address {local}").to_string();
        return Finding::new(Hop::Underlay, Verdict::Broken, detail, None);
    };
    if !owner.up {
        let detail = format_args!("{}, which has {local}, is down", owner.name).to_string();
        return Finding::broken(
            Hop::Underlay,
            detail,
            format!("ip link set {} up", owner.name),
        );
    }
    match &host.underlay {
        Some(Ok(way)) => {
            let name = host.name(way.link);
            if host
                .links
                .iter()
                .any(|link| link.index == way.link && !link.operating && !link.loopback)
            {
                let detail =
                    format_args!("{name}, which leads to {vtep}, has no carrier").to_string();
                return Finding::new(Hop::Underlay, Verdict::Broken, detail, None);
            }
            Finding::fine(Hop::Underlay, format_args!("{vtep} from {local} by {name}"))
        }
        Some(Err(error)) => Finding::broken(
            Hop::Underlay,
            format_args!("this host has no route to {vtep}: {error}"),
            format!("ip route add {vtep} dev {}", owner.name),
        ),
        None => Finding::unclear(Hop::Underlay, "no host to lead to"),
    }
}
