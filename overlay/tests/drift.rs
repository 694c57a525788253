//! What somebody changed by hand is mended, what stands is left alone, and nothing remains in the end.

mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use nuncio_overlay::{Carrier, Protocol, Published, Report, attach};
use support::{Host, Network, Pod, Server, Underlay, join, reach};

const NOTHING: Report = Report {
    created: 0,
    repaired: 0,
    removed: 0,
};

fn repaired(count: usize) -> Report {
    Report {
        repaired: count,
        ..NOTHING
    }
}

/// All that the overlay may change, without counters and indexes of links that come and go.
/// The links of namespaces that are gone are taken away in the kernel's own time, which is waited for.
fn picture(host: &Host) -> Result<String> {
    host.namespace.sh(
        "for look in $(seq 1000); do ip -o link | grep -q 'netnsid unknown' || break; sleep 0.02; done;
         ip -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/state [A-Z]*//; s/,LOWER_UP//; s/NO-CARRIER,//';
         ip -o -4 addr | sed 's/^[0-9]*: //'; ip -4 route show table all | sed 's/ linkdown//'; ip -o -6 addr show scope global | sed 's/^[0-9]*: //'; ip -6 route show table main | sed 's/ linkdown//' | grep -v ^fe80; ip neigh show nud permanent; bridge fdb | grep permanent | grep -v '^33:33:'; nft list tables | sort | while read -r _ family table; do nft -s list table $family $table; done",
    )
}

fn published(target: &str) -> Result<Published> {
    Ok(Published {
        protocol: Protocol::Tcp,
        host_address: None,
        host_port: 6379,
        target: target.parse()?,
    })
}

#[test]
fn a_second_reconciliation_changes_nothing() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    hosts[0].state.published = vec![published("10.1.1.2:6379")?];
    hosts[0].state.segments[0].local_addresses = vec!["10.1.1.200".parse()?];
    assert!(hosts[0].reconcile()?.changes() > 0);
    let _container = hosts[0].container(&mesh, 2)?;
    let before = picture(&hosts[0])?;
    assert_eq!(hosts[0].reconcile()?, NOTHING);
    assert_eq!(picture(&hosts[0])?, before);
    // Nor does that of a daemon that has just started.
    let state = hosts[0].state.clone();
    let restarted = hosts[0].run(move |runtime, kernel| {
        *kernel = runtime
            .block_on(nuncio_overlay::Kernel::open())
            .expect("open the kernel");
        runtime.block_on(kernel.reconcile(&state))
    })??;
    assert_eq!(restarted, NOTHING);
    assert_eq!(picture(&hosts[0])?, before);
    Ok(())
}

/// A link that is being made while the host is looked through, at whatever moment of that.
#[test]
fn what_is_in_the_making_was_changed_by_nobody() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let host = &hosts[0];
    for moment in 0..60_u8 {
        let pod = Pod::new()?;
        let request = host.request(&mesh, 2 + moment, &pod.path);
        let state = host.state.clone();
        let report = host.run(move |runtime, kernel| {
            runtime.block_on(async {
                let looking = async {
                    let then = Instant::now() + Duration::from_micros(100) * u32::from(moment);
                    while Instant::now() < then {
                        tokio::task::yield_now().await;
                    }
                    kernel.reconcile(&state).await
                };
                let (made, report) = tokio::join!(attach(&request), looking);
                made?;
                anyhow::Ok(report?)
            })
        })??;
        assert_eq!(report, NOTHING, "{moment}");
    }
    assert_eq!(host.reconcile()?, NOTHING);
    Ok(())
}

