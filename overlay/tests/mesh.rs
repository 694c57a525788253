//! Containers on several hosts reach each other, and nobody else.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use nuncio_overlay::{LinkDoor, Linked, Protocol, Reach};
use support::{Container, Network, Server, Underlay, join, reach, reach_at};

#[test]
fn containers_of_three_hosts_reach_each_other_by_their_own_addresses() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let mut containers = Vec::new();
    for host in &hosts {
        containers.push(host.container(&mesh, 2)?);
        containers.push(host.container(&mesh, 3)?);
    }
    for server in &containers {
        let listening = Server::start(server.path())?;
        for client in &containers {
            let seen = reach(client.path(), server.address, listening.port)?;
            assert_eq!(
                seen,
                Some(client.address.to_string()),
                "to {}",
                server.address
            );
        }
    }
    Ok(())
}

#[test]
fn a_host_reaches_remote_containers_from_its_gateway_address() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let server = hosts[0].container(&mesh, 2)?;
    let listening = Server::start(server.path())?;
    let seen = reach(&hosts[1].namespace.path, server.address, listening.port)?;
    assert_eq!(seen.as_deref(), Some("10.1.2.1"));
    Ok(())
}

#[test]
fn networks_are_isolated_from_each_other_and_from_outside() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let stranger = underlay.host()?;
    let (one, two) = (Network::new(1), Network::new(2));
    join(&one, &mut hosts)?;
    join(&two, &mut hosts)?;
    let server = hosts[0].container(&one, 2)?;
    let listening = Server::start(server.path())?;
    for host in &hosts {
        let other = host.container(&two, 2)?;
        assert_eq!(reach(other.path(), server.address, listening.port)?, None);
    }
    // Not by the gateway of the other network either, nor from a machine that routes through the host.
    let gateway = Server::start(&hosts[0].namespace.path)?;
    let other = hosts[0].container(&two, 3)?;
    assert_eq!(
        reach(other.path(), "10.1.1.1".parse()?, gateway.port)?,
        None
    );
    stranger
        .namespace
        .ip("route add 10.1.0.0/16 via 192.0.2.1")?;
    assert_eq!(
        reach(&stranger.namespace.path, server.address, listening.port)?,
        None
    );
    assert_eq!(
        reach(&stranger.namespace.path, "10.1.1.1".parse()?, gateway.port)?,
        None
    );
    Ok(())
}

#[test]
fn the_way_out_is_masqueraded_and_an_internal_network_has_none() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let world = underlay.host()?;
    let open = Network::new(1);
    let internal = Network {
        internal: true,
        ..Network::new(2)
    };
    join(&open, &mut hosts)?;
    join(&internal, &mut hosts)?;
    let listening = Server::start(&world.namespace.path)?;
    let client = hosts[0].container(&open, 2)?;
    let seen = reach(client.path(), world.address, listening.port)?;
    assert_eq!(seen, Some(hosts[0].address.to_string()));

    let inside = hosts[0].container(&internal, 2)?;
    assert_eq!(reach(inside.path(), world.address, listening.port)?, None);
    inside.sh("ip route add default via 10.2.1.1")?; // as a container with CAP_NET_ADMIN may
    assert_eq!(reach(inside.path(), world.address, listening.port)?, None);
    let remote = hosts[1].container(&internal, 2)?;
    let within_network = Server::start(remote.path())?;
    let seen = reach(inside.path(), remote.address, within_network.port)?;
    assert_eq!(seen, Some(inside.address.to_string()));
    Ok(())
}

