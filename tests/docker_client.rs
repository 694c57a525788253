//! The real docker client, on nuncio's socket.

mod support;

use support::{Host, Image, cluster, single, wait_until};

/// Runs a docker command that succeeds.
#[track_caller]
fn docker(host: &Host, words: &str) -> String {
    host.docker(words).ok()
}

#[test]
fn versions_and_images() {
    let host = single(&[]);
    assert!(docker(&host, "version --format {{.Server.APIVersion}}").starts_with("1."));
    let archive = Image::Busybox.archive();
    let loaded = host
        .docker(["load", "-i", archive.to_str().expect("a path in UTF-8")])
        .ok();
    assert!(loaded.contains("busybox:latest"), "{loaded}");
    assert_eq!(
        docker(&host, "images --format {{.Repository}}:{{.Tag}}"),
        "busybox:latest"
    );
    docker(&host, "info");
}

#[test]
fn run_and_its_exit_status() {
    let host = single(&[Image::Busybox]);
    assert_eq!(docker(&host, "run --rm busybox echo hello"), "hello");
    assert_eq!(
        host.docker([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo err >&2; exit 42"
        ])
        .code,
        42
    );
    assert_eq!(host.docker("run --rm busybox nosuch").code, 127);
    assert_eq!(host.docker("run --rm busybox /etc").code, 126);
    assert_eq!(
        host.docker("run --rm --link nobody:db busybox true").code,
        125
    );
    assert_eq!(docker(&host, "ps -aq"), "");
}

#[test]
fn a_life_from_run_to_rm() {
    let host = single(&[Image::Busybox]);
    let script = "trap 'exit 3' TERM; echo hello; while :; do sleep 0.05; done";
    host.docker([
        "run",
        "-d",
        "--name",
        "web",
        "-e",
        "COLOUR=green",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    wait_until("it says hello", || docker(&host, "logs web") == "hello");
    assert_eq!(
        docker(&host, "ps --format {{.Names}}|{{.Image}}"),
        "web|busybox"
    );
    assert!(docker(&host, "ps --format {{.Status}}").starts_with("Up"));
    assert_eq!(
        host.docker(["exec", "web", "sh", "-c", "echo $COLOUR"])
            .ok(),
        "green"
    );
    assert_eq!(host.docker(["exec", "web", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(docker(&host, "inspect -f {{.State.Running}} web"), "true");
    assert_eq!(
        docker(&host, "inspect -f {{.HostConfig.NetworkMode}} web"),
        "bridge"
    );
    let address = docker(&host, "inspect -f {{.NetworkSettings.IPAddress}} web");
    assert!(address.starts_with("172."), "{address}");
    docker(&host, "stop web");
    assert_eq!(docker(&host, "inspect -f {{.State.ExitCode}} web"), "3");
    docker(&host, "start web");
    docker(&host, "kill web");
    assert_eq!(docker(&host, "wait web"), "137");
    docker(&host, "rm web");
    assert_eq!(docker(&host, "ps -aq"), "");
}

#[test]
fn links_and_published_ports() {
    let host = single(&[Image::Redis]);
    docker(&host, "run -d --name redis-server -p 7000:6379 redis");
    wait_until("redis answers", || {
        host.docker("exec redis-server redis-cli ping")
            .stdout
            .trim()
            == "PONG"
    });
    assert_eq!(
        docker(
            &host,
            "run -i --rm --link redis-server:redis redis redis-cli -h redis ping"
        ),
        "PONG"
    );
    assert_eq!(
        docker(&host, "port redis-server 6379").lines().next(),
        Some("0.0.0.0:7000")
    );
    assert_eq!(
        host.inside("redis-cli", "-h 127.0.0.1 -p 7000 ping").ok(),
        "PONG"
    );
}

#[test]
fn networks_across_hosts() {
    let [a, b] = cluster(&[Image::Redis]);
    docker(&a, "network create -d overlay mesh");
    docker(&a, "run -d --network mesh --name db redis");
    wait_until("redis answers", || {
        a.docker("exec db redis-cli ping").stdout.trim() == "PONG"
    });
    assert!(
        docker(&b, "network ls --format {{.Name}}={{.Driver}}")
            .lines()
            .any(|line| line == "mesh=overlay")
    );
    assert_eq!(
        docker(&b, "run -i --rm --network mesh redis redis-cli -h db ping"),
        "PONG"
    );
    assert_eq!(docker(&b, "network inspect -f {{.Driver}} mesh"), "overlay");
    docker(&a, "rm -f db");
    docker(&a, "network rm mesh");
    assert!(!docker(&b, "network ls --format {{.Name}}").contains("mesh"));
}
