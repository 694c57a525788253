#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;
use serde_json::json;

use super::*;
use crate::{
    AttachRequest, Carrier, HostAccess, MacAddr, Member, Peer, Place, Reach, Segment, Vni, Vxlan,
    netlink::{Address, FdbRow, Link, Neighbour, VxlanSettings, Way},
};

const VETH: u32 = 4;
const BRIDGE: u32 = 3;
const TUNNEL: u32 = 5;
const UNDERLAY: u32 = 2;

fn request() -> WalkRequest {
    let peer = Peer {
        block: "10.1.2.0/24".parse().unwrap(),
        vtep: "192.0.2.2".parse().unwrap(),
        mac: MacAddr::of_node("b"),
        mtu: None,
    };
    let segment = Segment {
        id: "mesh".to_owned(),
        bridge: "nb-1".to_owned(),
        adopted: false,
        subnets: vec!["10.1.0.0/16".parse().unwrap()],
        blocks: vec!["10.1.1.0/24".parse().unwrap()],
        vxlan: Some(Vxlan {
            carrier: Carrier::Vxlan,
            link: "nx-1".to_owned(),
            vni: Vni::try_from(5).unwrap(),
            local: "192.0.2.1".parse().unwrap(),
            port: 4789,
            mac: MacAddr::of_node("a"),
            fallback: None,
            offload: None,
        }),
        peers: vec![peer.clone()],
        mtu: 1450,
        internal: false,
        icc: true,
        masquerade: true,
        linked: Vec::new(),
        reach: Reach::Routed,
        local_addresses: Vec::new(),
        members: Vec::new(),
        host_access: HostAccess::All,
    };
    WalkRequest {
        attached: AttachRequest {
            netns: "/run/netns/web".into(),
            container_link: "eth0".to_owned(),
            host_link: "nv-1".to_owned(),
            bridge: "nb-1".to_owned(),
            places: vec![Place {
                address: "10.1.1.2/24".parse().unwrap(),
                gateway: Some("10.1.1.1".parse().unwrap()),
                subnet: segment.subnets[0],
            }],
            mac: MacAddr::of_node("web"),
            mtu: 1450,
            isolated: false,
        },
        address: "10.1.1.2/24".parse().unwrap(),
        subnet: "10.1.0.0/16".parse().unwrap(),
        segment,
        other: "10.1.2.2".parse().unwrap(),
        peer: Some(peer),
        outward: true,
        fits: Some(1450),
        port: Some((Protocol::Tcp, 6379)),
    }
}

fn a_link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu,
        up: true,
        operating: true,
        forwarding: true,
        ..Link::default()
    }
}

fn an_address(link: u32, address: &str) -> Address {
    Address {
        link,
        address: address.parse().unwrap(),
        global: true,
        ours: true,
    }
}

fn a_way(link: u32, gateway: Option<&str>) -> io::Result<Way> {
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    Ok(Way {
        link,
        gateway,
        mtu: None,
    })
}

fn inside() -> Inside {
    Inside {
        link: Some(a_link(9, "eth0", 1450)),
        addresses: vec![an_address(9, "10.1.1.2/24")],
        way: a_way(9, Some("10.1.1.1")),
    }
}

fn host() -> Host {
    let request = request();
    let (peer, vxlan) = (request.peer.unwrap(), request.segment.vxlan.unwrap());
    let port = Link {
        bridge: Some(BRIDGE),
        ..a_link(VETH, "nv-1", 1450)
    };
    let bridge = Link {
        kind: Some(InfoKind::Bridge),
        ..a_link(BRIDGE, "nb-1", 1450)
    };
    let settings = VxlanSettings {
        vni: 5,
        local: Some(vxlan.local),
        port: 4789,
        learning: false,
    };
    let tunnel = Link {
        vxlan: Some(settings),
        ..a_link(TUNNEL, "nx-1", 1450)
    };
    Host {
        links: vec![port, bridge, tunnel, a_link(UNDERLAY, "eth0", 1500)],
        addresses: vec![
            an_address(BRIDGE, "10.1.1.1/24"),
            an_address(UNDERLAY, "192.0.2.1/24"),
        ],
        neighbours: vec![Neighbour {
            link: TUNNEL,
            address: "10.1.2.1".parse().unwrap(),
            mac: peer.mac,
        }],
        fdb: vec![FdbRow {
            link: TUNNEL,
            mac: peer.mac,
            vtep: peer.vtep,
        }],
        way: a_way(TUNNEL, Some("10.1.2.1")),
        underlay: Some(a_way(UNDERLAY, None)),
        forwarding: true,
        bridge_filtered: false,
        rules: Ok(json!({ "nftables": [] })),
    }
}

/// The tables of rules, where there is no shorter way.
fn standing(rules: Option<bool>) -> Standing {
    Standing {
        rules,
        shortcut: ShortcutState::Unused,
    }
}

