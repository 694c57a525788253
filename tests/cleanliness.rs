//! What goes away leaves nothing: containers while the daemon runs, and all of a host when it is taken down.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Host, Image, Spawned, cluster, single, wait_until};

/// Cgroups of a container, of whatever hierarchy.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let groups = hierarchies.map(|path| path.join("nuncio").join(id));
    groups
        .chain([Path::new("/sys/fs/cgroup/nuncio").join(id)])
        .filter(|group| group.exists())
        .collect()
}

/// What a removed container could leave on its host.
fn traces(host: &Host) -> Vec<String> {
    let links = host.ip("-br link");
    let veths = links
        .lines()
        .filter(|line| line.starts_with("nv-"))
        .map(str::to_owned);
    let rules = host.inside("nft", "list table inet nuncio").stdout;
    let published = rules
        .lines()
        .filter(|line| line.contains("dnat"))
        .map(str::to_owned);
    let mounts = host
        .remains()
        .mounts()
        .into_iter()
        .map(|mount| mount.display().to_string());
    let shims = host
        .remains()
        .list()
        .into_iter()
        .filter(|line| line.contains(" shim "));
    veths.chain(published).chain(mounts).chain(shims).collect()
}

#[test]
fn a_removed_container_is_gone() {
    let host = single(&[Image::Busybox]);
    let before = traces(&host);
    let long = host.ok("run -d --name web -p 8080:80 -m 64m busybox sleep 1000");
    let linked = host.ok("run -d --link web:web busybox sleep 1000");
    host.ok("exec web true");
    host.ok("run --rm busybox true");
    assert!(!cgroups(&long).is_empty());
    assert!(traces(&host).len() > before.len());
    host.ok(["rm", "-f", &linked, &long]);
    for id in [&long, &linked] {
        wait_until("its cgroups are gone", || cgroups(id).is_empty());
    }
    wait_until("all else is gone", || traces(&host) == before);
}

#[test]
fn what_ends_by_itself_can_be_removed_meanwhile() {
    let host = single(&[Image::Busybox]);
    // Each is removed a little later into its end than the one before.
    for pause in (0..20).map(|n| n * 10) {
        let id = host.ok(["run", "-d", "busybox", "sh", "-c", "read x < /go || exit 3"]);
        std::thread::sleep(std::time::Duration::from_millis(pause));
        host.ok(["rm", "-f", &id]);
    }
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn a_stopped_daemon_leaves_no_process() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name web busybox sleep 1000");
    host.ok("rm -f web");
    host.stop_daemon();
    wait_until("nothing is left", || host.remains().list().is_empty());
}

#[test]
fn a_host_that_is_taken_down_is_gone() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    let mut ids = Vec::new();
    for host in [&a, &b] {
        ids.push(host.ok("run -d --network mesh busybox sleep 1000"));
        ids.push(host.ok("run -d -p 8080:80 busybox sleep 1000"));
    }
    let directory = a.scratch().to_owned();
    a.kill_daemon();
    drop((a, b));
    for id in &ids {
        assert_eq!(cgroups(id), Vec::<PathBuf>::new());
    }
    assert!(!directory.exists());
    // Nothing of it was ever in this machine's own namespace.
    let mut links = Command::new(support::tool("ip"));
    links.args(["-o", "link"]);
    let links = Spawned::new(links, None).finish().ok();
    assert!(
        !links.contains("underlay") && !links.contains(": host1@"),
        "{links}"
    );
}
