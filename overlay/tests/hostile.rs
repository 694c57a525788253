//! Packets that claim to be from where they are not.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nuncio_overlay::HostAccess;
use rustix::net::{
    AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt::set_ipv6_multicast_hops,
};
use support::{
    Container, Host, Network, Server, UdpServer, Underlay, join, reach_at, send_udp, within,
};

fn expect(socket: &UdpServer, text: Option<&str>) -> Result<()> {
    let received = socket.receive()?.map(|(text, _)| text);
    assert_eq!(received.as_deref(), text);
    Ok(())
}

#[test]
fn a_container_cannot_take_another_s_address() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let (server, liar) = (hosts[0].container(&mesh, 2)?, hosts[1].container(&mesh, 2)?);
    let socket = UdpServer::start(server.path())?;
    let target = SocketAddrV4::new(server.address, socket.port);
    send_udp(liar.path(), liar.address, target, "honest")?;
    expect(&socket, Some("honest"))?;
    for stolen in ["10.1.3.3", "10.1.1.3", "198.51.100.1"] {
        liar.sh(&format!("ip addr add {stolen}/32 dev lo"))?;
        send_udp(liar.path(), stolen.parse::<Ipv4Addr>()?, target, stolen)?;
        expect(&socket, None)?;
    }
    Ok(())
}

#[test]
fn vxlan_is_taken_from_peers_only() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let server = hosts[0].container(&mesh, 2)?;
    let socket = UdpServer::start(server.path())?;
    let target = SocketAddrV4::new(server.address, socket.port);

    // It has the second host's block and MAC, all but its address.
    let mut stranger = underlay.host()?;
    let block = mesh.block(&hosts[1]);
    let mut segment = mesh.segment(&hosts[1], &[&hosts[0]]);
    segment.vxlan.as_mut().expect("a mesh has a tunnel").local = stranger.address.into();
    segment.blocks = vec![block.into()];
    stranger.state.segments = vec![segment];
    stranger.reconcile()?;
    let source = Ipv4Addr::new(10, 1, 2, 1);
    send_udp(&hosts[1].namespace.path, source, target, "peer")?;
    expect(&socket, Some("peer"))?;
    send_udp(&stranger.namespace.path, source, target, "stranger")?;
    expect(&socket, None)?;

    let [first, ..] = &mut hosts;
    first.state.segments[0].peers[0].vtep = stranger.address.into();
    first.reconcile()?;
    send_udp(&stranger.namespace.path, source, target, "now a peer")?;
    expect(&socket, Some("now a peer"))
}

/// As this host's masqueraded packet it would come from a peer.
#[test]
fn a_container_cannot_send_vxlan_itself() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let liar = hosts[1].container(&mesh, 2)?;
    let target = SocketAddrV4::new(hosts[0].address, 4789);
    let before = received(&hosts[0])?;
    send_udp(
        liar.path(),
        liar.address,
        target,
        "not quite VXLAN, but enough to be counted",
    )?;
    send_udp(
        &hosts[1].namespace.path,
        hosts[1].address,
        target,
        "the host's own is counted",
    )?;
    let wait = std::time::Instant::now();
    while received(&hosts[0])? == before && wait.elapsed().as_secs() < 5 {}
    assert_eq!(received(&hosts[0])?, before + 1);
    Ok(())
}

/// Datagrams that came as far as a socket, which for port 4789 is the VXLAN device's (InDatagrams).
fn received(host: &Host) -> Result<u64> {
    let counters = host.namespace.sh("cat /proc/net/snmp")?;
    let udp = counters
        .lines()
        .filter(|line| line.starts_with("Udp: "))
        .nth(1);
    let datagrams = udp
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    Ok(datagrams.parse()?)
}

/// What the table of frames has counted as dropped.
fn dropped_frames(host: &Host) -> Result<u64> {
    let listed = host.namespace.sh("nft list table bridge nuncio")?;
    let counts = listed
        .split("counter packets ")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Its neighbours would believe it: their frames never meet the rules for packets.
#[test]
fn a_container_is_nobody_else_on_its_own_bridge() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [host] = &mut hosts;
    let (server, liar) = (host.member(&mesh, 2)?, host.member(&mesh, 3)?);
    let socket = UdpServer::start(server.path())?;
    let target = SocketAddrV4::new(server.address, socket.port);
    send_udp(liar.path(), liar.address, target, "honest")?;
    expect(&socket, Some("honest"))?;

    let mut before = dropped_frames(host)?;
    let mut counted = |host: &Host| -> Result<()> {
        let now = dropped_frames(host)?;
        assert!(now > before, "{now} dropped, {before} before");
        before = now;
        Ok(())
    };
    for stolen in ["10.1.1.9", "198.51.100.1"] {
        liar.sh(&format!("ip addr add {stolen}/32 dev lo"))?;
        send_udp(liar.path(), stolen.parse::<Ipv4Addr>()?, target, stolen)?;
        expect(&socket, None)?;
        counted(host)?;
    }
    // Nor does it answer for an address that nobody has.
    liar.sh("ip addr add 10.1.1.77/32 dev eth0")?;
    assert!(server.sh("busybox ping -c 1 -W 1 10.1.1.77").is_err());
    assert!(!server.sh("ip neigh show 10.1.1.77")?.contains("lladdr"));
    counted(host)?;

    liar.sh("ip link set eth0 address 02:42:00:00:00:99")?;
    send_udp(liar.path(), liar.address, target, "another MAC")?;
    expect(&socket, None)?;
    counted(host)
}

