#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::{Gate, HostAccess, Linked, MacAddr, Member, Peer, Protocol, Published, Reach, Vni};

pub(super) fn mesh() -> Segment {
    Segment {
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
        peers: vec![Peer {
            block: "10.1.2.0/24".parse().unwrap(),
            vtep: "192.0.2.2".parse().unwrap(),
            mac: MacAddr::of_node("b"),
            mtu: None,
        }],
        mtu: 1450,
        internal: false,
        icc: true,
        masquerade: true,
        linked: Vec::new(),
        reach: Reach::Routed,
        local_addresses: Vec::new(),
        members: vec![member("nv-3", "10.1.1.2"), member("nv-4", "10.1.1.3")],
        host_access: HostAccess::Only(Vec::new()),
    }
}

pub(super) fn links_only() -> Segment {
    let exposed = vec![
        ("172.17.1.2".parse().unwrap(), Protocol::Tcp, 6379),
        ("172.17.1.2".parse().unwrap(), Protocol::Udp, 53),
    ];
    Segment {
        id: "bridge".to_owned(),
        bridge: "nuncio0".to_owned(),
        subnets: vec!["172.17.0.0/16".parse().unwrap()],
        blocks: vec!["172.17.1.0/24".parse().unwrap()],
        vxlan: Some(Vxlan {
            link: "nx-0".to_owned(),
            ..mesh().vxlan.unwrap()
        }),
        peers: vec![Peer {
            block: "172.17.2.0/24".parse().unwrap(),
            ..mesh().peers[0].clone()
        }],
        icc: false,
        linked: vec![Linked {
            client: "172.17.1.3".parse().unwrap(),
            server: "172.17.1.2".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 6379,
        }],
        reach: Reach::LinksOnly {
            exposed,
            door: None,
        },
        local_addresses: vec!["172.17.1.9".parse().unwrap()],
        members: vec![member("nv-1", "172.17.1.2"), member("nv-2", "172.17.1.3")],
        host_access: HostAccess::Only(vec!["172.17.1.3".parse().unwrap()]),
        ..mesh()
    }
}

fn member(link: &str, address: &str) -> Member {
    let address: Ipv4Addr = address.parse().unwrap();
    Member {
        link: link.to_owned(),
        mac: MacAddr::of_address(address),
        addresses: vec![address.into()],
    }
}

pub(super) fn local() -> Segment {
    Segment {
        id: "local".to_owned(),
        bridge: "nb-2".to_owned(),
        subnets: vec!["10.2.0.0/24".parse().unwrap()],
        blocks: vec!["10.2.0.0/24".parse().unwrap()],
        vxlan: None,
        peers: Vec::new(),
        internal: true,
        host_access: HostAccess::All,
        members: Vec::new(),
        ..mesh()
    }
}

fn dual() -> Segment {
    let mut segment = Segment {
        id: "dual".to_owned(),
        bridge: "nb-3".to_owned(),
        subnets: vec![
            "10.3.0.0/16".parse().unwrap(),
            "fd00:3::/64".parse().unwrap(),
        ],
        blocks: vec![
            "10.3.1.0/24".parse().unwrap(),
            "fd00:3:0:0:1::/80".parse().unwrap(),
        ],
        vxlan: Some(Vxlan {
            link: "nx-3".to_owned(),
            ..mesh().vxlan.unwrap()
        }),
        members: vec![member("nv-5", "10.3.1.2"), member("nv-6", "10.3.1.3")],
        host_access: HostAccess::Only(vec![
            "10.3.1.2".parse().unwrap(),
            "fd00:3:0:0:1::2".parse().unwrap(),
        ]),
        ..mesh()
    };
    for (member, last) in segment.members.iter_mut().zip(2..) {
        let address = Ipv6Addr::new(0xfd00, 3, 0, 0, 1, 0, 0, last);
        member.addresses.push(address.into());
    }
    segment.peers[0].block = "10.3.2.0/24".parse().unwrap();
    segment.peers.push(Peer {
        block: "fd00:3:0:0:2::/80".parse().unwrap(),
        ..segment.peers[0].clone()
    });
    segment
}

fn published() -> Vec<Published> {
    let port = |host_address: Option<&str>, host_port| Published {
        protocol: Protocol::Tcp,
        host_address: host_address.map(|address| address.parse().unwrap()),
        host_port,
        target: "172.17.1.2:6379".parse().unwrap(),
    };
    let port_v6 = |host_address, host_port| Published {
        target: "[fd00:3:0:0:1::2]:6379".parse().unwrap(),
        ..port(host_address, host_port)
    };
    vec![
        port(None, 6379),
        port(Some("192.0.2.1"), 6379),
        port(Some("127.0.0.1"), 6380),
        port(Some("0.0.0.0"), 6381),
        port_v6(None, 6379),
        port_v6(Some("2001:db8::1"), 6379),
        port_v6(Some("::1"), 6380),
        port_v6(Some("::"), 6381),
    ]
}

#[test]
fn nothing_needs_no_table() {
    assert_eq!(render(&HostState::default()), "");
}

#[test]
fn renders_as_reviewed() {
    let state = HostState {
        segments: vec![links_only(), mesh(), local(), dual()],
        published: published(),
        shortcut: true,
        ..HostState::default()
    };
    assert_eq!(render(&state), include_str!("reviewed.nft"));
}

