//! What is registered: containers as Registrator would, what nuncio does not run, and the names and the catalog of both.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::support::{Host, Image, Spawned, Underlay, single, wait_until};
use super::{ASK, address, ask_until, only, resolve, serve};

/// Serves `says` to whoever connects to a port of the host itself.
#[track_caller]
fn serve_on_host(host: &Host, port: u16, says: &str) -> Spawned {
    // Who only looks whether it listens resets the connection.
    let script = format!(
        "import socket\ns = socket.create_server(('{}', {port}))\nprint('listens', flush=True)\n\
         while True:\n  c, _ = s.accept()\n  try: c.sendall(b'{says}\\n')\n  except OSError: pass\n  c.close()",
        host.address
    );
    let mut server = host.spawn_inside("python3", ["-c", &script]);
    server.until("listens");
    server
}

/// What the host's own name server says of a name.
fn dig(host: &Host, words: &str) -> BTreeSet<String> {
    let query = format!("+short +time=5 +tries=1 -p 5353 @127.0.0.1 {words}");
    let said = host.inside("dig", &query).stdout;
    said.lines().map(str::to_owned).collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses
        .iter()
        .map(|&address| address.to_owned())
        .collect()
}

/// A service as the API of a host tells it.
fn inspected(host: &Host, name: &str) -> serde_json::Value {
    let told = host.nuncio(["service", "inspect", name]);
    let services = serde_json::from_str::<Vec<serde_json::Value>>(&told.stdout);
    services.unwrap_or_default().pop().unwrap_or_default()
}

/// Two hosts of one mesh that tell names of services to whoever is on them.
fn named_cluster() -> [Host; 2] {
    let underlay = Underlay::new();
    let [a, b] = [underlay.host(), underlay.host()];
    let dns = ["--dns-addr", "127.0.0.1:5353"];
    a.start(&["--registry", "embedded", dns[0], dns[1]]);
    b.start(&["--registry", &a.registry_url(), dns[0], dns[1]]);
    [&a, &b].iter().for_each(|host| host.load(Image::Busybox));
    [a, b]
}

#[test]
fn what_registrator_would_register_is_found_as_long_as_it_is_well() {
    let [a, b] = named_cluster();
    a.ok("network create -d overlay mesh");
    let check = "--health-interval 100ms --health-retries 2 --health-cmd";
    let sick = format!("{check} /well.sh --network mesh -e SERVICE_NAME=Echo");
    serve(
        &a,
        "one",
        &format!("{sick} -e SERVICE_TAGS=blue,first -e SERVICE_5300_IGNORE=1"),
    );
    let labels = "--network mesh --label SERVICE_80_NAME=echo --label SERVICE_80_TAGS=green";
    serve(&b, "two", labels);
    serve(
        &b,
        "three",
        "--network mesh -e SERVICE_NAME=echo -e SERVICE_IGNORE=yes",
    );
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    let [one, two] = [address(&a, "one", "mesh"), address(&b, "two", "mesh")];
    // It does not pass its check yet.
    ask_until(&b, "client", ASK, &["two"]);
    let make = "printf '#!/bin/sh\ntest -e /well\n' >/well.sh; chmod +x /well.sh; touch /well";
    a.ok(["exec", "one", "sh", "-c", make]);
    ask_until(&b, "client", ASK, &["one", "two"]);
    wait_until("names have tags", || {
        dig(&b, "echo.service.nuncio") == set(&[&one, &two])
            && dig(&b, "blue.echo.service.nuncio") == set(&[&one])
            && dig(&a, "GREEN.Echo.service.nuncio") == set(&[&two])
    });
    // With ports: of one of them UDP is not the service's.
    let ports: Vec<_> = dig(&b, "SRV echo.service.nuncio").into_iter().collect();
    assert_eq!(ports.len(), 2, "{ports:?}");
    assert!(
        ports.iter().all(|port| port.starts_with("0 0 80 ")),
        "{ports:?}"
    );
    let target = ports[0].rsplit(' ').next().expect("a target");
    assert_eq!(dig(&b, target).len(), 1, "{target}");
    // In containers as on hosts, by the service's address; and nobody else's names are told.
    let inside = resolve(&b, "client", "echo.service.nuncio");
    assert_eq!(inside, resolve(&b, "client", "echo"));
    assert_eq!(
        resolve(&b, "client", "blue.echo.service.nuncio"),
        only(&one)
    );
    let other = b
        .inside("dig", "+time=5 +tries=1 -p 5353 @127.0.0.1 example.org")
        .stdout;
    assert!(other.contains("status: REFUSED"), "{other}");
    let nobody = "+time=5 +tries=1 -p 5353 @127.0.0.1 nobody.service.nuncio";
    let nobody = b.inside("dig", nobody).stdout;
    assert!(nobody.contains("status: NXDOMAIN"), "{nobody}");
    assert!(
        inspected(&a, "three").is_null(),
        "neither here nor elsewhere"
    );
    assert!(
        inspected(&b, "three").is_null(),
        "it wants to be found by nobody"
    );

    // Who falls ill is out of names and connections, and shown as such.
    a.ok("exec one rm /well");
    ask_until(&b, "client", ASK, &["two"]);
    wait_until("its names are gone", || {
        dig(&b, "echo.service.nuncio") == set(&[&two])
            && dig(&b, "blue.echo.service.nuncio").is_empty()
    });
    let shown = inspected(&b, "echo");
    let ill = shown["Endpoints"].as_array().into_iter().flatten();
    let ill: Vec<_> = ill.filter(|one| one["Health"] == "unhealthy").collect();
    assert_eq!(ill.len(), 1, "{shown}");
    assert_eq!(ill[0]["Container"], "one");
    assert_eq!(ill[0]["Address"], one.as_str());
    assert_eq!(b.ok("service ls --healthy --tag blue -q"), "");
    assert_eq!(b.ok("service ls --tag blue --node host-1 -q"), "echo");
    // Its host's next daemon does not take it for well in the meantime.
    a.kill_daemon();
    a.start_again();
    assert_eq!(dig(&a, "echo.service.nuncio"), set(&[&two]));
    a.ok("exec one touch /well");
    ask_until(&b, "client", ASK, &["one", "two"]);
}

