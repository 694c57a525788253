//! Packets that claim to be from where they are not.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use nuncio_overlay::HostAccess;
use support::{Container, Host, Network, Server, UdpServer, Underlay, join, reach, send_udp};

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

#[test]
fn what_listens_on_the_host_is_not_for_containers_unless_allowed() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let (mesh, other) = (Network::new(1), Network::new(2));
    join(&mesh, &mut hosts)?;
    join(&other, &mut hosts)?;
    let [host] = &mut hosts;
    let (one, two) = (host.member(&mesh, 2)?, host.member(&mesh, 3)?);
    let server = Server::start(&host.namespace.path)?;
    // Of the two networks each has a gateway address.
    let addresses = ["10.1.1.1".parse()?, "10.2.1.1".parse()?, host.address];
    let reached = |container: &Container| -> Result<Vec<bool>> {
        let each = addresses.iter();
        each.map(|address| Ok(reach(container.path(), *address, server.port)?.is_some()))
            .collect()
    };
    assert_eq!(reached(&one)?, [false; 3]);
    for address in [addresses[0], addresses[2]] {
        one.sh(&format!("busybox ping -c 1 -W 2 {address}"))?;
    }
    host.state.segments[0].host_access = HostAccess::Only(vec![one.address.into()]);
    host.reconcile()?;
    assert_eq!(reached(&one)?, [true; 3]);
    assert_eq!(reached(&two)?, [false; 3]);
    host.state.segments[0].host_access = HostAccess::All;
    host.reconcile()?;
    assert_eq!(reached(&two)?, [true; 3]);
    Ok(())
}