#[test]
fn packets_of_an_encrypted_network_take_no_other_way() {
    let mut secret = mesh();
    secret.vxlan.as_mut().unwrap().carrier = Carrier::Sealed;
    let state = HostState {
        segments: vec![links_only(), secret],
        published: Vec::new(),
        shortcut: true,
        ..HostState::default()
    };
    let text = render(&state);
    for rule in [
        "iifname != { \"nb-1\", \"nx-1\", \"lo\" } ip saddr 10.1.0.0/16 counter drop",
        "oifname != { \"nb-1\", \"nx-1\", \"lo\" } ip daddr 10.1.0.0/16 counter drop",
        "udp dport 4789 @th,96,24 5 counter drop",
    ] {
        assert!(text.contains(&format!("\n\t\t{rule}\n")), "{rule}: {text}");
    }
}

#[test]
fn the_order_of_peers_and_ports_does_not_matter() {
    let mut segment = mesh();
    segment.peers.push(Peer {
        block: "10.1.3.0/24".parse().unwrap(),
        vtep: "192.0.2.3".parse().unwrap(),
        mac: MacAddr::of_node("c"),
        mtu: None,
    });
    let mut state = HostState {
        segments: vec![segment],
        published: published(),
        shortcut: true,
        ..HostState::default()
    };
    let text = render(&state);
    state.segments[0].peers.reverse();
    state.published.reverse();
    assert_eq!(render(&state), text);
}

#[test]
fn what_is_linked_crosses_the_tunnel_alone() {
    let server: IpAddr = "10.1.1.2".parse().unwrap();
    let segment = Segment {
        icc: false,
        masquerade: false,
        linked: vec![Linked {
            client: "10.1.1.3".parse().unwrap(),
            server: "10.1.2.9".parse().unwrap(),
            protocol: Protocol::Udp,
            port: 53,
        }],
        reach: Reach::Linked {
            exposed: vec![(server, Protocol::Tcp, 80)],
        },
        ..mesh()
    };
    let text = render(&HostState {
        segments: vec![segment],
        ..HostState::default()
    });
    for rule in [
        "oifname { \"nb-1\", \"nx-1\" } ip saddr . ip daddr . meta l4proto . th dport { 10.1.1.3 . 10.1.2.9 . udp . 53 } accept",
        "oifname \"nx-1\" counter drop",
        "oifname \"nb-1\" ip daddr . meta l4proto . th dport { 10.1.1.2 . tcp . 80 } accept",
    ] {
        assert!(text.contains(&format!("\n\t\t{rule}\n")), "{rule}: {text}");
    }
    assert!(!text.contains("\n\t\toifname \"nb-1\" accept\n"), "{text}");
    assert!(!text.contains("10.1.1.0/24 } masquerade"), "{text}");
}

#[test]
fn without_peers_no_vxlan_comes_in() {
    let state = HostState {
        segments: vec![Segment {
            peers: Vec::new(),
            ..mesh()
        }],
        published: Vec::new(),
        shortcut: true,
        ..HostState::default()
    };
    let text = render(&state);
    assert!(
        text.contains("\n\t\tudp dport 4789 counter drop\n") && !text.contains("dport 4789 accept"),
        "{text}"
    );
    assert!(
        text.contains("\n\t\tiifname \"nx-1\" counter drop\n"),
        "{text}"
    );
    assert!(!text.contains("{  }"), "{text}");
}

#[test]
fn the_way_around_is_as_the_tunnel_and_its_port_for_peers_alone() {
    let mut segment = mesh();
    let vxlan = segment.vxlan.as_mut().unwrap();
    vxlan.fallback = Some(crate::Fallback {
        link: "nf-1".to_owned(),
        to: BTreeSet::new(),
    });
    let peers = ["192.0.2.2", "2001:db8::2", "192.0.2.3"];
    let text = render(&HostState {
        segments: vec![segment],
        fallback: Some(Gate {
            port: 51820,
            peers: peers.map(|peer| peer.parse().unwrap()).into(),
        }),
        ..HostState::default()
    });
    let both = "{ \"nx-1\", \"nf-1\" }";
    for rule in [
        &*format!("iifname {both} ip saddr != {{ 10.1.2.0/24 }} counter drop"),
        &format!("iifname {both} meta l4proto != icmp counter drop"),
        &format!("oifname {both} accept"),
        "iifname != { \"nb-1\", \"nx-1\", \"nf-1\", \"lo\" } ip daddr { 10.1.1.0/24 } counter drop",
        "iifname vmap { \"nb-1\" : jump from-nb-1, \"nx-1\" : jump from-nx-1, \"nf-1\" : jump from-nx-1 }",
        "oifname != { \"nb-1\", \"nx-1\", \"nf-1\" } ip saddr { 10.1.1.0/24 } masquerade",
        "tcp dport 51820 ip saddr { 192.0.2.2, 192.0.2.3 } accept",
        "tcp dport 51820 ip6 saddr { 2001:db8::2 } accept",
        "tcp dport 51820 counter drop",
    ] {
        assert!(text.contains(&format!("\n\t\t{rule}\n")), "{rule}: {text}");
    }
}
