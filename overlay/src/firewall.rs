//! The nft tables as text: a function of the state, without I/O.

mod adopted;
mod ports;
pub(crate) mod shortcut;

mod sets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnetwork::IpNetwork;

use self::sets::{by_family, family, named, of_v4, only_from, quoted, set};
use crate::segment::BRIDGE_LINK_LOCAL;
use crate::{
    Carrier, Gate, HostAccess, HostState, Linked, Protocol, Published, Reach, Segment, Vxlan,
    gateway,
};

/// The table of packets; its family and name, as nft's commands take them.
pub(crate) const TABLE: &str = "inet nuncio";

/// All that is ours.
pub(crate) const TABLES: [&str; 2] = [TABLE, ports::TABLE];

/// A batch for `nft -f` that removes tables, whichever of them are there.
pub(crate) fn removal(tables: &[&str]) -> String {
    let removal = |table| format!("table {table}\ndelete table {table}\n");
    tables.iter().map(removal).collect()
}

/// A batch for `nft -f` that replaces the tables in one transaction; empty if there is nothing to rule.
pub(crate) fn render(state: &HostState) -> String {
    if state.segments.is_empty() && state.published.is_empty() {
        return String::new();
    }
    let segments = &state.segments;
    let mut out = Batch::default();
    out.table(TABLE, |out| packets(out, state));
    ports::render(&mut out, segments);
    out.0
}

fn packets(out: &mut Batch, state: &HostState) {
    let segments = &state.segments;
    out.chain(
        "spoofed",
        "filter hook prerouting priority -300",
        spoofed(segments),
    );
    let untracked = tunnelled(segments, "daddr").map(|sent| format!("{sent} notrack"));
    out.chain(
        "tunnelled",
        "filter hook output priority -300",
        untracked.collect(),
    );
    out.chain("input", "filter hook input priority 0", input(state));
    let leaking = leaking(segments);
    if !leaking.is_empty() {
        out.chain("leaking", "filter hook postrouting priority -300", leaking);
    }
    for segment in segments {
        out.subchain(
            &format!("from-{}", segment.bridge),
            from_bridge(segment, segments),
        );
        if let Some(vxlan) = &segment.vxlan {
            out.subchain(&format!("from-{}", vxlan.link), from_vxlan(segment, vxlan));
        }
    }
    out.chain("fit", "filter hook forward priority -150", fit(segments));
    out.chain(
        "forward",
        "filter hook forward priority 0",
        forward(segments),
    );
    out.subchain("published", published(&state.published));
    out.chain(
        "prerouting",
        "nat hook prerouting priority -100",
        to_published(segments, &[]),
    );
    let loopback = ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return"];
    out.chain(
        "output",
        "nat hook output priority -100",
        to_published(segments, &loopback),
    );
    out.chain(
        "postrouting",
        "nat hook postrouting priority 100",
        postrouting(segments),
    );
}

/// Packets whose source cannot be where they come from, seen before connection tracking.
fn spoofed(segments: &[Segment]) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in segments.iter().filter_map(sealed) {
        let own = quoted(links(segment).chain(["lo"]));
        rules.extend(segment.subnets.iter().map(|subnet| {
            let family = family(subnet.ip());
            format!("iifname != {own} {family} saddr {subnet} drop")
        }));
    }
    for segment in own(segments) {
        rules.extend(answers(segment).map(|answers| format!("{answers} notrack")));
        let from = format!("iifname \"{}\"", segment.bridge);
        if segment.has_v6() {
            // Whoever has an address looks for others from his link-local one, or from none.
            rules.push(format!(
                "{from} ip6 saddr {{ ::, fe80::/10 }} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept"
            ));
            // Where the kernel has br_netfilter it shows what containers send each other, too.
            let own = BRIDGE_LINK_LOCAL;
            rules.push(format!(
                "{from} ip6 saddr fe80::/10 ip6 daddr fe80::/10 ip6 daddr != {own} accept"
            ));
        }
        rules.extend(only_from(&from, segment.blocks.iter().copied()));
        if let Some(vxlan) = &segment.vxlan {
            let from = format!("iifname {}", named(vxlan.links()));
            let theirs = segment.peers.iter().map(|peer| peer.block);
            rules.extend(only_from(&from, theirs));
        }
    }
    // Masqueraded as this host, a container's own VXLAN packet would pass for this host's at a peer.
    let bridges = quoted(own(segments).map(|segment| segment.bridge.as_str()));
    for sent in tunnelled(segments, "daddr") {
        rules.push(format!("iifname {bridges} {sent} drop"));
        let adopted = segments.iter().filter_map(adopted::from_members);
        rules.extend(adopted.map(|from| format!("{from} {sent} drop")));
    }
    // Whom a peer's packet carries is tracked, not that it is carried.
    let theirs = tunnelled(segments, "saddr");
    rules.extend(theirs.map(|theirs| format!("{theirs} notrack")));
    rules
}

