//! Networks that carry IPv6 beside IPv4: the same ways, and the same walls.

mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;

use anyhow::Result;
use nuncio_overlay::{Protocol, Published};
use support::{
    Container, Network, Pod, Server, UdpServer, Underlay, join, reach, reach_at, send_udp, within,
};

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    (address, port).into()
}

fn index_of(netns: &Path, link: &str) -> Result<u32> {
    within(netns, || Ok(nix::net::if_::if_nametoindex(link)?))
}

fn seen_from(client: &Container, server: &Container, port: u16) -> Result<Option<String>> {
    reach_at(client.path(), at(server.address_v6, port))
}

#[test]
fn containers_reach_each_other_over_both_families() -> Result<()> {
    for over_v6 in [false, true] {
        let mut underlay = Underlay::new()?;
        let mut hosts = [underlay.host()?, underlay.host()?, underlay.host()?];
        let mesh = Network {
            over_v6,
            ..Network::dual(1)
        };
        join(&mesh, &mut hosts)?;
        let mut containers = Vec::new();
        for host in &hosts {
            containers.push(host.container(&mesh, 2)?);
            containers.push(host.container(&mesh, 3)?);
        }
        for server in &containers {
            let listening = Server::start(server.path())?;
            for client in &containers {
                let seen = seen_from(client, server, listening.port)?;
                assert_eq!(seen, Some(client.address_v6.to_string()));
                let seen = reach(client.path(), server.address, listening.port)?;
                assert_eq!(seen, Some(client.address.to_string()));
            }
            let seen = reach_at(
                &hosts[2].namespace.path,
                at(server.address_v6, listening.port),
            )?;
            assert_eq!(seen.as_deref(), Some("fd00:1::3:0:0:1"), "the host itself");
        }
        // Full packets pass, too: what the tunnel adds has been taken off.
        let (here, there) = (&containers[0], &containers[2]);
        here.sh(&format!(
            "busybox ping6 -c 1 -s {} {}",
            if over_v6 { 1382 } else { 1402 },
            there.address_v6
        ))?;
        // A host keeps for another one a route and a neighbour of each family, and one row.
        let rows = hosts[0]
            .namespace
            .sh("bridge fdb show dev nx-00000001 | grep -vc ^33:33")?;
        assert_eq!(rows.trim(), "2");
    }
    Ok(())
}

#[test]
fn a_container_has_its_address_at_once_and_listens_to_no_router() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    join(&Network::dual(1), &mut hosts)?;
    join(&Network::new(2), &mut hosts)?;
    let dual = hosts[0].container(&Network::dual(1), 2)?;
    let shown = dual.sh("ip -6 addr show dev eth0")?;
    assert!(
        shown.contains("fd00:1::1:0:0:2/80 scope global nodad"),
        "{shown}"
    );
    assert!(!shown.contains("tentative"), "{shown}");
    let routes = dual.sh("ip -6 route")?;
    assert!(
        routes.contains("default via fd00:1::1:0:0:1 dev eth0"),
        "{routes}"
    );
    assert!(
        routes.contains("fd00:1::/64 via fd00:1::1:0:0:1 dev eth0"),
        "{routes}"
    );
    assert_eq!(
        dual.sh("sysctl -n net.ipv6.conf.eth0.accept_ra")?.trim(),
        "0"
    );
    let bridge = hosts[0].namespace.ip("-6 addr show dev nb-00000001")?;
    assert_eq!(
        bridge.matches("inet6").count(),
        2,
        "none of its own making: {bridge}"
    );
    assert!(bridge.contains("fe80::1/64"), "{bridge}");

    let single = hosts[0].container(&Network::new(2), 2)?;
    assert_eq!(single.sh("ip -6 addr show dev eth0")?, "");
    assert_eq!(hosts[0].namespace.ip("-6 addr show dev nb-00000002")?, "");

    // A second time changes nothing, and what is missing is completed.
    hosts[0].attach(hosts[0].request(&Network::dual(1), 2, dual.path()))?;
    assert_eq!(
        dual.sh("ip -6 addr show dev eth0; ip -6 route")?,
        format!("{shown}{routes}")
    );
    dual.sh("ip -6 route flush dev eth0; ip -6 addr flush dev eth0 scope global")?;
    hosts[0].attach(hosts[0].request(&Network::dual(1), 2, dual.path()))?;
    assert_eq!(
        dual.sh("ip -6 route show default")?,
        "default via fd00:1::1:0:0:1 dev eth0 proto 110 metric 1024 pref medium\n"
    );
    Ok(())
}

