//! What is wrong, out of what is wanted and what is there: a function without I/O.

mod tunnel;

use std::{fmt::Display, io};

use super::{
    Finding, Hop, Verdict, WalkRequest,
    look::{self, Host, Inside},
    rules::{Packet, dropped},
};
use crate::{Carrier, Protocol, ShortcutState, Standing, firewall, gateway};

pub(super) fn judge(
    request: &WalkRequest,
    inside: &io::Result<Inside>,
    host: &io::Result<Host>,
    standing: &Standing,
) -> Vec<Finding> {
    let mut findings = match inside {
        Ok(inside) => vec![
            link(request, inside),
            address(request, inside),
            route(request, inside),
        ],
        Err(error) => vec![Finding::new(
            Hop::Link,
            Verdict::Broken,
            format!("the container's network namespace cannot be entered: {error}"),
            None,
        )],
    };
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            findings.push(Finding::unclear(
                Hop::Port,
                format!("the kernel does not tell: {error}"),
            ));
            return findings;
        }
    };
    findings.push(port(request, host));
    findings.push(bridge(request, host));
    let on_bridge = request.subnet.contains(request.other) && request.peer.is_none();
    let short = shortcut(request, standing.shortcut);
    let past = short.as_ref().is_some_and(|(past, _)| *past);
    findings.extend(short.map(|(_, finding)| finding));
    if !on_bridge && !past {
        findings.push(forwarding(request, host));
    }
    let mut packets = underlay_packets(request, host);
    let seen = !on_bridge || host.bridge_filtered || !request.segment.icc;
    if seen && !past {
        packets.push(forwarded(request, host, on_bridge));
    }
    findings.push(rules(&packets, host, standing.rules));
    match (&request.peer, &request.segment.vxlan) {
        (Some(peer), Some(vxlan)) => {
            findings.extend(tunnel::tunnel(peer, vxlan, past, request, host));
        }
        _ if !on_bridge => findings.push(out(request, host)),
        _ => {}
    }
    findings
}

/// A command inside the container's namespace.
fn within(request: &WalkRequest, command: impl Display) -> String {
    format!(
        "nsenter --net={} {command}",
        request.attached.netns.display()
    )
}

fn link(request: &WalkRequest, inside: &Inside) -> Finding {
    let name = &request.attached.container_link;
    let up = || within(request, format_args!("ip link set {name} up"));
    match &inside.link {
        None => Finding::broken(
            Hop::Link,
            format_args!("the container has no link {name}"),
            "nuncio restart the container",
        ),
        Some(link) if !link.up => Finding::broken(
            Hop::Link,
            format_args!("{name} in the container is down"),
            up(),
        ),
        Some(link) => Finding::fine(Hop::Link, format_args!("{name} is up, MTU {}", link.mtu)),
    }
}

fn address(request: &WalkRequest, inside: &Inside) -> Finding {
    let (wanted, name) = (request.address, &request.attached.container_link);
    let has = inside
        .addresses
        .iter()
        .any(|row| row.address.ip() == wanted.ip());
    if has {
        Finding::fine(Hop::Address, format_args!("{wanted} on {name}"))
    } else {
        let add = format_args!("ip address add {wanted} dev {name}").to_string();
        Finding::broken(
            Hop::Address,
            format_args!("the container has lost its address {wanted}"),
            within(request, add),
        )
    }
}

fn route(request: &WalkRequest, inside: &Inside) -> Finding {
    let (attached, other) = (&request.attached, request.other);
    let gateway = gateway(request.address);
    let near = request.address.contains(other);
    let mend = if request.subnet.contains(other) {
        format!(
            "ip route replace {} via {gateway} dev {}",
            request.subnet, attached.container_link
        )
    } else {
        format!(
            "ip route replace default via {gateway} dev {}",
            attached.container_link
        )
    };
    let mend = within(request, mend);
    let link = inside.link.as_ref().map(|link| link.index);
    match &inside.way {
        Err(error) => Finding::broken(
            Hop::Route,
            format_args!("the container has no route to {other}: {error}"),
            mend,
        ),
        Ok(way) if Some(way.link) == link && (near || way.gateway == Some(gateway)) => {
            match way.gateway {
                Some(gateway) => Finding::fine(Hop::Route, format_args!("{other} via {gateway}")),
                None => Finding::fine(Hop::Route, format_args!("{other} is on the link")),
            }
        }
        // It may well be in several networks, of which another one leads there.
        Ok(way) if !request.subnet.contains(other) && Some(way.link) != link => Finding::fine(
            Hop::Route,
            format_args!("{other} goes out by another network"),
        ),
        Ok(way) => Finding::broken(
            Hop::Route,
            format_args!(
                "the container sends what is for {other} to {}, not to {gateway}",
                way.gateway
                    .map_or_else(|| "nobody in particular".to_owned(), |via| via.to_string())
            ),
            mend,
        ),
    }
}

