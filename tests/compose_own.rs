//! `nuncio compose`: the services of a file on one host, without another program.

mod support;

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Finished, Host, Image, NOTHING, Spawned, everything, single, tool};

const FILE: &str = r#"
services:
  web:
    image: busybox
    command: sh -c 'echo web serves $$GREETING; exec sleep 1000'
    init: true
    environment: {GREETING: "${GREETING:-hello}"}
    volumes: ["/cache", "data:/data:ro"]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  db:
    image: busybox
    command: [sh, -c, 'touch /data/ready; exec sleep 1000']
    init: true
    volumes: [data:/data]
    healthcheck: {test: test -f /data/ready, interval: 100ms, retries: 100}
  migrate:
    image: busybox
    command: sh -c 'echo migrated; exit ${CODE:-0}'
volumes: {data: {labels: {kept: 'no'}}}
"#;

struct Shop<'a>(&'a Host);

impl<'a> Shop<'a> {
    fn new(host: &'a Host, file: &str) -> Self {
        fs::write(host.scratch().join("shop.yml"), file).expect("write the file");
        Self(host)
    }

    fn command(&self, words: &str) -> Command {
        let path = self.0.scratch().join("shop.yml");
        let path = path.to_str().expect("a path in UTF-8");
        let before = ["compose", "-f", path, "-p", "shop"];
        let words: Vec<&str> = before.into_iter().chain(words.split(' ')).collect();
        self.0.client(&words[..])
    }

    #[track_caller]
    fn run(&self, words: &str) -> Finished {
        Spawned::new(self.command(words), None).finish()
    }

    /// Runs it with a variable set.
    #[track_caller]
    fn with(&self, name: &str, value: &str, words: &str) -> Finished {
        let mut command = self.command(words);
        command.env(name, value);
        Spawned::new(command, None).finish()
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        self.run(words).ok()
    }
}

fn id(host: &Host, name: &str) -> String {
    host.ok(["inspect", "-f", "{{.Id}}", name])
}

#[test]
fn services_come_up_in_order_change_and_go() {
    let host = single(&[Image::Busybox]);
    let shop = Shop::new(&host, FILE);
    let up = shop.run("up -d");
    assert_eq!(up.code, 0, "{up:?}");
    let [containers, networks, volumes] = everything(&host);
    assert_eq!(containers, ["shop-db-1", "shop-migrate-1", "shop-web-1"]);
    assert_eq!(networks, ["shop_default"]);
    assert!(
        volumes.contains(&"shop_data".to_owned()) && volumes.len() == 2,
        "{volumes:?}"
    );
    let at = |what: &str| {
        let at = up.stderr.find(what);
        at.unwrap_or_else(|| panic!("{what}: {up:?}"))
    };
    let web = at("Container shop-web-1  Created");
    assert!(at("Container shop-db-1  Started") < web);
    assert!(at("Container shop-migrate-1  Started") < web);
    host.ok("exec shop-web-1 ping -c 1 db");
    let logs = shop.ok("logs --no-color");
    assert!(logs.contains("web-1      | web serves hello"), "{logs}");
    assert_eq!(shop.ok("logs migrate"), "migrate-1  | migrated");
    assert_eq!(shop.ok("ps --services"), "db\nweb");
    assert_eq!(shop.ok("ps -a -q").lines().count(), 3);
    docker_compose_sees(
        &host,
        &["shop-db-1 db", "shop-migrate-1 migrate", "shop-web-1 web"],
    );
    changing_it(&host, &shop);
    shop.ok("down -v -t 0");
    host.ok("volume prune -f");
    assert_eq!(everything(&host), NOTHING);
}

