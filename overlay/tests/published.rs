//! A published port leads to its container, wherever the connection comes from.

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::Result;
use nuncio_overlay::{Protocol, Published};
use support::{Host, Network, Server, UdpServer, Underlay, join, reach, send_udp, within};

fn publish(host: &mut Host, protocol: Protocol, host_port: u16, target: SocketAddr) -> Result<()> {
    host.state.published.push(Published {
        protocol,
        host_address: None,
        host_port,
        target,
    });
    host.reconcile().map(drop)
}

#[test]
fn from_another_host_from_the_host_and_from_containers() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let outside = underlay.host()?;
    let (mesh, other) = (Network::new(1), Network::new(2));
    join(&mesh, &mut hosts)?;
    join(&other, &mut hosts)?;
    let server = hosts[0].container(&mesh, 2)?;
    let listening = Server::start(server.path())?;
    publish(
        &mut hosts[0],
        Protocol::Tcp,
        6379,
        SocketAddr::new(server.address.into(), listening.port),
    )?;
    let address = hosts[0].address;

    let seen = reach(&outside.namespace.path, address, 6379)?;
    assert_eq!(
        seen,
        Some(outside.address.to_string()),
        "the client's address is kept"
    );
    assert!(
        reach(&hosts[0].namespace.path, address, 6379)?.is_some(),
        "the host itself"
    );
    assert!(
        reach(server.path(), address, 6379)?.is_some(),
        "itself, there and back"
    );
    let neighbour = hosts[0].container(&mesh, 3)?;
    assert!(
        reach(neighbour.path(), address, 6379)?.is_some(),
        "its neighbour"
    );
    let stranger = hosts[0].container(&other, 2)?;
    assert!(
        reach(stranger.path(), address, 6379)?.is_some(),
        "another network"
    );
    let remote = hosts[1].container(&other, 2)?;
    let seen = reach(remote.path(), address, 6379)?;
    assert_eq!(
        seen,
        Some(hosts[1].address.to_string()),
        "another network on another host"
    );

    let _link = {
        hosts[0].state.segments[0].local_addresses = vec!["10.1.1.200".parse()?];
        hosts[0].reconcile()?;
        // A link's listener on the very port that is published keeps its connections.
        let listener = Server::start_at(&hosts[0].namespace.path, "10.1.1.200".parse()?)?;
        let elsewhere = SocketAddr::new(server.address.into(), 1);
        publish(&mut hosts[0], Protocol::Tcp, listener.port, elsewhere)?;
        assert!(reach(neighbour.path(), "10.1.1.200".parse()?, listener.port)?.is_some());
        listener
    };

    hosts[0].state.published.clear();
    hosts[0].reconcile()?;
    assert!(
        reach(&outside.namespace.path, address, 6379).is_err(),
        "refused again"
    );
    Ok(())
}

#[test]
fn udp_and_a_single_address() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let outside = underlay.host()?;
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let server = hosts[0].container(&mesh, 2)?;
    let socket = UdpServer::start(server.path())?;
    publish(
        &mut hosts[0],
        Protocol::Udp,
        5353,
        SocketAddr::new(server.address.into(), socket.port),
    )?;
    let target = SocketAddrV4::new(hosts[0].address, 5353);
    send_udp(
        &outside.namespace.path,
        Ipv4Addr::UNSPECIFIED,
        target,
        "hello",
    )?;
    let received = socket.receive()?.map(|(text, from)| (text, from.ip()));
    assert_eq!(received, Some(("hello".to_owned(), outside.address.into())));

    let listening = Server::start(server.path())?;
    hosts[0].namespace.ip("addr add 192.0.2.100/24 dev eth0")?;
    hosts[0].state.published.push(Published {
        protocol: Protocol::Tcp,
        host_address: Some(Ipv4Addr::new(192, 0, 2, 100).into()),
        host_port: 6379,
        target: SocketAddr::new(server.address.into(), listening.port),
    });
    hosts[0].reconcile()?;
    assert!(reach(&outside.namespace.path, Ipv4Addr::new(192, 0, 2, 100), 6379)?.is_some());
    assert!(
        reach(&outside.namespace.path, hosts[0].address, 6379).is_err(),
        "refused"
    );
    Ok(())
}

#[test]
fn a_client_of_udp_that_sends_on_and_on_reaches_whom_the_port_leads_to_now() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let outside = underlay.host()?;
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let servers = [hosts[0].container(&mesh, 2)?, hosts[0].container(&mesh, 3)?];
    let sockets = [
        UdpServer::start(servers[0].path())?,
        UdpServer::start(servers[1].path())?,
    ];
    let target = SocketAddrV4::new(hosts[0].address, 5353);
    let client = within(&outside.namespace.path, || {
        Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
    })?;
    // It begins before anybody is there.
    client.send_to(b"early", target)?;
    for (server, socket) in servers.iter().zip(&sockets) {
        hosts[0].state.published.clear();
        let server = SocketAddr::new(server.address.into(), socket.port);
        publish(&mut hosts[0], Protocol::Udp, 5353, server)?;
        client.send_to(b"now", target)?;
        let received = socket.receive()?.map(|(text, _)| text);
        assert_eq!(received.as_deref(), Some("now"));
    }
    hosts[0].state.published.clear();
    hosts[0].reconcile()?;
    client.send_to(b"late", target)?;
    assert_eq!(sockets[1].receive()?, None, "nobody is there any more");
    Ok(())
}
