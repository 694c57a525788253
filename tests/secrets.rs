//! Secrets and configs of services, by docker's own client: in their containers, and nowhere else.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Host, Image, Spawned, Underlay, cluster, guarded_registry, wait_until};

/// What is to be found in containers only.
const CONTENT: &str = "the-word-that-nobody-else-knows";
/// The same as the registry would have it in base64, wherever in a text it began.
const ENCODED: &str = "dGhlLXdvcmQtdGhhdC1ub2JvZHktZWxzZS1rbm93cw";

#[track_caller]
fn docker(host: &Host, words: &str) -> String {
    host.docker(words).ok()
}

/// Makes a secret or config of what docker's client reads.
#[track_caller]
fn make(host: &Host, words: &str, content: &str) -> String {
    let made = Spawned::new(host.docker_client(words), Some(content.as_bytes())).finish();
    made.ok()
}

#[track_caller]
fn refused(host: &Host, words: &str, error: &str) {
    let told = host.docker(words);
    assert!(told.code != 0 && told.stderr.contains(error), "{told:?}");
}

/// The container of the service's only task, once it runs on that host.
#[track_caller]
fn container(host: &Host, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let mut found = String::new();
    wait_until(&format!("{service} runs"), || {
        let words = ["ps", "-q", "--no-trunc", "--filter", &filter];
        found = host.docker(words).stdout.trim().to_owned();
        !found.is_empty()
    });
    found
}

#[track_caller]
fn inside(host: &Host, container: &str, line: &str) -> String {
    host.docker(["exec", container, "sh", "-c", line]).ok()
}

/// The file systems in memory that a host has for secrets.
fn laid(host: &Host) -> usize {
    let place = host.exec_root().join("files");
    let mounts = host.remains().mounts();
    mounts.iter().filter(|at| at.starts_with(&place)).count()
}

fn is_below(directory: &Path, text: &str) -> bool {
    let mut grep = Command::new("grep");
    let found = grep.args(["-rqa", "-D", "skip", "--", text]).arg(directory);
    found.status().expect("grep runs").success()
}

/// All that the registry of this host has.
#[track_caller]
fn registered(host: &Host) -> String {
    let url = format!("--endpoints={}", host.registry_url());
    let words = ["etcdctl", &url, "get", "--prefix", "/nuncio/"];
    host.inside("env", words).ok()
}

#[test]
fn secrets_and_configs_are_files_of_their_tasks_and_nowhere_else() {
    let hosts = cluster::<2>(&[Image::Busybox]);
    let [a, b] = &hosts;
    make(a, "secret create --label a=b password -", CONTENT);
    make(b, "config create page -", "<h1>");
    let words = "service create -d --name web --constraint node.hostname==host-2 \
         --secret password --secret source=password,target=/etc/own,uid=5,gid=6,mode=0400 \
         --config page --config source=page,target=/www/index.html,uid=7,gid=8,mode=0440 busybox sleep 1000";
    docker(a, words);
    let web = container(b, "web");
    assert_eq!(inside(b, &web, "cat /run/secrets/password"), CONTENT);
    assert_eq!(inside(b, &web, "cat /etc/own"), CONTENT);
    assert_eq!(inside(b, &web, "cat /page /www/index.html"), "<h1><h1>");
    let stat = "stat -c '%u %g %a' /run/secrets/password /etc/own /page /www/index.html";
    assert_eq!(inside(b, &web, stat), "0 0 444\n5 6 400\n0 0 444\n7 8 440");
    let mounts = inside(b, &web, "cat /proc/mounts");
    for at in [
        "/run/secrets/password",
        "/etc/own",
        "/page",
        "/www/index.html",
    ] {
        let is_there = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            words[1] == at && words[2] == "tmpfs" && words[3].split(',').any(|it| it == "ro")
        };
        assert!(mounts.lines().any(is_there), "{at}: {mounts}");
    }
    let told = b.docker(["exec", &web, "sh", "-c", "echo x >/etc/own"]);
    assert!(told.stderr.contains("Read-only file system"), "{told:?}");

    // Nobody else has it.
    let registry = registered(a);
    assert!(registry.contains("/nuncio/v1/") && registry.contains("password"));
    let inspected = docker(b, &format!("inspect {web}"));
    let shown = docker(a, "secret inspect password") + &docker(a, "service inspect web");
    for text in [CONTENT, ENCODED] {
        assert!(!registry.contains(text), "the registry has it in clear");
        assert!(!inspected.contains(text) && !shown.contains(text));
        for host in &hosts {
            assert!(!is_below(&host.data_root(), text), "it is on a disk");
            assert!(!host.log().contains(text), "it is told");
        }
    }
    let mounts: Value = serde_json::from_str(&inspected).unwrap_or_default();
    assert_eq!(mounts[0]["Mounts"], serde_json::json!([]), "{inspected}");
    assert!(is_below(&b.data_root(), "page"), "and one would find it");

    // A daemon that ends leaves it there, and one that begins finds it.
    b.kill_daemon();
    b.start_again();
    assert_eq!(inside(b, &web, "cat /run/secrets/password"), CONTENT);
    docker(a, "service rm web");
    wait_until("nothing is left of it", || {
        b.docker("ps -aq").stdout.is_empty() && laid(b) == 0
    });
    assert_eq!(docker(a, "secret rm password"), "password");
    assert_eq!(docker(b, "config rm page"), "page");
    assert!(!registered(a).contains("password"));
}