#[test]
fn an_encrypted_network_has_a_tun_device_and_no_other_way_out() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mut mesh = Network::new(1);
    mesh.carrier = Carrier::Sealed;
    join(&mesh, &mut hosts)?;
    let host = &hosts[0];
    host.reconcile()?;
    let before = picture(host)?;
    assert!(
        before.contains("10.1.2.0/24 via 10.1.2.1 dev nx-00000001"),
        "{before}"
    );
    assert_eq!(host.reconcile()?, NOTHING);
    for damage in [
        "ip link del nx-00000001",
        "ip link set nx-00000001 mtu 1000",
        "ip link set nx-00000001 down",
        "ip link set nx-00000001 group 0",
        "ip route del 10.1.2.0/24",
        "ip route replace 10.1.2.0/24 dev eth0",
        "nft flush chain inet nuncio leaking",
    ] {
        host.namespace.sh(damage)?;
        let report = host.reconcile()?;
        assert!(report.changes() >= 1, "{damage}: {report:?}");
        assert_eq!(picture(host)?, before, "{damage}");
        assert_eq!(host.reconcile()?, NOTHING, "{damage}");
    }
    // Without the device there is no way at all.
    host.namespace
        .sh("ip route add default dev eth0; ip link del nx-00000001")?;
    let sent = host.namespace.sh("bash -c 'echo > /dev/udp/10.1.2.2/9'");
    assert!(sent.is_err(), "it left: {sent:?}");
    let rules = host.namespace.sh("nft list chain inet nuncio leaking")?;
    assert!(!rules.contains("packets 0 "), "{rules}");
    host.clear()?;
    let left = host.namespace.sh("ip -o link")?;
    assert!(!left.contains("nx-"), "{left}");
    Ok(())
}

#[test]
fn every_kind_of_drift_is_mended_and_counted() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let host = &hosts[0];
    host.reconcile()?;
    let before = picture(host)?;
    let damages = [
        ("ip route del 10.1.2.0/24", repaired(1)),
        (
            "ip route replace 10.1.2.0/24 via 10.1.2.7 dev nx-00000001 onlink",
            repaired(1),
        ),
        (
            "ip route add 10.77.0.0/24 dev nx-00000001",
            Report {
                removed: 1,
                ..NOTHING
            },
        ),
        ("ip neigh del 10.1.2.1 dev nx-00000001", repaired(1)),
        (
            "ip neigh replace 10.1.2.1 lladdr 02:00:00:00:00:01 dev nx-00000001",
            repaired(1),
        ),
        (
            "bridge fdb flush dev nx-00000001 || bridge fdb del $(bridge fdb show dev nx-00000001 | cut -d' ' -f1) dev nx-00000001",
            repaired(1),
        ),
        (
            "bridge fdb add 02:00:00:00:00:01 dst 192.0.2.9 dev nx-00000001",
            Report {
                removed: 1,
                ..NOTHING
            },
        ),
        ("ip addr del 10.1.1.1/24 dev nb-00000001", repaired(1)),
        (
            "ip addr add 10.9.9.9/32 dev nb-00000001",
            Report {
                removed: 1,
                ..NOTHING
            },
        ),
        ("ip link set nx-00000001 mtu 1000", repaired(1)),
        (
            "ip link set nb-00000001 type bridge stp_state 1",
            repaired(1),
        ),
        (
            "ip link set nb-00000001 address 02:00:00:00:00:01",
            repaired(1),
        ),
        ("nft delete table inet nuncio", repaired(1)),
        ("nft flush chain inet nuncio forward", repaired(1)),
        ("nft add rule inet nuncio input accept", repaired(1)),
        ("sysctl -qw net.ipv4.ip_forward=0", repaired(1)),
    ];
    for (damage, expected) in damages {
        host.namespace.sh(damage)?;
        let report = host.reconcile()?;
        // A route goes with the address that is its source, and comes back with it.
        assert!(
            report.changes() >= 1 && report.created == 0,
            "{damage}: {report:?}"
        );
        assert!(
            report == expected || damage.starts_with("ip addr del"),
            "{damage}: {report:?}"
        );
        assert_eq!(picture(host)?, before, "{damage}");
        assert_eq!(host.reconcile()?, NOTHING, "{damage}");
    }
    Ok(())
}

#[test]
fn rules_are_mended_whether_or_not_they_have_been_listed() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let [host] = &mut hosts;
    let damages = [
        ("nft delete table inet nuncio", repaired(1)),
        ("nft add rule inet nuncio input accept", repaired(1)),
        ("nft delete table bridge nuncio", repaired(1)),
        ("nft add table ip other; nft delete table ip other", NOTHING),
    ];
    let mut last = 2..;
    for (damage, expected) in damages {
        for settles in [false, true] {
            let member = host.member(&mesh, last.next().expect("an address"))?;
            host.reconcile()?;
            if settles {
                host.settle()?;
            }
            let before = picture(host)?;
            host.namespace.sh(damage)?;
            let told = format!("{damage}, listed: {settles}");
            assert_eq!(host.reconcile()?, expected, "{told}");
            assert_eq!(picture(host)?, before, "{told}");
            assert_eq!(host.reconcile()?, NOTHING, "{told}");
            drop(member);
        }
    }
    Ok(())
}