#[test]
fn over_a_network_for_links_only_hosts_reach_exposed_ports() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mut bridge = Network::new(1);
    bridge.reach = Reach::LinksOnly {
        exposed: Vec::new(),
        door: None,
    };
    join(&bridge, &mut hosts)?;
    let server = hosts[0].container(&bridge, 2)?;
    let (exposed, hidden) = (Server::start(server.path())?, Server::start(server.path())?);
    let ambassador = hosts[1].namespace.path.clone();
    assert_eq!(
        reach(&ambassador, server.address, exposed.port)?,
        None,
        "before the link"
    );

    hosts[0].state.segments[0].reach = Reach::LinksOnly {
        exposed: vec![(server.address.into(), Protocol::Tcp, exposed.port)],
        door: None,
    };
    hosts[0].reconcile()?;
    let seen = reach(&ambassador, server.address, exposed.port)?;
    assert_eq!(seen.as_deref(), Some("10.1.2.1"));
    assert_eq!(reach(&ambassador, server.address, hidden.port)?, None);
    let neighbour = hosts[0].container(&bridge, 3)?;
    assert!(
        reach(neighbour.path(), server.address, hidden.port)?.is_some(),
        "on one bridge"
    );
    let remote = hosts[1].container(&bridge, 2)?;
    assert_eq!(reach(remote.path(), server.address, exposed.port)?, None);
    let of_host = Server::start(&hosts[0].namespace.path)?;
    let gateway = "10.1.1.1".parse()?;
    assert_eq!(reach(&ambassador, gateway, of_host.port)?, None);

    let mut door = LinkDoor {
        port: of_host.port,
        plain: BTreeSet::new(),
    };
    for plain in [false, true] {
        door.plain
            .extend(plain.then_some("10.1.2.1".parse::<Ipv4Addr>()?));
        hosts[0].state.segments[0].reach = Reach::LinksOnly {
            exposed: vec![(server.address.into(), Protocol::Tcp, exposed.port)],
            door: Some(door.clone()),
        };
        hosts[0].reconcile()?;
        let seen = reach(&ambassador, server.address, exposed.port)?;
        assert_eq!(seen.is_some(), plain, "past the door");
        assert!(reach(&ambassador, gateway, of_host.port)?.is_some());
        assert_eq!(reach(remote.path(), gateway, of_host.port)?, None);
        assert_eq!(reach(&ambassador, gateway, hidden.port)?, None);
    }
    Ok(())
}

#[test]
fn without_icc_only_the_host_is_reached_and_who_is_linked() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let quiet = Network {
        icc: false,
        ..Network::dual(1)
    };
    join(&quiet, &mut hosts)?;
    let (server, client) = (
        hosts[0].container(&quiet, 2)?,
        hosts[0].container(&quiet, 3)?,
    );
    let (listening, hidden) = (Server::start(server.path())?, Server::start(server.path())?);
    let of_client = Server::start(client.path())?;
    let both = |container: &Container| [container.address.into(), container.address_v6.into()];
    let clients: [IpAddr; 2] = both(&client);
    for server in both(&server) {
        let at = (server, listening.port).into();
        assert_eq!(reach_at(client.path(), at)?, None);
        assert!(reach_at(&hosts[0].namespace.path, at)?.is_some());
    }
    hosts[0].state.segments[0].local_addresses = vec!["10.1.1.9".parse()?];
    hosts[0].reconcile()?;
    let link = Server::start_at(&hosts[0].namespace.path, "10.1.1.9".parse()?)?;
    assert!(reach(client.path(), "10.1.1.9".parse()?, link.port)?.is_some());

    let linked = both(&server).into_iter().zip(clients);
    hosts[0].state.segments[0].linked = linked
        .map(|(server, client)| Linked {
            client,
            server,
            protocol: Protocol::Tcp,
            port: listening.port,
        })
        .collect();
    hosts[0].reconcile()?;
    for (server, client_address) in both(&server).into_iter().zip(clients) {
        let seen = reach_at(client.path(), (server, listening.port).into())?;
        let own = Some(client_address.to_string());
        assert_eq!(seen, own, "with its own address");
        let not_linked = (server, hidden.port).into();
        assert_eq!(reach_at(client.path(), not_linked)?, None);
    }
    for client in clients {
        let back = (client, of_client.port).into();
        assert_eq!(reach_at(server.path(), back)?, None, "one way");
    }
    Ok(())
}

#[test]
fn packets_are_as_long_as_the_underlay_allows() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let (one, two) = (hosts[0].container(&mesh, 2)?, hosts[1].container(&mesh, 2)?);
    for link in ["nb-00000001", "nx-00000001", "nv-1-2"] {
        assert!(
            hosts[0]
                .namespace
                .ip(&format!("link show {link}"))?
                .contains("mtu 1450")
        );
    }
    assert!(one.sh("ip link show eth0")?.contains("mtu 1450"));
    // 20 bytes of IPv4 and 8 of ICMP: the longest echo that is not fragmented.
    let ping = format!("busybox ping -c 1 -W 2 -s {} {}", 1450 - 28, two.address);
    assert!(one.sh(&ping)?.contains("1 packets received"));
    let counters = "awk '/^Ip:/ { made = $20 } END { print made }' /proc/net/snmp";
    let made = hosts[0].namespace.sh(counters)?; // FragCreates
    assert_eq!(made.trim(), "0", "fragments made");
    Ok(())
}