#[test]
fn what_is_used_stays_and_what_is_wrong_is_refused() {
    let [a] = &cluster::<1>(&[Image::Busybox]);
    let id = make(a, "secret create password -", CONTENT);
    make(a, "config create page -", "<h1>");
    let told = Spawned::new(a.docker_client("secret create password -"), Some(b"x")).finish();
    let taken = "rpc error: code = AlreadyExists desc = secret password already exists";
    assert!(told.stderr.contains(taken), "{told:?}");
    for (words, content, error) in [
        ("secret create a/b -", "x", "invalid name"),
        (
            "config create --template-driver golang t -",
            "x",
            "not built: config templating driver \"golang\"",
        ),
        (
            "secret create -d vault v",
            "",
            "not built: secret driver \"vault\"",
        ),
    ] {
        let told = Spawned::new(a.docker_client(words), Some(content.as_bytes())).finish();
        assert!(told.code != 0 && told.stderr.contains(error), "{told:?}");
    }
    let big = "x".repeat(500 << 10);
    let told = Spawned::new(a.docker_client("secret create big -"), Some(big.as_bytes())).finish();
    assert!(told.stderr.contains("less than 512000 bytes"), "{told:?}");
    make(a, "secret create large -", &big[1..]);
    for number in 0..6 {
        make(
            a,
            &format!("config create large-{number} -"),
            &"y".repeat(1_000_000),
        );
    }

    let words = "service create -d --name web --secret password --secret large --config page busybox sleep 1000";
    docker(a, words);
    let web = container(a, "web");
    assert_eq!(inside(a, &web, "wc -c </run/secrets/large"), "511999");
    refused(
        a,
        "secret rm password",
        "rpc error: code = InvalidArgument desc = secret 'password' is in use by the following service: web",
    );
    refused(
        a,
        "config rm page",
        "config 'page' is in use by the following service: web",
    );
    refused(a, "secret rm nosuch", "secret nosuch not found");
    refused(
        a,
        "service create -d --secret nosuch busybox true",
        "secret not found: nosuch",
    );
    assert_eq!(docker(a, "secret ls -q --filter name=pass"), id);
    assert_eq!(docker(a, "secret ls -q --filter label=x"), "");
    // All that is wanted is known to a daemon that begins, however much it is.
    a.kill_daemon();
    let snapshot = a.data_root().join("catalog.json"); // it may not have been written yet
    let removed = std::fs::remove_file(&snapshot);
    assert!(removed.is_ok() || !snapshot.exists(), "{removed:?}");
    a.start_again();
    wait_until("all are listed", || {
        docker(a, "config ls -q").lines().count() == 7
    });
    docker(a, "service update -d --secret-rm password web");
    assert_eq!(docker(a, "secret rm password"), "password");
}