#[test]
fn members_are_checked_as_their_labels_say() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    let pace =
        "--label nuncio.service.check.interval=100ms --label nuncio.service.check.timeout=2s";
    let http = |name: &str, check: &str| {
        let script = "mkdir /www; httpd -f -p 80 -h /www";
        let flags = format!(
            "run -d --name {name} --expose 80 {pace} --network mesh --label nuncio.service=web --label"
        );
        let words: Vec<&str> = flags.split_whitespace().collect();
        let rest = [check, "busybox", "sh", "-c", script];
        host.ok(&[&words[..], &rest[..]].concat()[..]);
    };
    http("one", "nuncio.service.check=http:/ready");
    http("two", "nuncio.service.check=cmd:test -e /www/ready");
    http("three", "nuncio.service.check=tcp");
    let health = |name: &str| host.ok(["inspect", "-f", "{{.State.Health.Status}}", name]);
    wait_until("one and two are not ready", || {
        ["one", "two"]
            .iter()
            .all(|name| health(name) == "unhealthy")
            && health("three") == "healthy"
    });
    host.ok("run -d --name client --network mesh busybox sleep 1000");
    let members = |names: &[&str]| -> BTreeSet<String> {
        names
            .iter()
            .map(|name| address(&host, name, "mesh"))
            .collect()
    };
    wait_until("one is found", || {
        resolve(&host, "client", "tasks.web") == members(&["three"])
    });
    for name in ["one", "two"] {
        host.ok(["exec", name, "touch", "/www/ready"]);
    }
    wait_until("all are found", || {
        resolve(&host, "client", "tasks.web") == members(&["one", "two", "three"])
    });
    let wrong = "run --rm --label nuncio.service.check=icmp busybox true";
    let refusal = host.nuncio(wrong).refused(125);
    assert!(
        refusal.contains("expected tcp, http:/PATH, or cmd:COMMAND"),
        "{refusal}"
    );
}