/// An ICMPv6 packet to all on the link, of which the kernel makes the checksum.
fn send_icmpv6(container: &Container, packet: &[u8]) -> Result<()> {
    within(container.path(), || {
        let kind = SocketType::RAW;
        let socket = socket(AddressFamily::INET6, kind, Some(ipproto::ICMPV6))?;
        set_ipv6_multicast_hops(&socket, 255)?;
        let link = std::fs::read_to_string("/proc/thread-self/net/igmp6")?;
        let link = link.lines().find(|line| line.contains("eth0"));
        let link = link.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let target = SocketAddrV6::new(all, 0, 0, link.context("eth0")?);
        sendto(&socket, packet, SendFlags::empty(), &target)?;
        Ok(())
    })
}

#[test]
fn a_container_is_nobody_else_over_ipv6_either() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let [host] = &mut hosts;
    let (server, liar) = (host.member(&mesh, 2)?, host.member(&mesh, 3)?);
    let socket = UdpServer::start(server.path())?;
    let target = SocketAddrV6::new(server.address_v6, socket.port, 0, 0);
    send_udp(liar.path(), liar.address_v6, target, "honest")?;
    expect(&socket, Some("honest"))?;
    server.sh("busybox ping6 -c 1 -W 5 fe80::42:aff:fe01:103%eth0")?;

    let mut before = dropped_frames(host)?;
    let mut counted = |host: &Host| -> Result<()> {
        let now = dropped_frames(host)?;
        assert!(now > before, "{now} dropped, {before} before");
        before = now;
        Ok(())
    };
    for stolen in ["fd00:1:0:0:1::9", "2001:db8:1::1"] {
        liar.sh(&format!("ip addr add {stolen}/128 dev lo nodad"))?;
        let ping = format!("busybox ping6 -c 1 -W 1 -I {stolen} {}", server.address_v6);
        assert!(liar.sh(&ping).is_err(), "{stolen}");
        counted(host)?;
    }
    // Nor does it answer for an address that nobody has.
    liar.sh("ip addr add fd00:1:0:0:1::77/80 dev eth0 nodad")?;
    assert!(
        server
            .sh("busybox ping6 -c 1 -W 1 fd00:1:0:0:1::77")
            .is_err()
    );
    let found = server.sh("ip neigh show fd00:1:0:0:1::77")?;
    assert!(!found.contains("lladdr"), "{found}");
    counted(host)?;
    // Nor has it another link-local address than that of its MAC.
    liar.sh("ip addr flush dev eth0 scope link; ip addr add fe80::9/64 dev eth0 nodad")?;
    let near = "busybox ping6 -c 1 -W 1 fe80::42:aff:fe01:102%eth0";
    assert!(liar.sh(near).is_err());
    counted(host)?;
    // It is no router, and sends nobody elsewhere.
    for kind in [134, 137] {
        let mut packet = [0; 40];
        packet[0] = kind;
        send_icmpv6(&liar, &packet)?;
        counted(host)?;
    }
    Ok(())
}

/// Whoever doubts an address of his own asks for it, and goes without it if somebody answers, or asks for the same.
#[test]
fn a_container_keeps_nobody_from_an_address() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let [host] = &mut hosts;
    let (doubter, liar) = (host.member(&mesh, 2)?, host.member(&mesh, 3)?);
    let own = doubter.address_v6;
    liar.sh(&format!("ip addr add {own}/128 dev eth0 nodad"))?;
    doubter.sh(&format!("ip addr del {own}/80 dev eth0; sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1; ip addr add {own}/80 dev eth0"))?;
    let begun = Instant::now();
    let shown = loop {
        let shown = doubter.sh(&format!("ip -6 addr show dev eth0 to {own}"))?;
        if !shown.contains("tentative") || begun.elapsed() > Duration::from_secs(30) {
            break shown;
        }
    };
    let failed = shown.contains("dadfailed") || shown.contains("tentative");
    assert!(shown.contains("fd00") && !failed, "{shown}");
    assert!(dropped_frames(host)? > 0, "the liar has answered");
    Ok(())
}

#[test]
fn what_listens_on_the_host_is_not_for_containers_unless_allowed() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let (mesh, other) = (Network::dual(1), Network::dual(2));
    join(&mesh, &mut hosts)?;
    join(&other, &mut hosts)?;
    let [host] = &mut hosts;
    let (one, two) = (host.member(&mesh, 2)?, host.member(&mesh, 3)?);
    let server = Server::start(&host.namespace.path)?;
    // Of the two networks each has two gateway addresses.
    let addresses: [IpAddr; 6] = [
        "10.1.1.1".parse()?,
        "10.2.1.1".parse()?,
        host.address.into(),
        "fd00:1:0:0:1::1".parse()?,
        "fd00:2:0:0:1::1".parse()?,
        host.address_v6().into(),
    ];
    let reached = |container: &Container| -> Result<Vec<bool>> {
        let each = addresses.iter();
        each.map(
            |address| Ok(reach_at(container.path(), (*address, server.port).into())?.is_some()),
        )
        .collect()
    };
    assert_eq!(reached(&one)?, [false; 6]);
    for address in [0, 2, 3, 5].map(|at| addresses[at]) {
        one.sh(&format!("busybox ping -c 1 -W 5 {address}"))?;
    }
    let both = vec![one.address.into(), one.address_v6.into()];
    host.state.segments[0].host_access = HostAccess::Only(both);
    host.reconcile()?;
    assert_eq!(reached(&one)?, [true; 6]);
    assert_eq!(reached(&two)?, [false; 6]);
    host.state.segments[0].host_access = HostAccess::All;
    host.reconcile()?;
    assert_eq!(reached(&two)?, [true; 6]);
    Ok(())
}