#[test]
fn deleted_links_come_back_with_their_containers() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let (server, client) = (hosts[0].container(&mesh, 2)?, hosts[1].container(&mesh, 2)?);
    let listening = Server::start(server.path())?;
    for damage in [
        "ip link del nb-00000001",
        "ip link del nx-00000001",
        "ip link set nb-00000001 down; ip link set nx-00000001 down; ip link set nv-1-2 down",
        "ip link del nx-00000001; ip link add nx-00000001 group 110 type vxlan id 9 dstport 4789",
    ] {
        hosts[0].namespace.sh(damage)?;
        assert_eq!(
            reach(client.path(), server.address, listening.port)?,
            None,
            "{damage}"
        );
        let report = hosts[0].reconcile()?;
        assert!(report.repaired > 0, "{damage}: {report:?}");
        assert!(
            reach(client.path(), server.address, listening.port)?.is_some(),
            "{damage}"
        );
        assert_eq!(hosts[0].reconcile()?, NOTHING, "{damage}");
    }
    Ok(())
}

#[test]
fn peers_that_leave_or_move_leave_nothing_behind() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let host = &mut hosts[0];
    host.state.segments[0].peers[0].vtep = "192.0.2.77".parse()?;
    host.reconcile()?;
    let fdb = host.namespace.sh("bridge fdb show dev nx-00000001")?;
    assert!(
        fdb.contains("192.0.2.77") && !fdb.contains("192.0.2.2 "),
        "{fdb}"
    );
    host.state.segments[0].peers.clear();
    let report = host.reconcile()?;
    assert_eq!(report.removed, 3, "{report:?}"); // route, neighbour, forwarding row
    assert_eq!(host.namespace.sh("bridge fdb show dev nx-00000001")?, "");
    Ok(())
}

#[test]
fn removal_leaves_nothing() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    hosts[0]
        .namespace
        .sh("ip link add br7 type bridge; ip addr add 10.7.0.1/16 dev br7; ip link set br7 up")?;
    hosts[0]
        .namespace
        .sh("nft add table inet theirs; ip link add nb-theirs type bridge")?;
    let before = picture(&hosts[0])?;
    join(&Network::new(1), &mut hosts)?;
    let adopted = Network::new(7);
    let mut segment = adopted.segment(&hosts[0], &[]);
    segment.adopted = true;
    segment.bridge = "br7".to_owned();
    segment.local_addresses = vec!["10.7.1.9".parse()?];
    hosts[0].state.segments.push(segment);
    hosts[0].state.published = vec![published("10.1.1.2:6379")?];
    hosts[0].reconcile()?;
    assert!(picture(&hosts[0])?.contains("10.7.1.9"));
    assert_eq!(hosts[0].reconcile()?, NOTHING);

    hosts[0].state = nuncio_overlay::HostState::default();
    assert!(hosts[0].reconcile()?.removed > 0);
    assert_eq!(picture(&hosts[0])?, before);
    assert_eq!(hosts[0].reconcile()?, NOTHING);

    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let _container = hosts[0].container(&mesh, 2)?;
    hosts[0].clear()?;
    assert_eq!(picture(&hosts[0])?, before);
    Ok(())
}

#[test]
fn what_cannot_be_done_is_told_together_and_the_rest_is_done() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let host = &mut hosts[0];
    host.namespace.sh("ip link add nb-00000002 type bridge")?;
    let good = Network::new(1).segment(host, &[]);
    let foreign = Network::new(2).segment(host, &[]);
    let mut absent = Network::new(3).segment(host, &[]);
    (absent.adopted, absent.bridge) = (true, "br9".to_owned());
    let mut misnamed = Network::new(4).segment(host, &[]);
    misnamed.bridge = "no bridge".to_owned();
    host.state.segments = vec![foreign, absent, good];
    let told = host
        .try_reconcile()?
        .expect_err("two bridges are wrong")
        .to_string();
    assert!(
        told.contains("link nb-00000002 was not made by nuncio"),
        "{told}"
    );
    assert!(told.contains("there is no bridge br9"), "{told}");
    assert!(
        host.namespace
            .ip("addr show nb-00000001")?
            .contains("10.1.1.1/24")
    );
    host.state.segments.push(misnamed);
    let told = host
        .try_reconcile()?
        .expect_err("three are wrong")
        .to_string();
    assert!(told.contains("`no bridge` is no link name"), "{told}");
    Ok(())
}
