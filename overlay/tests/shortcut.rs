//! Containers of one network on two hosts have a shorter way, for what no rule would forbid, and not for more.

mod support;

use std::net::Ipv4Addr;

use anyhow::Result;
use support::{Container, Host, Network, Server, Underlay, join, reach};

/// Whether connection tracking, which only the long way has, knows of a flow from the address.
fn took_the_long_way(host: &Host, source: Ipv4Addr) -> Result<bool> {
    let tracked = host.namespace.sh("cat /proc/net/nf_conntrack")?;
    Ok(tracked.contains(&format!("src={source} ")))
}

fn shortcut(host: &Host) -> Result<bool> {
    let tables = host.namespace.sh("nft list tables")?;
    Ok(tables.contains("table netdev nuncio"))
}

/// A container on each host. The tables name what is there, so they are brought up to the links once more.
fn pair(network: &Network, hosts: &mut [Host; 2]) -> Result<[Container; 2]> {
    let containers = [hosts[0].member(network, 2)?, hosts[1].member(network, 2)?];
    for host in hosts.iter() {
        host.reconcile()?;
    }
    Ok(containers)
}

#[test]
fn it_is_taken_both_ways_and_the_long_way_is_there_without_it() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [client, server] = pair(&mesh, &mut hosts)?;
    let listening = Server::start(server.path())?;

    let by_itself = Some(client.address.to_string());
    assert_eq!(
        reach(client.path(), server.address, listening.port)?,
        by_itself
    );
    for host in &hosts {
        assert!(shortcut(host)?);
        assert!(!took_the_long_way(host, client.address)?);
    }

    for host in &hosts {
        host.namespace.sh("nft delete table netdev nuncio")?;
    }
    assert_eq!(
        reach(client.path(), server.address, listening.port)?,
        by_itself
    );
    for host in &hosts {
        assert!(took_the_long_way(host, client.address)?);
        assert_eq!(host.reconcile()?.repaired, 1);
        assert!(shortcut(host)?);
        assert_eq!(host.reconcile()?.changes(), 0);
    }
    Ok(())
}

#[test]
fn another_address_does_not_pass() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [client, server] = pair(&mesh, &mut hosts)?;
    let listening = Server::start(server.path())?;
    client.sh("ip addr add 10.1.1.77/24 dev eth0; ip route replace 10.1.2.0/24 via 10.1.1.1 src 10.1.1.77")?;
    assert_eq!(reach(client.path(), server.address, listening.port)?, None);
    client.sh("ip route replace 10.1.2.0/24 via 10.1.1.1 src 10.1.1.2")?;
    let by_itself = Some(client.address.to_string());
    assert_eq!(
        reach(client.path(), server.address, listening.port)?,
        by_itself
    );
    Ok(())
}

#[test]
fn it_is_not_for_networks_whose_containers_need_links() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let closed = Network {
        icc: false,
        ..Network::new(1)
    };
    join(&closed, &mut hosts)?;
    let [client, server] = pair(&closed, &mut hosts)?;
    let listening = Server::start(server.path())?;
    assert_eq!(reach(client.path(), server.address, listening.port)?, None);
    for host in &hosts {
        assert!(!shortcut(host)?);
    }
    Ok(())
}

#[test]
fn a_container_that_is_gone_does_not_take_it_from_the_others() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [client, server] = pair(&mesh, &mut hosts)?;
    let gone = hosts[1].member(&mesh, 3)?;
    hosts[1].reconcile()?;
    drop(gone);
    hosts[1].reconcile()?;
    let listening = Server::start(server.path())?;
    let by_itself = Some(client.address.to_string());
    assert_eq!(
        reach(client.path(), server.address, listening.port)?,
        by_itself
    );
    assert!(shortcut(&hosts[1])?);
    assert!(!took_the_long_way(&hosts[1], client.address)?);
    Ok(())
}

#[test]
fn who_wants_none_has_none_and_the_long_way() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [client, server] = pair(&mesh, &mut hosts)?;
    let listening = Server::start(server.path())?;
    for host in &mut hosts {
        assert!(shortcut(host)?);
        host.state.shortcut = false;
        host.reconcile()?;
        assert!(!shortcut(host)?);
    }
    let by_itself = Some(client.address.to_string());
    assert_eq!(
        reach(client.path(), server.address, listening.port)?,
        by_itself
    );
    for host in &hosts {
        assert!(took_the_long_way(host, client.address)?);
    }
    Ok(())
}
