//! What gets through to a peer is found out, and what does not is not sent.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nuncio_overlay::{PathState, PathTarget, Paths, Reach, inner_mtu};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use support::{Container, Host, Network, Underlay, join, within};
use tokio::time::timeout;

/// How long anything may take that comes by itself; generous, for machines under load.
const SOON: Duration = Duration::from_secs(60);

/// How long a transfer that is stuck is watched: it would be done in milliseconds.
const STUCK: Duration = Duration::from_secs(3);

/// Has the bridge drop what is longer than 1400 bytes, without a word. (A port with a lesser MTU may cut it up.)
const NARROW: &str = "nft add table bridge narrow; nft 'add chain bridge narrow way { type filter hook forward priority 0; }';
    nft add rule bridge narrow way 'ip length > 1400 drop'";

const WIDE: &str = "nft delete table bridge narrow";

/// What is waited for to be known, and a command then.
type Step = (fn(&PathState) -> bool, String);

/// Probes from `host` to its one peer. Of each step the condition is waited for, then the command run in the underlay.
fn watch(host: &Host, underlay: &Underlay, steps: Vec<Step>) -> Result<()> {
    let targets = PathTarget::of(&host.state, 1500);
    let wire = underlay.namespace.path.clone();
    host.run(move |runtime, _| {
        runtime.block_on(async {
            let paths = Paths::open(BTreeMap::new(), BTreeSet::new())?;
            paths.aim(targets).await;
            let mut states = paths.states();
            for (number, (condition, then)) in steps.into_iter().enumerate() {
                let met = states.wait_for(|states| states.values().next().is_some_and(condition));
                let met = timeout(SOON, met).await.map(drop);
                let state = states.borrow().values().next().copied();
                met.with_context(|| format!("step {number}: {state:?}"))?;
                support::sh_in(&wire, &then)?;
            }
            anyhow::Ok(())
        })
    })?
}

fn two(mut underlay: Underlay, network: &Network) -> Result<(Underlay, [Host; 2])> {
    let mut hosts = [underlay.host()?, underlay.host()?];
    // A packet longer than the wire takes is cut up for it, rather than carried over whole as between namespaces.
    for host in &hosts {
        host.namespace.ip("link set eth0 gso_max_segs 1")?;
    }
    join(network, &mut hosts)?;
    Ok((underlay, hosts))
}

fn is(mtu: u16) -> impl Fn(&PathState) -> bool {
    move |state| state.reachable == Some(true) && state.mtu == Some(mtu)
}

#[test]
fn the_width_of_a_path_that_drops_silently_is_found_and_its_changes_too() -> Result<()> {
    let (underlay, hosts) = two(Underlay::new()?, &Network::new(1))?;
    watch(
        &hosts[0],
        &underlay,
        vec![
            (|state| is(1500)(state), NARROW.to_owned()),
            (|state| is(1400)(state), WIDE.to_owned()),
            (|state| is(1500)(state), "ip link set port2 down".to_owned()),
            (
                |state| state.reachable == Some(false),
                "ip link set port2 up".to_owned(),
            ),
            (|state| is(1500)(state), String::new()),
        ],
    )
}