#[test]
fn a_reused_address_is_not_stale() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let client = hosts[0].container(&mesh, 3)?;
    for last_byte in 1..=2 {
        let pod = Pod::new()?;
        let mut request = hosts[0].request(&mesh, 2, &pod.path);
        request.mac.0[5] = last_byte; // an address of IPv6 says nothing of the card it was on
        hosts[0].attach(request)?;
        let server = Server::start(&pod.path)?;
        for netns in [client.path(), &hosts[0].namespace.path] {
            let seen = reach_at(netns, at("fd00:1:0:0:1::2".parse()?, server.port))?;
            assert!(seen.is_some(), "{last_byte}");
        }
        hosts[0].run(|runtime, _| runtime.block_on(nuncio_overlay::detach("nv-1-2")))??;
    }
    Ok(())
}

#[test]
fn networks_are_isolated_from_each_other_and_from_outside() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let stranger = underlay.host()?;
    let (one, two) = (Network::dual(1), Network::dual(2));
    join(&one, &mut hosts)?;
    join(&two, &mut hosts)?;
    let server = hosts[0].container(&one, 2)?;
    let listening = Server::start(server.path())?;
    let gateway = Server::start(&hosts[0].namespace.path)?;
    let to_gateway = at("fd00:1:0:0:1::1".parse()?, gateway.port);
    for host in &hosts {
        let other = host.container(&two, 2)?;
        assert_eq!(seen_from(&other, &server, listening.port)?, None);
        assert_eq!(reach_at(other.path(), to_gateway)?, None);
    }
    stranger
        .namespace
        .ip("route add fd00:1::/64 via 2001:db8::1")?;
    let netns = &stranger.namespace.path;
    assert_eq!(
        reach_at(netns, at(server.address_v6, listening.port))?,
        None
    );
    assert_eq!(reach_at(netns, to_gateway)?, None);
    // Nor is a container's link-local address a way to the host.
    let near = hosts[0].container(&one, 3)?;
    let all = near.sh("busybox ping6 -c 3 -w 2 -I eth0 ff02::1 || true")?;
    assert!(
        all.contains("from fe80::42:aff:fe01:103") && !all.contains("from fe80::1"),
        "{all}"
    );
    // Among containers it leads to all of them, and to the host's listeners it does not.
    assert!(all.contains("from fe80::42:aff:fe01:102"), "{all}");
    let group = "ff02::fb".parse()?;
    let (link, on_bridge) = (index_of(near.path(), "eth0")?, &hosts[0].namespace.path);
    let neighbour = UdpServer::start_in(server.path(), group, index_of(server.path(), "eth0")?)?;
    let host = UdpServer::start_in(on_bridge, group, index_of(on_bridge, "nb-00000001")?)?;
    let to = |port| SocketAddrV6::new(group, port, 0, link);
    let own = SocketAddrV6::new("fe80::42:aff:fe01:103".parse()?, 0, 0, link);
    within(near.path(), || {
        let sender = UdpSocket::bind(own)?;
        sender.send_to(b"hello", to(neighbour.port))?;
        Ok(sender.send_to(b"hello", to(host.port))?)
    })?;
    let heard = neighbour.receive()?.map(|(text, _)| text);
    assert_eq!(heard.as_deref(), Some("hello"));
    assert_eq!(host.receive()?, None);
    Ok(())
}

#[test]
fn the_way_out_is_masqueraded_and_an_internal_network_has_none() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let world = underlay.host()?;
    let open = Network::dual(1);
    let internal = Network {
        internal: true,
        ..Network::dual(2)
    };
    join(&open, &mut hosts)?;
    join(&internal, &mut hosts)?;
    let listening = Server::start(&world.namespace.path)?;
    let to_world = at(world.address_v6(), listening.port);
    let client = hosts[0].container(&open, 2)?;
    let seen = reach_at(client.path(), to_world)?;
    assert_eq!(seen, Some(hosts[0].address_v6().to_string()));

    let inside = hosts[0].container(&internal, 2)?;
    assert_eq!(reach_at(inside.path(), to_world)?, None);
    inside.sh("ip -6 route add default via fd00:2:0:0:1::1")?; // as a container with CAP_NET_ADMIN may
    assert_eq!(reach_at(inside.path(), to_world)?, None);
    let remote = hosts[1].container(&internal, 2)?;
    let within_network = Server::start(remote.path())?;
    let seen = seen_from(&inside, &remote, within_network.port)?;
    assert_eq!(seen, Some(inside.address_v6.to_string()));
    Ok(())
}