fn broken(inside: Inside, host: Host, stands: Option<bool>) -> Vec<Hop> {
    let findings = judge(&request(), &Ok(inside), &Ok(host), &standing(stands));
    let broken = findings
        .into_iter()
        .filter(|finding| finding.verdict == Verdict::Broken);
    broken.map(|finding| finding.hop).collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let findings = judge(
        &request(),
        &Ok(inside()),
        &Ok(host()),
        &standing(Some(true)),
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding.verdict == Verdict::Fine),
        "{findings:#?}"
    );
    assert_eq!(findings.len(), 13);
}

#[test]
fn an_encrypted_network_has_a_device_without_neighbours_and_rows() {
    let mut request = request();
    request.segment.vxlan.as_mut().unwrap().carrier = Carrier::Sealed;
    let mut host = host();
    host.links[2].vxlan = None;
    host.neighbours.clear();
    host.fdb.clear();
    let findings = judge(&request, &Ok(inside()), &Ok(host), &standing(Some(true)));
    assert!(
        findings
            .iter()
            .all(|finding| finding.verdict == Verdict::Fine),
        "{findings:#?}"
    );
}

type Damage = fn(&mut Host);

#[test]
fn each_fault_of_the_host_is_found_where_it_is() {
    let damages: &[(Hop, Damage)] = &[
        (Hop::Port, |host| host.links[0].up = false),
        (Hop::Port, |host| host.links[0].bridge = None),
        (Hop::Port, |host| host.links[0].forwarding = false),
        (Hop::Port, |host| host.links[0].name.clear()),
        (Hop::Bridge, |host| host.links[1].up = false),
        (Hop::Bridge, |host| {
            host.addresses.retain(|row| row.link != BRIDGE);
        }),
        (Hop::Forwarding, |host| host.forwarding = false),
        (Hop::Tunnel, |host| host.links[2].up = false),
        (Hop::Tunnel, |host| host.links[2].vxlan = None),
        (Hop::PeerRoute, |host| host.way = Err(Errno::EINVAL.into())),
        (Hop::PeerRoute, |host| host.way = a_way(UNDERLAY, None)),
        (Hop::Neighbour, |host| host.neighbours.clear()),
        (Hop::Neighbour, |host| {
            host.neighbours[0].mac = MacAddr::of_node("c");
        }),
        (Hop::Fdb, |host| host.fdb.clear()),
        (Hop::Fdb, |host| {
            host.fdb[0].vtep = "192.0.2.9".parse().unwrap();
        }),
        (Hop::Underlay, |host| {
            host.underlay = Some(Err(Errno::ENETUNREACH.into()));
        }),
        (Hop::Underlay, |host| {
            host.addresses.retain(|row| row.link != UNDERLAY);
        }),
        (Hop::Underlay, |host| host.links[3].up = false),
        (Hop::Underlay, |host| host.links[3].operating = false),
    ];
    for (number, (hop, damage)) in damages.iter().enumerate() {
        let mut host = host();
        damage(&mut host);
        assert_eq!(
            broken(inside(), host, Some(true)),
            [*hop],
            "damage {number}"
        );
    }
    assert_eq!(broken(inside(), host(), Some(false)), [Hop::Rules]);
}

#[test]
fn each_fault_of_the_container_is_found_where_it_is() {
    let whole = || (inside(), host());
    let (mut down, host) = whole();
    down.link = Some(Link {
        up: false,
        ..a_link(9, "eth0", 1450)
    });
    assert_eq!(broken(down, host, None), [Hop::Link]);
    let (mut bare, host) = whole();
    bare.addresses.clear();
    assert_eq!(broken(bare, host, None), [Hop::Address]);
    for way in [
        Err(Errno::ENETUNREACH.into()),
        a_way(9, Some("10.1.1.7")),
        a_way(8, None),
    ] {
        let (mut lost, host) = whole();
        lost.way = way;
        assert_eq!(broken(lost, host, None), [Hop::Route]);
    }
    let gone = judge(
        &request(),
        &Err(Errno::ENOENT.into()),
        &Ok(self::host()),
        &standing(None),
    );
    assert_eq!((gone[0].hop, gone[0].verdict), (Hop::Link, Verdict::Broken));
}

#[test]
fn packets_that_are_too_long_are_found_unless_the_route_is_fitted() {
    let request = WalkRequest {
        fits: Some(1350),
        ..request()
    };
    let of = |host: Host| {
        let findings = judge(&request, &Ok(inside()), &Ok(host), &standing(None));
        findings
            .into_iter()
            .find(|finding| finding.hop == Hop::Mtu)
            .unwrap()
    };
    assert_eq!(of(host()).verdict, Verdict::Broken);
    let way = a_way(TUNNEL, Some("10.1.2.1")).unwrap();
    let fitted = Host {
        way: Ok(Way {
            mtu: Some(1350),
            ..way
        }),
        ..host()
    };
    let finding = of(fitted);
    assert_eq!(finding.verdict, Verdict::Fine);
    assert!(
        finding
            .detail
            .contains("1350 bytes get there, as the path is narrow"),
        "{finding:?}"
    );
}