fn port(request: &WalkRequest, host: &Host) -> Finding {
    let (name, bridge) = (&request.attached.host_link, &request.attached.bridge);
    let Some(link) = host.link(name) else {
        return Finding::broken(
            Hop::Port,
            format_args!("the host's end {name} of the container's link is gone"),
            "nuncio restart the container",
        );
    };
    let on = host
        .link(bridge)
        .is_some_and(|bridge| link.bridge == Some(bridge.index));
    if !on {
        let mend = format!("ip link set {name} master {bridge}");
        return Finding::broken(
            Hop::Port,
            format_args!("{name} is not on the bridge {bridge}"),
            mend,
        );
    }
    if !link.up {
        let mend = format!("ip link set {name} up");
        return Finding::broken(Hop::Port, format_args!("{name} is down"), mend);
    }
    let bridge_up = host.link(bridge).is_some_and(|bridge| bridge.up);
    if bridge_up && !link.forwarding {
        let mend = format!("bridge link set dev {name} state 3");
        return Finding::broken(Hop::Port, format_args!("{name} forwards no frames"), mend);
    }
    Finding::fine(Hop::Port, format_args!("{name} is up, on {bridge}"))
}

fn bridge(request: &WalkRequest, host: &Host) -> Finding {
    let name = &request.attached.bridge;
    let Some(link) = host.link(name) else {
        return Finding::broken(
            Hop::Bridge,
            format_args!("there is no bridge {name}"),
            "restart nuncio daemon",
        );
    };
    if !link.up {
        let mend = format!("ip link set {name} up");
        return Finding::broken(Hop::Bridge, format_args!("{name} is down"), mend);
    }
    let missing = request.segment.blocks.iter().find(|block| {
        block.contains(request.address.ip()) && !host.has(link.index, gateway(**block))
    });
    if let Some(block) = missing {
        let gateway = gateway(*block);
        let mend = format!("ip address add {gateway}/{} dev {name}", block.prefix());
        return Finding::broken(
            Hop::Bridge,
            format_args!("{name} has lost its address {gateway}"),
            mend,
        );
    }
    Finding::fine(Hop::Bridge, format_args!("{name} is up"))
}

fn forwarding(request: &WalkRequest, host: &Host) -> Finding {
    let setting = look::forwarding(request);
    if host.forwarding {
        Finding::fine(Hop::Forwarding, format_args!("{setting} is 1"))
    } else {
        Finding::broken(
            Hop::Forwarding,
            format_args!("{setting} is 0: the host routes nothing"),
            format!("sysctl -w {setting}=1"),
        )
    }
}

/// The shorter way, if the two ends may have it, and whether it is what their packets take.
fn shortcut(request: &WalkRequest, state: ShortcutState) -> Option<(bool, Finding)> {
    let peer = request.peer.as_ref()?;
    let link = &request.attached.host_link;
    if !firewall::shortcut::carries(&request.segment, link, peer) {
        return None;
    }
    let table = firewall::shortcut::TABLE;
    let (block, way) = (peer.block, "by bridge, rules and routes");
    match state {
        ShortcutState::Unused => None,
        ShortcutState::Stands => {
            let detail =
                format!("{link} and {block} reach each other past rules and routes ({table})");
            Some((true, Finding::fine(Hop::Shortcut, detail)))
        }
        ShortcutState::Gone => {
            let detail = format!("the nft table {table} was removed: packets go {way}");
            let mend = Some("restart nuncio daemon without --no-repair".to_owned());
            Some((
                false,
                Finding::new(Hop::Shortcut, Verdict::Fine, detail, mend),
            ))
        }
        ShortcutState::Changed => {
            let detail = format!("the nft table {table} is not as nuncio left it");
            let mend = format!("nft delete table {table}, and packets go {way}");
            Some((true, Finding::broken(Hop::Shortcut, detail, mend)))
        }
        ShortcutState::Unknown => {
            let detail = format!("whether the nft table {table} is as nuncio left it is not known");
            Some((false, Finding::unclear(Hop::Shortcut, detail)))
        }
    }
}