#[test]
fn a_container_cannot_take_another_s_address() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let (server, liar) = (hosts[0].container(&mesh, 2)?, hosts[1].container(&mesh, 2)?);
    let socket = UdpServer::start(server.path())?;
    let target = at(server.address_v6, socket.port);
    let expect = |source: Ipv6Addr, text: Option<&str>| -> Result<()> {
        send_udp(liar.path(), source, target, "hello")?;
        let received = socket.receive()?.map(|(text, _)| text);
        assert_eq!(received.as_deref(), text, "{source}");
        Ok(())
    };
    expect(liar.address_v6, Some("hello"))?;
    for stolen in ["fd00:1:0:0:3::3", "fd00:1:0:0:1::3", "2001:db8:1::1"] {
        liar.sh(&format!("ip addr add {stolen}/128 dev lo nodad"))?;
        expect(stolen.parse()?, None)?;
    }
    // Of a network that carries IPv4 alone nothing else comes.
    let plain = Network::new(3);
    join(&plain, &mut hosts)?;
    let inside = hosts[0].container(&plain, 2)?;
    inside.sh(
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add fd00:9::2/64 dev eth0 nodad",
    )?;
    hosts[0].namespace.sh("sysctl -qw net.ipv6.conf.nb-00000003.disable_ipv6=0; ip addr add fd00:9::1/64 dev nb-00000003 nodad")?;
    let listening = Server::start(&hosts[0].namespace.path)?;
    assert_eq!(
        reach_at(inside.path(), at("fd00:9::1".parse()?, listening.port))?,
        None
    );
    Ok(())
}

#[test]
fn a_published_port_leads_to_the_container_of_its_family() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let outside = underlay.host()?;
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let server = hosts[0].container(&mesh, 2)?;
    let listening = Server::start(server.path())?;
    let port = |host_address: Option<IpAddr>, host_port, target: IpAddr| Published {
        protocol: Protocol::Tcp,
        host_address,
        host_port,
        target: (target, listening.port).into(),
    };
    let own = hosts[0].address_v6();
    hosts[0].state.published = vec![
        port(None, 6379, server.address.into()),
        port(
            Some(Ipv6Addr::UNSPECIFIED.into()),
            6379,
            server.address_v6.into(),
        ),
        port(Some(own.into()), 6380, server.address_v6.into()),
    ];
    hosts[0].reconcile()?;
    let netns = &outside.namespace.path;
    let seen = Some(outside.address_v6().to_string());
    assert_eq!(
        reach_at(netns, at(own, 6379))?,
        seen,
        "the client's address is kept"
    );
    assert_eq!(reach_at(netns, at(own, 6380))?, seen, "at one address");
    assert!(
        reach(netns, hosts[0].address, 6380).is_err(),
        "not of the other family"
    );
    let seen = reach(netns, hosts[0].address, 6379)?;
    assert_eq!(seen, Some(outside.address.to_string()));
    assert!(
        reach_at(server.path(), at(own, 6379))?.is_some(),
        "itself, there and back"
    );
    assert!(
        reach_at(&hosts[0].namespace.path, at(own, 6379))?.is_some(),
        "the host itself"
    );
    Ok(())
}

#[test]
fn a_client_of_udp_that_sends_on_and_on_reaches_whom_the_port_leads_to_now() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let outside = underlay.host()?;
    let mesh = Network::dual(1);
    join(&mesh, &mut hosts)?;
    let servers = [hosts[0].container(&mesh, 2)?, hosts[0].container(&mesh, 3)?];
    let target = at(hosts[0].address_v6(), 5353);
    let client = within(&outside.namespace.path, || {
        Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?)
    })?;
    client.send_to(b"early", target)?;
    for server in &servers {
        let socket = UdpServer::start(server.path())?;
        hosts[0].state.published = vec![Published {
            protocol: Protocol::Udp,
            host_address: Some(Ipv6Addr::UNSPECIFIED.into()),
            host_port: 5353,
            target: at(server.address_v6, socket.port),
        }];
        hosts[0].reconcile()?;
        client.send_to(b"now", target)?;
        let received = socket.receive()?.map(|(text, _)| text);
        assert_eq!(received.as_deref(), Some("now"));
    }
    Ok(())
}