/// What would leave an encrypted network's own links, such as by a default route while the device is gone.
fn leaking(segments: &[Segment]) -> Vec<String> {
    let sealed = segments.iter().filter_map(sealed);
    let rules = sealed.flat_map(|segment| {
        let own = quoted(links(segment).chain(["lo"]));
        segment.subnets.iter().map(move |subnet| {
            let family = family(subnet.ip());
            format!("oifname != {own} {family} daddr {subnet} drop")
        })
    });
    rules.collect()
}

/// What hosts answer to each other's probes (see `paths`). These are asked by a process and not by this kernel, to which the
/// answers were invalid, and many a firewall drops that.
fn answers(segment: &Segment) -> Option<String> {
    let vxlan = segment.vxlan.as_ref()?;
    if vxlan.carrier == Carrier::Sealed {
        return None;
    }
    let links = named(vxlan.links());
    let own = gateways(segment.blocks.iter().copied());
    let (theirs, own) = (hosts_v4(segment)?, of_v4(&own)?);
    Some(format!(
        "iifname {links} ip saddr {theirs} ip daddr {own} icmp type echo-reply"
    ))
}

/// The other hosts of a network, by their gateway addresses of IPv4, at which they probe each other.
fn hosts_v4(segment: &Segment) -> Option<String> {
    let hosts = gateways(segment.peers.iter().map(|peer| peer.block));
    of_v4(&hosts).cloned()
}

/// The hosts of those blocks, by their gateway addresses.
fn gateways(blocks: impl Iterator<Item = IpNetwork>) -> Vec<(&'static str, String)> {
    by_family(blocks.map(gateway).map(IpNetwork::from))
}

/// VXLAN packets from peers, by `saddr`, or to them, by `daddr`.
fn tunnelled(segments: &[Segment], end: &str) -> impl Iterator<Item = String> {
    vteps(segments).into_iter().flat_map(move |(port, vteps)| {
        let of =
            |family, set: Option<String>| Some(format!("udp dport {port} {family} {end} {}", set?));
        [of("ip", set(&vteps.v4)), of("ip6", set(&vteps.v6))]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    })
}

/// What this host itself takes: VXLAN, and what comes in its place, from peers only, and gateway addresses from their own
/// network only.
fn input(state: &HostState) -> Vec<String> {
    let segments = &state.segments;
    let mut rules = Vec::new();
    for vxlan in segments
        .iter()
        .filter_map(sealed)
        .filter_map(|segment| segment.vxlan.as_ref())
    {
        // Eight bytes of UDP, then four of flags, then the VNI.
        let Vxlan { port, vni, .. } = vxlan;
        rules.push(format!("udp dport {port} @th,96,24 {vni} drop"));
    }
    let peers = tunnelled(segments, "saddr");
    rules.extend(peers.map(|theirs| format!("{theirs} accept")));
    let ports = vteps(segments).into_keys();
    rules.extend(ports.map(|port| format!("udp dport {port} drop")));
    rules.push("ct state established,related accept".to_owned());
    rules.extend(state.fallback.iter().flat_map(gate));
    let blocks = own(segments).flat_map(|segment| &segment.blocks);
    for (family, gateways) in gateways(blocks.copied()) {
        // Who may reach this host finds it at any of them.
        let allowed = own(segments).flat_map(|segment| allowed(segment, family));
        rules.extend(allowed.map(|from| format!("{from} {family} daddr {gateways} accept")));
    }
    for segment in segments {
        // Listeners within a block are in its interval already, and nft refuses overlaps.
        let blocks: &[_] = if segment.adopted {
            &[]
        } else {
            &segment.blocks
        };
        let within = |address: IpAddr| blocks.iter().any(|block| block.contains(address));
        let listeners = segment.local_addresses.iter().copied().map(IpAddr::from);
        let outside = listeners.filter(|address| !within(*address));
        let own = blocks.iter().copied();
        for (family, own) in by_family(own.chain(outside.map(IpNetwork::from))) {
            let links = quoted(links(segment).chain(["lo"]));
            rules.push(format!("iifname != {links} {family} daddr {own} drop"));
        }
        if let Some(vxlan) = &segment.vxlan {
            let tunnels = named(vxlan.links());
            let ping = match segment.reach {
                Reach::Routed | Reach::Linked { .. } if segment.has_v6() => {
                    "meta l4proto != { icmp, ipv6-icmp } "
                }
                Reach::Routed | Reach::Linked { .. } => "meta l4proto != icmp ",
                Reach::LinksOnly { .. } => {
                    rules.extend(hosts_v4(segment).map(|hosts| {
                        format!("iifname {tunnels} ip saddr {hosts} icmp type {{ echo-request, echo-reply }} accept")
                    }));
                    rules.extend(into_door(segment, &tunnels));
                    ""
                }
            };
            rules.push(format!("iifname {tunnels} {ping}drop"));
        }
        rules.extend(to_host(segment));
    }
    rules
}