fn rules(packets: &[Packet], host: &Host, table_stands: Option<bool>) -> Finding {
    if table_stands == Some(false) {
        return Finding::broken(
            Hop::Rules,
            format_args!("the nft table {} is not as nuncio left it", firewall::TABLE),
            "restart nuncio daemon without --no-repair",
        );
    }
    let ruleset = match &host.rules {
        Ok(ruleset) => ruleset,
        Err(error) => return Finding::unclear(Hop::Rules, error),
    };
    let drops = packets.iter().filter_map(|packet| {
        let drop = dropped(ruleset, firewall::TABLE, packet)?;
        Some((packet, drop))
    });
    let drops: Vec<_> = drops.collect();
    let sure = drops.iter().find(|(_, drop)| drop.surely);
    let Some((packet, drop)) = sure.or(drops.first()) else {
        return Finding::fine(Hop::Rules, "no rule of nft drops it");
    };
    let what = match packet.hook {
        "input" => "VXLAN from that host",
        _ => "what is forwarded here",
    };
    let (by, mend) = match drop.handle {
        Some(handle) => (
            format!("rule {handle} of {}", drop.chain),
            format!("nft delete rule {} handle {handle}", drop.chain),
        ),
        None => (
            format!("the policy of {}", drop.chain),
            format!(
                "nft 'add rule {} iifname \"{}\" accept'",
                drop.chain, packet.from
            ),
        ),
    };
    if drop.surely {
        Finding::broken(
            Hop::Rules,
            format_args!("{by}, not nuncio's, drops {what}"),
            mend,
        )
    } else {
        Finding::unclear(
            Hop::Rules,
            format_args!("{by}, not nuncio's, may drop {what}"),
        )
    }
}

/// The connection's first packet, where the host forwards it.
fn forwarded(request: &WalkRequest, host: &Host, on_bridge: bool) -> Packet {
    let bridge = request.attached.bridge.clone();
    let beyond = match (&request.peer, &request.segment.vxlan) {
        (Some(peer), Some(vxlan)) => vxlan.link_to(peer.vtep).0.to_owned(),
        _ if on_bridge => bridge.clone(),
        _ => host
            .way
            .as_ref()
            .map_or_else(|_| String::new(), |way| host.name(way.link)),
    };
    let own = request.address.ip();
    let (from, to, source, target) = if request.outward {
        (bridge, beyond, own, request.other)
    } else {
        (beyond, bridge, request.other, own)
    };
    Packet {
        hook: "forward",
        from,
        to,
        source,
        target,
        port: request.port,
    }
}

/// What the other host sends, as it comes in.
fn underlay_packets(request: &WalkRequest, host: &Host) -> Vec<Packet> {
    let (Some(peer), Some(vxlan)) = (&request.peer, &request.segment.vxlan) else {
        return Vec::new();
    };
    let (source, target) = (peer.vtep, vxlan.local);
    let Some(Ok(way)) = &host.underlay else {
        return Vec::new();
    };
    if vxlan.carrier != Carrier::Vxlan {
        return Vec::new();
    }
    let from = host.name(way.link);
    let port = Some((Protocol::Udp, vxlan.port));
    vec![Packet {
        hook: "input",
        from,
        to: String::new(),
        source,
        target,
        port,
    }]
}

/// Where there is no other host of ours: out of the mesh.
fn out(request: &WalkRequest, host: &Host) -> Finding {
    let other = request.other;
    if request.segment.internal {
        let detail = "the network is internal: nothing leaves it".to_owned();
        return Finding::new(Hop::PeerRoute, Verdict::Broken, detail, None);
    }
    match &host.way {
        Ok(way) => Finding::fine(
            Hop::PeerRoute,
            format_args!("{other} goes out by {}", host.name(way.link)),
        ),
        Err(error) => Finding::broken(
            Hop::PeerRoute,
            format_args!("this host has no route to {other}: {error}"),
            "ip route add default via GATEWAY",
        ),
    }
}

#[cfg(test)]
mod tests;