#[test]
fn labels_change_and_nothing_else() {
    let [a] = &cluster::<1>(&[]);
    let id = make(a, "config create page -", "<h1>");
    let ask = |path: &str, body: &str| {
        let socket = a.exec_root().join("nuncio.sock").display().to_string();
        let url = format!("http://localhost/configs/{path}");
        let header = "Content-Type: application/json";
        let words = [
            "-s",
            "--unix-socket",
            &socket,
            "-H",
            header,
            "-d",
            body,
            &url,
        ];
        a.inside("curl", words).ok()
    };
    let update = format!("{id}/update?version=1");
    let told = ask(&update, r#"{"Name": "other"}"#);
    assert!(
        told.contains("only updates to Labels are allowed"),
        "{told}"
    );
    let told = ask(&update, r#"{"Name": "page", "Data": "eA=="}"#);
    assert!(
        told.contains("only updates to Labels are allowed"),
        "{told}"
    );
    assert_eq!(
        ask(&update, r#"{"Name": "page", "Labels": {"a": "b"}}"#),
        ""
    );
    let told = ask(&update, r#"{"Name": "page"}"#);
    assert!(told.contains("update out of sequence"), "{told}");
    let shown: Value = serde_json::from_str(&docker(a, "config inspect page")).unwrap_or_default();
    assert_eq!(shown[0]["Spec"]["Labels"], serde_json::json!({"a": "b"}));
    assert_eq!(shown[0]["Spec"]["Data"], "PGgxPg==");
    assert_eq!(shown[0]["Version"]["Index"], 2);
}

#[test]
fn a_host_that_joins_later_is_given_what_there_is() {
    let underlay = Underlay::new();
    let hosts: [Host; 3] = std::array::from_fn(|_| underlay.host());
    let [a, b, c] = &hosts;
    a.start(&["--registry", "embedded"]);
    b.start(&["--registry", &a.registry_url()]);
    make(a, "secret create password -", CONTENT);
    c.start(&["--registry", &a.registry_url()]);
    c.load(Image::Busybox);
    let words = "service create -d --name web --constraint node.hostname==host-3 --secret password busybox sleep 1000";
    docker(b, words);
    let web = container(c, "web");
    assert_eq!(inside(c, &web, "cat /run/secrets/password"), CONTENT);
    wait_until("the host remembers it", || {
        let known = std::fs::read_to_string(c.data_root().join("catalog.json")).unwrap_or_default();
        ["desired/secrets/", "tasks/"]
            .iter()
            .all(|key| known.contains(key))
    });
    // Without the registry what runs keeps what it has, over a new daemon and a new start.
    a.kill_daemon();
    c.kill_daemon();
    c.start_again();
    assert_eq!(inside(c, &web, "cat /run/secrets/password"), CONTENT);
    docker(c, &format!("restart -t 0 {web}"));
    assert_eq!(inside(c, &web, "cat /run/secrets/password"), CONTENT);
    a.start_again();
    docker(b, "service rm web");
    wait_until("nothing is left of it", || laid(c) == 0);
}

/// What is told of the service's tasks.
fn tasks(host: &Host, service: &str) -> String {
    let format = "{{.Image}} {{.DesiredState}} {{.CurrentState}} {{.Error}}";
    let words = ["service", "ps", "--no-trunc", "--format", format, service];
    host.docker(words).stdout
}

#[test]
fn a_services_account_at_a_registry_is_the_hosts_alone() {
    let underlay = Underlay::new();
    let [a, b, c] = std::array::from_fn(|_| underlay.host());
    let url = a.registry_url();
    let start = |host: &Host, registry: &str| {
        host.start(&[
            "--registry",
            registry,
            "--insecure-registry",
            "198.18.0.0/24",
        ]);
    };
    start(&a, "embedded");
    start(&b, &url);
    a.load(Image::Busybox);
    let server = format!("{}:5000", a.address);
    let _registry = guarded_registry(&a, &a.address.to_string());
    docker(&a, &format!("login -u me -p U*U {server}"));
    for tag in ["1", "2", "3"] {
        docker(&a, &format!("tag busybox {server}/tools:{tag}"));
        docker(&a, &format!("push -q {server}/tools:{tag}"));
    }
    docker(&a, "image prune -af");

    // Nobody's account is not enough; the one that is sent is every host's.
    let create =
        "service create -d --name all --mode global --no-resolve-image --restart-delay 100ms";
    docker(
        &a,
        &format!("{create} --stop-grace-period 1s {server}/tools:1 sleep 1000"),
    );
    wait_until("it is refused", || {
        tasks(&a, "all").lines().any(|line| {
            line.contains("Rejected") && line.contains("pull image") && line.contains("denied")
        })
    });
    docker(
        &a,
        "service update -d --no-resolve-image --with-registry-auth all",
    );
    container(&a, "all");
    container(&b, "all");
    let told = docker(&a, "service inspect all") + &registered(&a);
    // How the account begins in base64, as it is sent.
    let sent = "eyJ1c2VybmFtZSI6Im1l";
    for host in [&a, &b] {
        assert!(!is_below(&host.data_root(), sent), "it is on a disk");
        for text in [sent, "U*U"] {
            assert!(!told.contains(text) && !host.log().contains(text));
        }
    }

    // It is kept where none is sent.
    let update = "service update -d --no-resolve-image --update-monitor 100ms";
    docker(&b, &format!("{update} --image {server}/tools:2 all"));
    let runs = |tag: &str, number: usize| {
        let is = format!("{server}/tools:{tag} Running Running");
        wait_until(&format!("{number} run of {tag}"), || {
            let told = tasks(&a, "all");
            told.lines().filter(|line| line.starts_with(&is)).count() == number
        });
    };
    runs("2", 2);

    // Who sends a wrong one is refused, and back is with the right one: also for a host that joins.
    let wrong = format!(r#"{{"auths": {{"{server}": {{"auth": "bWU6d3Jvbmc="}}}}}}"#);
    std::fs::write(a.scratch().join("config.json"), wrong).expect("write the accounts");
    docker(
        &a,
        &format!("{update} --with-registry-auth --image {server}/tools:3 all"),
    );
    wait_until("the wrong one is refused", || {
        let is_rejected = |line: &str| {
            line.contains("tools:3") && line.contains("Rejected") && line.contains("pull image")
        };
        tasks(&a, "all").lines().any(is_rejected)
    });
    docker(&b, "service rollback -d all");
    start(&c, &url);
    runs("2", 3);
}