/// Lets peers connect to where they reach by TLS what this host exposes.
fn into_door(segment: &Segment, tunnels: &str) -> Option<String> {
    let Reach::LinksOnly {
        door: Some(door), ..
    } = &segment.reach
    else {
        return None;
    };
    let (hosts, port) = (hosts_v4(segment)?, door.port);
    let own = gateways(segment.blocks.iter().copied());
    let own = of_v4(&own)?;
    Some(format!(
        "iifname {tunnels} ip saddr {hosts} ip daddr {own} tcp dport {port} accept"
    ))
}

/// Lets peers alone connect to a port of theirs. Answers to what this host began from there are through by now.
fn gate(gate: &Gate) -> Vec<String> {
    let Gate { port, peers } = gate;
    let mut rules = Vec::new();
    for (family, v4) in [("ip", true), ("ip6", false)] {
        let peers = set(peers.iter().filter(|peer| peer.is_ipv4() == v4));
        let rule = |peers| format!("tcp dport {port} {family} saddr {peers} accept");
        rules.extend(peers.map(rule));
    }
    rules.push(format!("tcp dport {port} drop"));
    rules
}

/// Has both sides of a connection send no longer segments than get through to the peer, as its route says. They would learn
/// it from ICMP too, but not those who drop that, nor before a packet was lost.
fn fit(segments: &[Segment]) -> Vec<String> {
    let tunnels = segments.iter().filter_map(|segment| segment.vxlan.as_ref());
    let mut tunnels = tunnels.flat_map(Vxlan::links).peekable();
    if tunnels.peek().is_none() {
        return Vec::new();
    }
    let tunnels = quoted(tunnels);
    vec![format!(
        "oifname {tunnels} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    )]
}

/// Those of a network's containers that may connect to this host itself, by their addresses of a family.
fn allowed(segment: &Segment, family: &str) -> Option<String> {
    let from = format!("iifname \"{}\"", segment.bridge);
    let HostAccess::Only(allowed) = &segment.host_access else {
        return Some(from);
    };
    let allowed = by_family(allowed.iter().copied().map(IpNetwork::from));
    let (_, allowed) = allowed.iter().find(|(of, _)| *of == family)?;
    Some(format!("{from} {family} saddr {allowed}"))
}

/// What containers may send to this host itself: to those who listen for them, pings, and what is allowed.
fn to_host(segment: &Segment) -> Vec<String> {
    if segment.host_access == HostAccess::All {
        return Vec::new();
    }
    let from = format!("iifname \"{}\"", segment.bridge);
    let mut rules = vec![format!("{from} meta l4proto {{ icmp, ipv6-icmp }} accept")];
    let listeners = set(&segment.local_addresses);
    rules.extend(listeners.map(|listeners| format!("{from} ip daddr {listeners} accept")));
    let allowed = ["ip", "ip6"].map(|family| allowed(segment, family));
    rules.extend(
        allowed
            .iter()
            .flatten()
            .map(|from| format!("{from} accept")),
    );
    rules.push(format!("{from} drop"));
    rules
}

/// New connections through this host; those of other links that do not touch ours are not ours to judge.
fn forward(segments: &[Segment]) -> Vec<String> {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    for segment in own(segments).filter(|segment| segment.internal) {
        let (bridge, own) = (&segment.bridge, quoted(links(segment)));
        rules.push(format!("iifname \"{bridge}\" oifname != {own} drop"));
        rules.push(format!("oifname \"{bridge}\" iifname != {own} drop"));
    }
    if segments.is_empty() {
        return rules;
    }
    let jumps = segments.iter().flat_map(|segment| {
        let bridge = (segment.bridge.as_str(), &segment.bridge);
        let tunnels = segment.vxlan.iter();
        let tunnels = tunnels.flat_map(|vxlan| vxlan.links().map(|link| (link, &vxlan.link)));
        std::iter::once(bridge).chain(tunnels)
    });
    let jumps: Vec<_> = jumps
        .map(|(link, chain)| format!("\"{link}\" : jump from-{chain}"))
        .collect();
    rules.push(format!("iifname vmap {{ {} }}", jumps.join(", ")));
    rules.extend(into_ours(segments));
    rules
}

/// What else is addressed to our links: published ports are let in.
fn into_ours(segments: &[Segment]) -> Vec<String> {
    let mut ours = own(segments).flat_map(links).peekable();
    if ours.peek().is_none() {
        return Vec::new();
    }
    let ours = quoted(ours);
    vec![
        format!("oifname {ours} ct status dnat accept"),
        format!("oifname {ours} drop"),
    ]
}

/// New connections of a network's local containers.
fn from_bridge(segment: &Segment, segments: &[Segment]) -> Vec<String> {
    let bridge = &segment.bridge;
    let mut rules = if segment.icc || segment.adopted {
        vec![format!("oifname \"{bridge}\" accept")]
    } else {
        let linked = segment.linked.iter().map(|linked| {
            let Linked {
                client,
                server,
                protocol,
                port,
            } = linked;
            format!("{client} . {server} . {protocol} . {port}")
        });
        let out = match segment.reach {
            Reach::Linked { .. } => quoted(links(segment)),
            Reach::Routed | Reach::LinksOnly { .. } => format!("\"{bridge}\""),
        };
        let rule = |ports| {
            format!("oifname {out} ip saddr . ip daddr . meta l4proto . th dport {ports} accept")
        };
        set(linked).map(rule).into_iter().collect()
    };
    if let Some(vxlan) = &segment.vxlan {
        let verdict = match segment.reach {
            Reach::Routed if segment.icc => "accept",
            _ => "drop",
        };
        rules.push(format!("oifname {} {verdict}", named(vxlan.links())));
    }
    rules.extend(into_ours(segments));
    rules.extend(adopted::apart(segment, segments));
    rules.push("accept".to_owned());
    rules
}

/// New connections from a network's other hosts.
fn from_vxlan(segment: &Segment, vxlan: &Vxlan) -> Vec<String> {
    let hosts = gateways(segment.peers.iter().map(|peer| peer.block));
    let inward = format!("oifname \"{}\"", segment.bridge);
    let mut rules = Vec::new();
    match &segment.reach {
        Reach::Routed if segment.icc => rules.push(format!("{inward} accept")),
        Reach::Routed => {
            let rule = |(family, hosts)| format!("{inward} {family} saddr {hosts} accept");
            rules.extend(hosts.into_iter().map(rule));
        }
        Reach::Linked { exposed } => {
            // From within the blocks of peers: what comes from elsewhere has been dropped.
            let rule =
                |ports| format!("{inward} ip daddr . meta l4proto . th dport {ports} accept");
            rules.extend(ports(exposed).map(rule));
        }
        Reach::LinksOnly { exposed, door } => {
            let rule = |hosts, exposed: &[_]| {
                let ports = ports(exposed)?;
                Some(format!(
                    "{inward} ip saddr {hosts} ip daddr . meta l4proto . th dport {ports} accept"
                ))
            };
            let (by_door, all): (Vec<_>, Vec<_>) = exposed
                .iter()
                .copied()
                .partition(|(_, protocol, _)| door.is_some() && *protocol == Protocol::Tcp);
            rules.extend(of_v4(&hosts).and_then(|hosts| rule(hosts.to_string(), &all)));
            let plain = door.iter().flat_map(|door| &door.plain);
            rules.extend(set(plain).and_then(|hosts| rule(hosts, &by_door)));
        }
    }
    rules.push(format!("iifname {} drop", named(vxlan.links())));
    rules
}

fn ports(exposed: &[(Ipv4Addr, Protocol, u16)]) -> Option<String> {
    let exposed = exposed.iter();
    set(exposed.map(|(ip, protocol, port)| format!("{ip} . {protocol} . {port}")))
}

/// Leads to the rules of published ports what is addressed to this host, but not to a link's listener,
/// which may well have the number of a published port.
fn to_published(segments: &[Segment], first: &[&str]) -> Vec<String> {
    let listeners = set(segments.iter().flat_map(|segment| &segment.local_addresses));
    let mut rules: Vec<_> = first.iter().map(|rule| (*rule).to_owned()).collect();
    rules.extend(listeners.map(|listeners| format!("ip daddr {listeners} return")));
    rules.push("fib daddr type local jump published".to_owned());
    rules
}

/// One rule per published port, those of a single address first. Loopback is not for nft to serve:
/// a packet from 127.0.0.1 or ::1 is refused once it has left the host.
fn published(ports: &[Published]) -> Vec<String> {
    let mut ports: Vec<_> = ports
        .iter()
        .filter(|port| {
            !port
                .host_address
                .is_some_and(|address| address.is_loopback())
        })
        .collect();
    ports.sort_by_key(|port| {
        let address = port.only_at();
        (
            address.is_none(),
            address,
            port.host_port,
            port.protocol,
            port.target,
        )
    });
    let rule = |port: &&Published| {
        let Published {
            protocol,
            host_port,
            target,
            ..
        } = port;
        let family = family(target.ip());
        let address = match port.only_at() {
            Some(address) => format!("{family} daddr {address} "),
            None => String::new(),
        };
        format!("{address}{protocol} dport {host_port} dnat {family} to {target}")
    };
    ports.iter().map(rule).collect()
}

/// A container that reaches a neighbour, or itself, through the host must see the host answer;
/// and outside the mesh nobody knows the addresses inside.
fn postrouting(segments: &[Segment]) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in segments {
        let ours = quoted(own(segments).flat_map(links).chain(adopted::link(segment)));
        if segment.adopted {
            rules.extend(adopted::postrouting(segment, &ours));
            continue;
        }
        let bridge = &segment.bridge;
        for (family, own) in by_family(segment.blocks.iter().copied()) {
            rules.push(format!(
                "oifname \"{bridge}\" {family} saddr {own} ct status dnat masquerade"
            ));
            if segment.masquerade && !segment.internal {
                rules.push(format!("oifname != {ours} {family} saddr {own} masquerade"));
            }
        }
    }
    rules
}

#[derive(Default)]
struct Vteps {
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
}

/// The peers of all segments, by UDP port.
fn vteps(segments: &[Segment]) -> BTreeMap<u16, Vteps> {
    let mut ports = BTreeMap::<u16, Vteps>::new();
    for segment in segments {
        let Some(vxlan) = &segment.vxlan else {
            continue;
        };
        if vxlan.carrier == Carrier::Sealed {
            continue; // its peers send no VXLAN
        }
        let vteps = ports.entry(vxlan.port).or_default();
        for peer in &segment.peers {
            match peer.vtep {
                IpAddr::V4(_) => vteps.v4.insert(peer.vtep),
                IpAddr::V6(_) => vteps.v6.insert(peer.vtep),
            };
        }
    }
    ports
}

/// The segment, if no packet of it may be seen on the way.
fn sealed(segment: &Segment) -> Option<&Segment> {
    let vxlan = segment.vxlan.as_ref();
    vxlan
        .is_some_and(|vxlan| vxlan.carrier == Carrier::Sealed)
        .then_some(segment)
}

/// Networks whose bridges are ours.
fn own(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| !segment.adopted)
}