/// Those of the project, as docker-compose lists them: it takes them for its own.
#[track_caller]
fn docker_compose_sees(host: &Host, expected: &[&str]) {
    let mut command = Command::new(tool("docker-compose-2"));
    command
        .args([
            "-p",
            "shop",
            "ps",
            "-a",
            "--format",
            "{{.Name}} {{.Service}}",
        ])
        .env("DOCKER_HOST", host.url())
        .env("DOCKER_CONFIG", host.scratch());
    let seen = Spawned::new(command, None).finish().ok();
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, expected);
}

/// Only what changed is made anew, and its anonymous volume goes over.
#[track_caller]
fn changing_it(host: &Host, shop: &Shop<'_>) {
    let before = ["shop-db-1", "shop-web-1"].map(|name| id(host, name));
    host.ok("exec shop-web-1 touch /cache/kept");
    shop.ok("up -d");
    let after = ["shop-db-1", "shop-web-1"].map(|name| id(host, name));
    assert_eq!(after, before);
    let changed = shop.with("GREETING", "bye", "up -d -t 0");
    assert_eq!(changed.code, 0, "{changed:?}");
    assert!(
        changed.stderr.contains("Container shop-web-1  Recreated"),
        "{changed:?}"
    );
    assert_eq!(id(host, "shop-db-1"), before[0]);
    assert_ne!(id(host, "shop-web-1"), before[1]);
    host.ok("exec shop-web-1 test -f /cache/kept");
    shop.ok("up -d -t 0 --scale web=2");
    assert_eq!(everything(host)[0].len(), 4);
    shop.ok("up -d -t 0 --force-recreate web");
    assert_eq!(everything(host)[0].len(), 3);
}

#[test]
fn what_does_not_come_up_is_told() {
    let host = single(&[Image::Busybox]);
    let shop = Shop::new(&host, FILE);
    let failed = shop.with("CODE", "7", "up -d");
    assert_eq!(failed.code, 1, "{failed:?}");
    let expected = r#"service web: dependency failed to start: service "migrate" didn't complete successfully: exit 7"#;
    assert!(failed.stderr.contains(expected), "{failed:?}");
    assert_eq!(everything(&host)[0], ["shop-db-1", "shop-migrate-1"]);
    shop.ok("down -v -t 0");
    for (text, expected) in [
        (
            "services: {a: {image: busybox, depends_on: [b]}, b: {image: busybox, depends_on: [a]}}",
            "dependency cycle detected: a -> b -> a",
        ),
        (
            "services: {a: {image: busybox, depends_on: [b]}}",
            r#"service "a" depends on undefined service "b""#,
        ),
        ("services: {a: {build: .}}", "service a: not built: build"),
        (
            "services: {a: {image: busybox, networks: [n]}}",
            r#"undefined network "n""#,
        ),
        (
            "services: {a: {image: busybox, networks: [n]}}\nnetworks: {n: {external: true}}",
            "network n declared as external, but could not be found",
        ),
        (
            "services:\n  a: {imagee: x}",
            "shop.yml:2: services.a Additional property imagee is not allowed",
        ),
    ] {
        let told = Shop::new(&host, text).run("up -d");
        assert_eq!(told.code, 1, "{text}: {told:?}");
        assert!(told.stderr.contains(expected), "{text}: {told:?}");
    }
    Shop::new(&host, FILE).ok("down -v");
    assert_eq!(everything(&host)[0], NOTHING[0]);
}

#[test]
fn who_stays_sees_what_is_printed_and_stops_it() {
    let host = single(&[Image::Busybox]);
    let shop = Shop::new(&host, FILE);
    let mut staying = Spawned::new(shop.command("up -t 1"), None);
    staying.until("web-1      | web serves hello");
    let pid = Pid::from_raw(staying.pid().try_into().expect("a process id"));
    kill(pid, Signal::SIGINT).expect("interrupt it");
    assert_eq!(staying.finish().code, 130);
    assert_eq!(host.ok("ps -q"), "");
    shop.ok("down -v");
    host.ok("volume prune -f");
    assert_eq!(everything(&host), NOTHING);
}