#[test]
fn what_nuncio_does_not_run_is_linked_to_named_and_checked() {
    let [a, b] = named_cluster();
    let underlay = a.underlay().clone();
    let outside = underlay.host(); // no daemon
    let first = serve_on_host(&outside, 6379, "first");
    let second = serve_on_host(&outside, 6380, "second");
    let at = outside.address;
    let places = format!("tcp://{at}:6379,{at}:6380");
    a.ok(&format!(
        "service register redis {places} --tag primary --check tcp --interval 200ms --timeout 5s"
    ));
    // Known on all hosts: by links of the default network, by name, and by ambassadors.
    let ask = |port: u16| format!("socat -u TCP4:cache:{port},connect-timeout=5 -");
    let says = |host: &Host, port: u16| {
        host.nuncio(&format!(
            "run --rm --link redis:cache busybox {}",
            ask(port)
        ))
        .stdout
    };
    assert_eq!(
        (says(&b, 6379).trim(), says(&b, 6380).trim()),
        ("first", "second")
    );
    b.ok("network create mesh");
    b.ok("run -d --name client --network mesh --link redis:cache busybox sleep 1000");
    let known = set(&[&at.to_string()]);
    for name in [
        "redis",
        "cache",
        "redis.service.nuncio",
        "primary.redis.service.nuncio",
    ] {
        wait_until(&format!("{name} is known"), || {
            resolve(&b, "client", name) == known
        });
    }
    assert_eq!(dig(&b, "primary.redis.service.nuncio"), known);
    assert_eq!(dig(&b, "SRV redis.service.nuncio").len(), 2);
    let nuncio = env!("CARGO_BIN_EXE_nuncio");
    let ambassador = format!(
        "{nuncio} ambassador --listen tcp://127.0.0.1:7000 --to service://redis --registry {}",
        a.registry_url()
    );
    let _ambassador = b.spawn_inside("env", &ambassador);
    let answers = || -> BTreeSet<String> { (0..6).map(|_| b.reads("127.0.0.1", 7000)).collect() };
    wait_until("both answer", || answers() == set(&["first", "second"]));

    // One that fails its check is led to by nobody, and shown with the reason.
    drop(second);
    wait_until("the second is left out", || answers() == set(&["first"]));
    wait_until("it is shown", || {
        let shown = inspected(&b, "redis");
        let ill = shown["Endpoints"].as_array().into_iter().flatten();
        let ill: Vec<_> = ill.filter(|one| one["Health"] == "unhealthy").collect();
        ill.len() == 1
            && ill[0]["Fault"]
                .as_str()
                .is_some_and(|why| why.contains("refused"))
    });
    // Whoever looks at it may go: another one does.
    a.ok("service register other tcp://192.0.2.1:1");
    drop(first);
    wait_until("nobody is left", || {
        b.ok("service ls --healthy -q") == "other" && dig(&b, "redis.service.nuncio").is_empty()
    });

    for (words, why) in [
        ("service register x http://a:1", "unknown scheme \"http\""),
        ("service register x tcp://a:99999", "a port from 1 to 65535"),
        (
            "service register client tcp://a:1",
            "is taken by container client",
        ),
        ("service deregister nobody", "no such external service"),
        ("service inspect nobody", "no such service"),
    ] {
        let refusal = b.nuncio(words).refused(1);
        assert!(refusal.contains(why), "{words}: {refusal}");
    }
    a.ok("service deregister redis other");
    wait_until("it is gone", || {
        b.ok("service ls --catalog -q --format {{.Name}}")
            .is_empty()
    });
    assert!(resolve(&b, "client", "redis").is_empty());
}

#[test]
fn a_host_is_told_what_it_can_reach_and_its_daemon_may_go() {
    let [a, b] = named_cluster();
    serve(&a, "web", "");
    let web: Ipv4Addr = a
        .ok("inspect -f {{.NetworkSettings.IPAddress}} web")
        .parse()
        .expect("an address");
    let known = set(&[&web.to_string()]);
    wait_until("its name is told", || {
        dig(&b, "web.service.nuncio") == known
    });
    assert!(b.reads(&web.to_string(), 80).starts_with("web "));
    b.ok("run -d --name keeper busybox sleep 1000");
    b.kill_daemon();
    assert_eq!(
        dig(&b, "web.service.nuncio"),
        known,
        "the ambassador answers"
    );
    let tcp = dig(&b, "+tcp web.service.nuncio");
    assert_eq!(tcp, known);
    b.start_again();
    a.kill_daemon();
    wait_until("the catalog is stale", || {
        b.nuncio("service ls").stderr.contains("may be out of date")
    });
    assert_eq!(dig(&b, "web.service.nuncio"), known);
}