#[test]
fn foreign_rules_are_told_with_what_removes_them() {
    let rules = json!({ "nftables": [
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "policy": "accept"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 4, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}},
            {"drop": null}]}},
    ]});
    let host = Host {
        rules: Ok(rules),
        ..host()
    };
    let findings = judge(&request(), &Ok(inside()), &Ok(host), &standing(Some(true)));
    let finding = findings
        .iter()
        .find(|finding| finding.hop == Hop::Rules)
        .unwrap();
    assert_eq!(
        finding.detail,
        "rule 4 of ip filter INPUT, not nuncio's, drops VXLAN from that host"
    );
    assert_eq!(
        finding.mend.as_deref(),
        Some("nft delete rule ip filter INPUT handle 4")
    );
}

#[test]
fn what_goes_a_shorter_way_is_not_stopped_by_what_it_passes() {
    let mut request = request();
    request.segment.members = vec![Member {
        link: request.attached.host_link.clone(),
        mac: request.attached.mac,
        addresses: vec![request.address.ip()],
    }];
    let hops = |shortcut: ShortcutState, damage: Damage| {
        let (mut host, rules) = (host(), Some(true));
        damage(&mut host);
        let standing = Standing { rules, shortcut };
        let findings = judge(&request, &Ok(inside()), &Ok(host), &standing);
        let mut told = findings
            .iter()
            .filter(|finding| finding.hop == Hop::Shortcut);
        let short = told
            .next()
            .map(|finding| (finding.verdict, finding.mend.is_some()));
        let broken = findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Broken);
        (short, broken.map(|finding| finding.hop).collect::<Vec<_>>())
    };
    let long: [(Hop, Damage); 2] = [
        (Hop::Forwarding, |host| host.forwarding = false),
        (Hop::PeerRoute, |host| host.way = Err(Errno::EINVAL.into())),
    ];
    for (hop, damage) in long {
        let fine = Some((Verdict::Fine, false));
        assert_eq!(hops(ShortcutState::Stands, damage), (fine, vec![]));
        assert_eq!(hops(ShortcutState::Unused, damage), (None, vec![hop]));
        let gone = Some((Verdict::Fine, true));
        assert_eq!(hops(ShortcutState::Gone, damage), (gone, vec![hop]));
        let unknown = Some((Verdict::Unclear, false));
        assert_eq!(hops(ShortcutState::Unknown, damage), (unknown, vec![hop]));
    }
    let neighbour: Damage = |host| host.neighbours.clear();
    assert_eq!(hops(ShortcutState::Stands, neighbour).1, [Hop::Neighbour]);
    let changed = Some((Verdict::Broken, true));
    let found = hops(ShortcutState::Changed, |_| {});
    assert_eq!(found, (changed, vec![Hop::Shortcut]));
}

/// The same hosts, where the network's IPv6 is walked.
fn of_ipv6() -> (WalkRequest, Inside, Host) {
    let (mut request, mut inside, mut host) = (request(), inside(), host());
    let [subnet, near, far] = ["fd00:1::/48", "fd00:1:0:1::/64", "fd00:1:0:2::/64"]
        .map(|network| network.parse::<ipnetwork::IpNetwork>().unwrap());
    let next_hop = MacAddr::of_node("b").link_local().to_string();
    request.segment.subnets = vec![subnet];
    request.segment.blocks = vec![near];
    request.segment.peers[0].block = far;
    request.peer.as_mut().unwrap().block = far;
    request.address = "fd00:1:0:1::2/64".parse().unwrap();
    request.subnet = subnet;
    request.other = "fd00:1:0:2::2".parse().unwrap();
    inside.addresses = vec![an_address(9, "fd00:1:0:1::2/64")];
    inside.way = a_way(9, Some("fd00:1:0:1::1"));
    host.addresses[0] = an_address(BRIDGE, "fd00:1:0:1::1/64");
    host.neighbours[0].address = next_hop.parse().unwrap();
    host.way = a_way(TUNNEL, Some(&next_hop));
    (request, inside, host)
}

#[test]
fn the_way_of_ipv6_is_judged_as_that_of_ipv4() {
    let found = |damage: Damage| {
        let (request, inside, mut host) = of_ipv6();
        damage(&mut host);
        let findings = judge(&request, &Ok(inside), &Ok(host), &standing(Some(true)));
        let wrong = findings.into_iter();
        let wrong = wrong.filter(|finding| finding.verdict != Verdict::Fine);
        wrong
            .map(|finding| (finding.hop, finding.mend))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(|_| {}), []);
    let damages: [(Hop, &str, Damage); 4] = [
        (
            Hop::Forwarding,
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            |host| host.forwarding = false,
        ),
        (
            Hop::Bridge,
            "ip address add fd00:1:0:1::1/64 dev nb-1",
            |host| host.addresses.retain(|row| row.link != BRIDGE),
        ),
        (
            Hop::PeerRoute,
            "ip route replace fd00:1:0:2::/64 via fe80::",
            |host| host.way = Err(Errno::ENETUNREACH.into()),
        ),
        (Hop::Neighbour, "ip neighbour replace fe80::", |host| {
            host.neighbours.clear();
        }),
    ];
    for (hop, mend, damage) in damages {
        let found = found(damage);
        let [(at, Some(told))] = &found[..] else {
            panic!("{hop:?}: {found:?}");
        };
        assert!(*at == hop && told.starts_with(mend), "{found:?}");
    }
}