#[test]
fn the_width_of_a_routed_path_is_found_with_and_without_the_router_s_word() -> Result<()> {
    for silent in [false, true] {
        let (underlay, hosts) = two(Underlay::routed()?, &Network::new(1))?;
        underlay.namespace.ip("link set port2 mtu 1400")?;
        if silent {
            underlay.namespace.sh(
                "nft add table ip t; nft 'add chain ip t out { type filter hook output priority 0; }';
                 nft add rule ip t out icmp type destination-unreachable drop",
            )?;
        }
        let wide = "ip link set port2 mtu 1500".to_owned();
        watch(
            &hosts[0],
            &underlay,
            vec![
                (|state| is(1400)(state), wide),
                (|state| is(1500)(state), String::new()),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn hosts_that_only_share_links_probe_each_other_too_whatever_drops_invalid_packets() -> Result<()> {
    let network = Network {
        reach: Reach::LinksOnly {
            exposed: Vec::new(),
            door: None,
        },
        ..Network::new(1)
    };
    let (underlay, hosts) = two(Underlay::new()?, &network)?;
    for host in &hosts {
        host.namespace.sh("nft add table inet foreign;
             nft 'add chain inet foreign in { type filter hook input priority 0; }';
             nft add rule inet foreign in ct state invalid drop")?;
    }
    watch(
        &hosts[0],
        &underlay,
        vec![(|state| is(1500)(state), String::new())],
    )
}

#[test]
fn checksums_that_are_left_to_devices_are_found_to_arrive() -> Result<()> {
    for reach in [
        Reach::Routed,
        Reach::LinksOnly {
            exposed: Vec::new(),
            door: None,
        },
    ] {
        let network = Network {
            reach,
            ..Network::new(1)
        };
        let (underlay, hosts) = two(Underlay::new()?, &network)?;
        for host in &hosts {
            host.namespace.sh("nft add table inet foreign;
                 nft 'add chain inet foreign in { type filter hook input priority 0; }';
                 nft add rule inet foreign in ct state invalid drop")?;
        }
        watch(
            &hosts[0],
            &underlay,
            vec![(|state| state.offload == Some(true), String::new())],
        )?;
        assert!(hosts[0].namespace.ip("link show nx-checksums").is_err());
    }
    Ok(())
}

#[test]
fn a_path_whose_port_is_blocked_is_told_and_when_it_is_open_again() -> Result<()> {
    let (underlay, hosts) = two(Underlay::routed()?, &Network::new(1))?;
    let block =
        "nft add table ip t; nft 'add chain ip t way { type filter hook forward priority 0; }';
                 nft add rule ip t way udp dport 4789 drop";
    let open = "nft delete table ip t";
    watch(
        &hosts[0],
        &underlay,
        vec![
            (|state| state.reachable == Some(true), block.to_owned()),
            (|state| state.reachable == Some(false), open.to_owned()),
            (|state| state.reachable == Some(true), String::new()),
        ],
    )
}

/// Sends two megabytes, and waits at most `limit` until they have arrived.
fn bulk(from: &Container, to: &Container, limit: Duration) -> Result<bool> {
    const LENGTH: usize = 2 << 20;
    let listener = within(to.path(), || {
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?)
    })?;
    let server = SocketAddr::from((to.address, listener.local_addr()?.port()));
    let client = within(from.path(), || {
        Ok(TcpStream::connect_timeout(&server, SOON)?)
    })?;
    let (mut receiver, _) = listener.accept()?;
    client.set_write_timeout(Some(limit))?;
    receiver.set_read_timeout(Some(limit))?;
    let sender = std::thread::spawn(move || {
        let _ = (&client).write_all(&[0; LENGTH]); // the receiver tells what came
        client
    });
    let mut buffer = vec![0; LENGTH];
    let arrived = receiver.read_exact(&mut buffer).is_ok();
    drop(receiver);
    ensure!(sender.join().is_ok(), "the sender panicked");
    Ok(arrived)
}

#[test]
fn no_packet_falls_into_the_hole_of_a_narrow_path() -> Result<()> {
    let mesh = Network::new(1);
    let (underlay, mut hosts) = two(Underlay::new()?, &mesh)?;
    let (client, server) = (hosts[0].container(&mesh, 2)?, hosts[1].container(&mesh, 2)?);
    assert!(bulk(&client, &server, SOON)?);
    underlay.namespace.sh(NARROW)?;
    assert!(!bulk(&client, &server, STUCK)?, "the hole is none");

    for host in &mut hosts {
        host.state.segments[0].peers[0].mtu = Some(inner_mtu(1400, false)?);
        let report = host.reconcile()?;
        assert_eq!((report.created, report.repaired), (1, 0), "{report:?}");
        assert_eq!(host.reconcile()?.changes(), 0);
    }
    assert!(bulk(&client, &server, SOON)?);
    assert!(bulk(&server, &client, SOON)?);

    // Who forbids cutting up is told by the host what fits; of others the host cuts it up.
    let to = (server.address, 9);
    let told = within(client.path(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?;
        let deadline = std::time::Instant::now() + SOON;
        loop {
            match socket.send_to(&[0; 1400], to) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => break,
                _ => ensure!(
                    std::time::Instant::now() < deadline,
                    "nobody says it is too long"
                ),
            }
        }
        client.sh("ip route get 10.1.2.2")
    })?;
    assert!(told.contains("mtu 1350"), "{told}");
    let listener = support::UdpServer::start(server.path())?;
    let to = (server.address, listener.port);
    within(client.path(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
        Ok(socket.send_to(&[b'x'; 1400], to)?)
    })?;
    assert_eq!(listener.receive()?.map(|(text, _)| text.len()), Some(1400));
    Ok(())
}