fn links(segment: &Segment) -> impl Iterator<Item = &str> {
    let vxlan = segment.vxlan.iter().flat_map(Vxlan::links);
    std::iter::once(segment.bridge.as_str()).chain(vxlan)
}

#[derive(Default)]
struct Batch(String);

impl Batch {
    fn line(&mut self, depth: usize, text: impl AsRef<str>) {
        self.0.extend(std::iter::repeat_n('\t', depth));
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// Replaces a table by one that is filled by `fill`.
    fn table(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.line(0, format!("table {name}"));
        self.line(0, format!("delete table {name}"));
        self.line(0, format!("table {name} {{"));
        fill(self);
        self.line(0, "}");
    }

    /// A chain that the kernel calls; what no rule decides passes.
    fn chain(&mut self, name: &str, hook: &str, rules: Vec<String>) {
        let mut all = vec![format!("type {hook}; policy accept;")];
        all.extend(rules);
        self.subchain(name, all);
    }

    /// A chain that rules jump to. What is dropped is counted.
    fn subchain(&mut self, name: &str, rules: Vec<String>) {
        self.line(1, format!("chain {name} {{"));
        for rule in rules {
            match rule.strip_suffix(" drop") {
                Some(rule) => self.line(2, format!("{rule} counter drop")),
                None => self.line(2, rule),
            }
        }
        self.line(1, "}");
    }
}

#[cfg(test)]
mod tests;
