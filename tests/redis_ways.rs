//! Redis on one host and its client on another, three ways. Each proves which server answered.

mod support;

use support::{Host, Image, cluster, wait_until};

/// Starts a redis and waits until it serves.
fn serve(host: &Host, name: &str, flags: &str) {
    host.ok(&format!("run -d --name {name} {flags} redis"));
    wait_until("redis answers", || {
        host.nuncio(["exec", name, "redis-cli", "ping"])
            .stdout
            .trim()
            == "PONG"
    });
}

/// Has `client`'s containers, run with `flags`, reach at `alias` the redis in `container` on `server`, and no other.
fn prove(client: &Host, flags: &str, alias: &str, server: &Host, container: &str) {
    let ask = |words: &str| {
        client.ok(&format!(
            "run -i --rm {flags} redis redis-cli -h {alias} {words}"
        ))
    };
    let asked_there = |words: &str| server.ok(&format!("exec {container} redis-cli {words}"));

    assert_eq!(ask("ping"), "PONG");
    assert_eq!(ask("set colour green"), "OK");
    assert_eq!(asked_there("get colour"), "green");
    assert_eq!(asked_there("set shape round"), "OK");
    assert_eq!(ask("get shape"), "round");

    let run_id = |info: String| {
        info.lines()
            .find_map(|line| line.strip_prefix("run_id:"))
            .map(str::to_owned)
    };
    let here = run_id(ask("info server"));
    assert!(here.is_some());
    assert_eq!(here, run_id(asked_there("info server")));
}

#[test]
fn the_classic_ambassador_chain() {
    let [a, b] = cluster(&[Image::Redis]);
    serve(&a, "redis-server", "");
    a.ok("run -d --link redis-server:redis --name redis_ambassador -p 6379:6379 nuncio/ambassador");
    let target = format!("REDIS_PORT_6379_TCP=tcp://{}:6379", a.address);
    b.ok(&format!(
        "run -d --name redis_ambassador --expose 6379 -e {target} nuncio/ambassador"
    ));
    prove(
        &b,
        "--link redis_ambassador:redis",
        "redis",
        &a,
        "redis-server",
    );
}

#[test]
fn the_old_name_of_the_ambassador_image() {
    let [a, b] = cluster(&[Image::Redis]);
    serve(&a, "store", "-p 7000:6379");
    let target = format!("STORE_PORT_6379_TCP=tcp://{}:7000", a.address);
    b.ok(&format!(
        "run -d --name far --expose 6379 -e {target} svendowideit/ambassador"
    ));
    prove(&b, "--link far:store", "store", &a, "store");
}

#[test]
fn a_link_to_a_container_on_another_host() {
    let [a, b] = cluster(&[Image::Redis]);
    serve(&a, "redis-server", "");
    prove(&b, "--link redis-server:redis", "redis", &a, "redis-server");
    prove(
        &b,
        "--link redis-server",
        "redis-server",
        &a,
        "redis-server",
    );

    let environment = b.ok("run --rm --link redis-server:redis redis env");
    for (name, value) in [
        ("REDIS_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
    ] {
        assert!(
            environment
                .lines()
                .any(|line| line == format!("{name}={value}")),
            "{environment}"
        );
    }
}

#[test]
fn an_overlay_network() {
    let [a, b] = cluster(&[Image::Redis]);
    b.ok("network create -d overlay mesh");
    serve(&a, "db", "--network mesh");
    prove(&b, "--network mesh", "db", &a, "db");
    serve(&b, "cache", "--network mesh");
    prove(&a, "--network mesh", "cache", &b, "cache");
}

#[test]
fn a_link_follows_its_target_when_that_starts_again() {
    let [a, b] = cluster(&[Image::Redis]);
    serve(&a, "redis-server", "");
    b.ok("run -d --name client --link redis-server:redis redis sleep 1000");
    let ping = || {
        b.nuncio("exec client redis-cli -h redis ping")
            .stdout
            .trim()
            == "PONG"
    };
    wait_until("the link works", ping);
    a.ok("stop -t 2 redis-server");
    a.ok("run -d --name filler redis"); // takes an address in between
    a.ok("start redis-server");
    wait_until("the link works again", ping);
}
