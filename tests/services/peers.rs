//! Two meshes with a registry each, and gateways between them.

use super::serve;
use super::support::{Host, Image, Underlay, wait_until};

/// A host of one mesh or the other, which is a gateway.
#[track_caller]
fn gateway(underlay: &Underlay, registry: Option<&Host>) -> Host {
    let host = underlay.host();
    let address = host.address.to_string();
    let registry = registry.map_or_else(|| "embedded".to_owned(), Host::registry_url);
    host.start(&["--registry", &registry, "--gateway-addr", &address]);
    host.load(Image::Busybox);
    host
}

/// Has `borrower` borrow from `lender` by a new token; that token.
#[track_caller]
fn pair(borrower: &Host, name: &str, lender: &Host) -> String {
    let token = lender.ok("peer token -q");
    let address = lender.address;
    borrower.ok(&format!("peer add {name} {address} --token {token}"));
    token
}

fn services(host: &Host) -> String {
    host.ok("service ls --catalog -q")
}

fn connected(host: &Host) -> String {
    host.ok("peer ls --format {{.Connected}}")
}

#[test]
fn a_service_is_lent_by_gateways_of_which_one_may_go() {
    let underlay = Underlay::new();
    let east = gateway(&underlay, None);
    let second = gateway(&underlay, Some(&east));
    let west = gateway(&underlay, None);
    let far = underlay.host();
    far.start(&["--registry", &west.registry_url()]);
    far.load(Image::Busybox);
    serve(&east, "shop", "--label SERVICE_TAGS=blue");
    serve(&east, "secret", "");
    for lender in [&east, &second] {
        assert_eq!(lender.ok("peer export shop"), "shop");
    }
    let token = pair(&west, "east", &east);
    pair(&west, "east", &second);
    wait_until("it is known on all hosts", || services(&far) == "shop.east");
    // Under the gateway's ports; 80 is the container's own.
    let port = far.ok("service ls --catalog --format {{.Ports}}");
    let port = port.trim_end_matches("/tcp");
    let ask = format!("socat -u TCP4:shop:{port},connect-timeout=5 -");
    let run = format!("run --rm --link shop.east:shop busybox {ask}");
    let says = || far.nuncio(&run).stdout.trim().to_owned();
    wait_until("it answers", || says().starts_with("shop "));
    assert_eq!(connected(&west), "2/2");
    let shown = far.ok("service inspect shop.east");
    assert!(
        shown.contains("\"imported\"") && shown.contains("\"Peer\": \"east\""),
        "{shown}"
    );

    // A token lets in one gateway, once; and what is not lent is not to be had.
    let again = west.nuncio(&format!("peer add other {} --token {token}", east.address));
    let again = again.refused(1);
    assert!(again.contains("the token is used up"), "{again}");
    let wrong = format!(
        "peer add other {} --token {}",
        second.address,
        east.ok("peer token -q")
    );
    let wrong = west.nuncio(&wrong).refused(1);
    assert!(
        wrong.contains("is not the gateway that made the token, and was told nothing"),
        "{wrong}"
    );
    let plain = far.reads(&east.address.to_string(), 2391);
    assert_eq!(plain, "", "without a key nobody is let in");
    let none = far.nuncio("peer ls").refused(1);
    assert!(
        none.contains("start its daemon with --gateway-addr"),
        "{none}"
    );

    // One gateway dies with its ambassador: the other one carries on.
    second.crash();
    for _ in 0..5 {
        wait_until("the other one answers", || says().starts_with("shop "));
    }
    wait_until("it is missed", || connected(&west) == "1/2");
    // The borrowing daemon may go too, for a while.
    west.kill_daemon();
    assert!(says().starts_with("shop "), "the ambassador carries on");
    west.start_again();
    wait_until("it is followed again", || connected(&west) == "1/2");
    assert_eq!(services(&far), "shop.east");

    // What ends in one mesh ends in the other, and comes back.
    east.ok("stop -t 1 shop");
    wait_until("it is withdrawn", || services(&far).is_empty());
    east.ok("start shop");
    wait_until("it is back", || services(&far) == "shop.east");
    east.ok("peer unexport shop");
    wait_until("it is lent no more", || services(&far).is_empty());
    east.ok("peer export shop");
    wait_until("it is lent again", || services(&far) == "shop.east");
    // Who is forgotten gets nothing, not even by what it knew.
    east.ok("peer rm host-3");
    wait_until("west is not told any more", || connected(&west) == "0/2");
    wait_until("nothing is borrowed", || services(&far).is_empty());
    pair(&west, "east", &east);
    wait_until("it is lent by a new token", || {
        services(&far) == "shop.east"
    });
    // A borrowing gateway that dies takes along what it brought in.
    west.ok("peer rm east");
    wait_until("it is given back", || services(&far).is_empty());
}
