#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::super::{render, tests::mesh};
use super::*;
use crate::{HostAccess, HostState, MacAddr, Member, Protocol, Reach};

fn adopted() -> Segment {
    let member = |link: &str, last: u8| Member {
        link: link.to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        addresses: vec![format!("192.168.7.{last}").parse().unwrap()],
    };
    Segment {
        bridge: "br0".to_owned(),
        adopted: true,
        subnets: vec!["192.168.7.0/24".parse().unwrap()],
        blocks: vec!["192.168.7.0/24".parse().unwrap()],
        vxlan: None,
        peers: Vec::new(),
        reach: Reach::Routed,
        members: vec![member("nv-a0", 20), member("nv-b0", 21)],
        host_access: HostAccess::All,
        ..mesh()
    }
}

fn rules(segments: Vec<Segment>) -> Vec<String> {
    let text = render(&HostState {
        segments,
        ..HostState::default()
    });
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn rules_are_about_containers_and_not_about_who_else_is_there() {
    let rules = rules(vec![mesh(), adopted()]);
    let members = "{ 192.168.7.20, 192.168.7.21 }";
    for rule in [
        format!(
            "iifname \"br0\" ip saddr {members} udp dport 4789 ip daddr {{ 192.0.2.2 }} counter drop"
        ),
        format!("oifname \"br0\" ip daddr {members} ct status dnat accept"),
        format!("oifname \"br0\" ip daddr {members} counter drop"),
        format!(
            "oifname \"br0\" ip saddr {{ 192.168.7.0/24 }} ip daddr {members} ct status dnat masquerade"
        ),
        format!("oifname != {{ \"nb-1\", \"nx-1\", \"br0\" }} ip saddr {members} masquerade"),
        "oifname { \"nb-1\", \"nx-1\" } counter drop".to_owned(),
        "oifname != { \"nb-1\", \"nx-1\" } ip saddr { 10.1.1.0/24 } masquerade".to_owned(),
    ] {
        assert!(rules.contains(&rule), "{rule}: {rules:#?}");
    }
    let about = rules
        .iter()
        .filter(|rule| rule.contains("br0") && rule.contains("drop"));
    for rule in about {
        assert!(rule.contains(members), "{rule}");
    }
}

#[test]
fn alone_it_forbids_nothing() {
    let rules = rules(vec![adopted()]);
    let dropped = rules.iter().filter(|rule| rule.ends_with("drop"));
    // Frames that are not from a container's own addresses, by its own link.
    let others: Vec<_> = dropped
        .filter(|rule| !rule.starts_with("iifname { \"nv-a0\", \"nv-b0\" }"))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn without_icc_links_open_ports_one_way() {
    let linked = Linked {
        client: "192.168.7.20".parse().unwrap(),
        server: "192.168.7.21".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let segment = Segment {
        icc: false,
        linked: vec![linked],
        ..adopted()
    };
    let rules = rules(vec![segment]);
    let between = "iifname { \"nv-a0\", \"nv-b0\" } oifname { \"nv-a0\", \"nv-b0\" }";
    let ends = format!("{between} ip saddr . ip daddr . meta l4proto . th");
    for rule in [
        format!("{ends} dport {{ 192.168.7.20 . 192.168.7.21 . tcp . 80 }} accept"),
        format!(
            "{ends} sport {{ 192.168.7.21 . 192.168.7.20 . tcp . 80 }} tcp flags & (syn | ack) != syn accept"
        ),
        format!("{between} counter drop"),
    ] {
        assert!(rules.contains(&rule), "{rule}: {rules:#?}");
    }
}
