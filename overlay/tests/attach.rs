//! Containers come, come again and go, and a failure leaves nothing.

mod support;

use std::path::Path;

use anyhow::Result;
use nuncio_overlay::{
    CreateNetNsError, NetNs, OpenNetNsError, UnderlayError, attach, default_underlay_address,
    detach, host_routes, mtu_of_address, probe,
};
use support::{Network, Pod, Server, Underlay, join, reach};

#[test]
fn attaching_twice_changes_nothing_and_detaching_twice_neither() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let container = hosts[0].container(&mesh, 2)?;
    let index = hosts[0]
        .namespace
        .sh("cat /proc/net/dev_snmp6/nv-1-2 | grep ifIndex")?;
    let before = container.sh("ip addr; ip route")?;
    hosts[0].attach(hosts[0].request(&mesh, 2, container.path()))?;
    assert_eq!(container.sh("ip addr; ip route")?, before);
    let again = hosts[0]
        .namespace
        .sh("cat /proc/net/dev_snmp6/nv-1-2 | grep ifIndex")?;
    assert_eq!(again, index, "it is the same link");
    for _ in 0..2 {
        hosts[0].run(|runtime, _| runtime.block_on(detach("nv-1-2")))??;
        assert!(hosts[0].namespace.ip("link show nv-1-2").is_err());
    }
    assert!(container.sh("ip link show eth0").is_err());
    Ok(())
}

#[test]
fn an_attachment_cut_short_is_completed() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let container = hosts[0].container(&mesh, 2)?;
    let listening = Server::start(container.path())?;
    for damage in [
        "ip route flush dev eth0",
        "ip addr flush dev eth0",
        "ip link set eth0 down",
        "ip link del eth0",
    ] {
        container.sh(damage)?;
        assert!(
            reach(&hosts[0].namespace.path, container.address, listening.port)?.is_none()
                || damage.contains("route")
        );
        hosts[0].attach(hosts[0].request(&mesh, 2, container.path()))?;
        assert!(reach(&hosts[0].namespace.path, container.address, listening.port)?.is_some());
        assert!(
            container.sh("ip route")?.contains("default via 10.1.1.1"),
            "{damage}"
        );
    }
    Ok(())
}

/// All but whether a bridge without ports is connected.
const LINKS: &str = "ip -o link | sed 's/,LOWER_UP//; s/NO-CARRIER,//; s/state [A-Z]*//'";

#[test]
fn a_failed_attachment_leaves_no_link() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let pod = Pod::new()?;
    let links = hosts[0].namespace.sh(LINKS)?;
    let good = hosts[0].request(&mesh, 2, &pod.path);

    let mut unreachable = good.clone();
    unreachable.places[0].gateway = Some("224.0.0.1".parse()?); // the very last step: the kernel refuses the route
    let mut absent = good.clone();
    absent.bridge = "br9".to_owned();
    let mut nameless = good.clone();
    nameless.host_link = "much-too-long-for-a-link".to_owned();
    let mut nowhere = good.clone();
    nowhere.netns = Path::new("/nonexistent/net").to_owned();
    for (request, told) in [
        (unreachable, "add a route for link nv-1-2"),
        (absent, "there is no bridge br9"),
        (nameless, "`much-too-long-for-a-link` is no link name"),
        (nowhere, "open network namespace /nonexistent/net"),
    ] {
        let error = hosts[0].run(move |runtime, _| runtime.block_on(attach(&request)))?;
        let error = error.expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(hosts[0].namespace.sh(LINKS)?, links);
    }
    hosts[0].attach(good)
}

#[test]
fn a_reused_address_is_not_stale() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let mesh = Network::new(1);
    join(&mesh, &mut hosts)?;
    let client = hosts[0].container(&mesh, 3)?;
    for last_byte in 1..=2 {
        let pod = Pod::new()?;
        let mut request = hosts[0].request(&mesh, 2, &pod.path);
        request.mac.0[5] = last_byte; // as of a user who chose it
        hosts[0].attach(request)?;
        let server = Server::start(&pod.path)?;
        for netns in [client.path(), &hosts[0].namespace.path] {
            assert!(
                reach(netns, "10.1.1.2".parse()?, server.port)?.is_some(),
                "{last_byte}"
            );
        }
        hosts[0].run(|runtime, _| runtime.block_on(detach("nv-1-2")))??;
    }
    Ok(())
}

