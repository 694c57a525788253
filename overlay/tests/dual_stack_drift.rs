//! What somebody changes by hand of IPv6 is heard of and mended.

mod support;

use anyhow::Result;
use nuncio_overlay::Report;
use support::{Host, Network, Underlay, join};

/// All of IPv6 that the overlay may change.
fn picture(host: &Host) -> Result<String> {
    host.namespace.sh(
        "ip -o -6 addr show scope global | sed 's/^[0-9]*: //'; ip -6 route show table main | sed 's/ linkdown//' | grep -v ^fe80; ip -6 neigh show nud permanent; bridge fdb | grep permanent | grep -v '^33:33:'",
    )
}

#[test]
fn every_kind_of_drift_is_mended_and_counted() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    join(&Network::dual(1), &mut hosts)?;
    let host = &hosts[0];
    host.reconcile()?;
    let before = picture(host)?;
    assert_eq!(host.reconcile()?, Report::default());
    let hop = host
        .namespace
        .sh("ip -6 neigh show nud permanent dev nx-00000001 | cut -d' ' -f1")?;
    let hop = hop.trim();
    assert!(hop.starts_with("fe80::"), "{hop}");
    let removed = Report {
        removed: 1,
        ..Report::default()
    };
    let repaired = Report {
        repaired: 1,
        ..Report::default()
    };
    for (damage, expected) in [
        ("ip -6 route del fd00:1:0:0:2::/80".to_owned(), repaired),
        (
            "ip -6 route replace fd00:1:0:0:2::/80 via fe80::7 dev nx-00000001".to_owned(),
            repaired,
        ),
        (
            "ip -6 route replace fd00:1:0:0:2::/80 via 2001:db8::2 dev eth0".to_owned(),
            repaired,
        ),
        (
            "ip -6 route add fd00:77::/64 dev nx-00000001".to_owned(),
            removed,
        ),
        (format!("ip -6 neigh del {hop} dev nx-00000001"), repaired),
        (
            format!("ip -6 neigh replace {hop} lladdr 02:00:00:00:00:01 dev nx-00000001"),
            repaired,
        ),
        (
            "ip addr add fd00:9::9/128 dev nb-00000001 nodad".to_owned(),
            removed,
        ),
        ("ip addr del fd00:1:0:0:1::1/80 dev nb-00000001".to_owned(), repaired),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0".to_owned(), repaired),
        ("sysctl -qw net.ipv6.conf.nb-00000001.accept_ra=2".to_owned(), repaired),
        (
            "sysctl -qw net.ipv6.conf.nb-00000001.disable_ipv6=1 net.ipv6.conf.nx-00000001.disable_ipv6=1".to_owned(),
            repaired,
        ),
    ] {
        host.namespace.sh(&damage)?;
        let report = host.reconcile()?;
        assert!(report.changes() >= 1 && report.created == 0, "{damage}: {report:?}");
        // Much goes with an address, or with the whole family, and comes back with it.
        let much = damage.contains("addr del") || damage.contains("disable_ipv6");
        assert!(report == expected || much, "{damage}: {report:?}");
        assert_eq!(picture(host)?, before, "{damage}");
        assert_eq!(host.reconcile()?, Report::default(), "{damage}");
    }
    Ok(())
}

#[test]
fn a_change_of_ipv6_is_heard_of() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?, underlay.host()?];
    join(&Network::dual(1), &mut hosts)?;
    for damage in [
        "ip -6 route del fd00:1:0:0:2::/80",
        "ip -6 neigh flush nud permanent dev nx-00000001",
        "ip addr del fd00:1:0:0:1::1/80 dev nb-00000001",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
    ] {
        let namespace = hosts[0].namespace.path.clone();
        let heard = hosts[0].run(move |runtime, _| {
            runtime.block_on(async {
                let mut watch = nuncio_overlay::ChangeWatch::open().await?;
                watch.drain();
                support::sh_in(&namespace, damage)?;
                let heard = watch.changed();
                let limit = std::time::Duration::from_secs(20);
                anyhow::Ok(tokio::time::timeout(limit, heard).await.is_ok())
            })
        })??;
        assert!(heard, "{damage}");
        hosts[0].reconcile()?;
    }
    Ok(())
}

#[test]
fn a_host_that_begins_to_route_still_believes_its_router() -> Result<()> {
    let mut underlay = Underlay::new()?;
    let mut hosts = [underlay.host()?];
    let host = &hosts[0];
    host.namespace
        .sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=1")?;
    join(&Network::new(1), &mut hosts)?;
    let read = |host: &Host| {
        let settings = "net.ipv6.conf.all.forwarding net.ipv6.conf.eth0.accept_ra";
        host.namespace.sh(&format!("sysctl -n {settings} | xargs"))
    };
    assert_eq!(read(&hosts[0])?.trim(), "0 1", "nobody needs it");
    join(&Network::dual(2), &mut hosts)?;
    assert_eq!(read(&hosts[0])?.trim(), "1 2");
    Ok(())
}