#[test]
fn a_host_knows_its_routes_and_underlay() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    join(&Network::new(1), &mut hosts)?;
    hosts[0]
        .namespace
        .sh("ip route add 10.50.0.0/16 via 192.0.2.2; ip link set eth0 mtu 1400")?;
    let routes = hosts[0].run(|runtime, _| runtime.block_on(host_routes()))??;
    let expected = ["10.50.0.0/16", "192.0.2.0/24", "2001:db8::/64"];
    let shown: Vec<_> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected);

    let address = hosts[0].run(|runtime, _| runtime.block_on(default_underlay_address()))??;
    assert_eq!(address, hosts[0].address);
    let mtu = hosts[0].run(move |runtime, _| runtime.block_on(mtu_of_address(address)))??;
    assert_eq!(mtu, 1400);
    let absent =
        hosts[0].run(|runtime, _| runtime.block_on(mtu_of_address([9, 9, 9, 9].into())))?;
    assert_eq!(
        absent.expect_err("not ours").to_string(),
        "9.9.9.9 is no address of this host"
    );

    hosts[0].namespace.ip("addr add 198.51.100.1/24 dev eth0")?;
    let several = hosts[0].run(|runtime, _| runtime.block_on(default_underlay_address()))?;
    assert!(
        matches!(several, Err(UnderlayError::Several(_))),
        "{several:?}"
    );
    hosts[0]
        .namespace
        .ip("route add default via 198.51.100.2")?;
    let routed = hosts[0].run(|runtime, _| runtime.block_on(default_underlay_address()))??;
    assert_eq!(routed.to_string(), "198.51.100.1");
    hosts[1].namespace.ip("link set eth0 down")?;
    let none = hosts[1].run(|runtime, _| runtime.block_on(default_underlay_address()))?;
    assert!(matches!(none, Err(UnderlayError::None)), "{none:?}");
    Ok(())
}

#[tokio::test]
async fn a_namespace_that_cannot_be_made_leaves_no_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("net");
    std::fs::write(&path, "")?;
    let taken = NetNs::create(&path).await;
    assert!(
        matches!(taken, Err(CreateNetNsError::File { .. })),
        "{taken:?}"
    );
    let no_namespace = NetNs::open(&path);
    assert!(
        matches!(no_namespace, Err(OpenNetNsError::NotANamespace { .. })),
        "{no_namespace:?}"
    );
    NetNs::remove(&path)?;
    NetNs::remove(&path)?;
    let nowhere = directory.path().join("absent/net");
    assert!(NetNs::create(&nowhere).await.is_err());
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn every_feature_is_probed() {
    let probes = probe().await;
    assert_eq!(probes.len(), 6);
    for probe in probes {
        assert_eq!(
            probe.available,
            Ok(()),
            "{}: {}",
            probe.feature,
            probe.purpose
        );
    }
}

/// A daemon runs these on the workers of its runtime.
#[test]
fn what_is_awaited_may_move_between_threads() {
    fn is_send(_: impl Send) {}
    async fn reconciled(kernel: &mut nuncio_overlay::Kernel) {
        let _ = kernel
            .reconcile(&nuncio_overlay::HostState::default())
            .await;
        let _ = kernel.clear().await;
    }
    fn all(kernel: &mut nuncio_overlay::Kernel, request: &nuncio_overlay::AttachRequest) {
        is_send(reconciled(kernel));
        is_send(attach(request));
        is_send(detach("nv-1"));
        is_send(NetNs::create(Path::new("/run/netns/a")));
        is_send(host_routes());
        is_send(probe());
    }
    let _ = all;
}
