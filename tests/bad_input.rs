//! What cannot be done is refused with Docker's exit status and one line that says what to do, and leaves nothing.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Host, Image, Spawned, Underlay, cluster, single};

/// Checks that `words` fail with `code` and that the message holds all of `says`, and that no container is left.
#[track_caller]
fn refused(host: &Host, words: &str, code: i32, says: &[&str]) {
    let before = host.ok("ps -aq --no-trunc");
    let message = host.nuncio(words).refused(code);
    for part in says {
        assert!(
            message.contains(part),
            "{words}: {message:?} does not say {part:?}"
        );
    }
    assert_eq!(
        host.ok("ps -aq --no-trunc"),
        before,
        "{words} left a container"
    );
}

#[test]
fn images_and_commands_that_are_not_there() {
    let host = single(&[Image::Busybox]);
    refused(&host, "run --pull never nosuch", 125, &["nosuch"]);
    refused(
        &host,
        "run 127.0.0.1:1/nosuch",
        125,
        &["127.0.0.1:1", "nosuch"],
    );
    refused(&host, "run UPPER", 125, &["UPPER"]);
    refused(&host, "run --rm busybox nosuch", 127, &["nosuch"]);
    refused(&host, "run busybox nosuch", 127, &["nosuch"]);
    refused(&host, "run -d busybox nosuch", 127, &["nosuch"]);
    refused(
        &host,
        "run -d --link nosuch:n busybox true",
        125,
        &["nosuch"],
    );
    refused(&host, "run --rm busybox /no/such", 127, &["/no/such"]);
    refused(
        &host,
        "run --rm busybox /etc/passwd",
        126,
        &["/etc/passwd", "permission denied"],
    );
    refused(&host, "run --rm busybox /etc", 126, &["/etc"]);
    refused(&host, "run --rm -u nosuch busybox true", 125, &["nosuch"]);
    assert_eq!(host.remains().cgroups(), Vec::<std::path::PathBuf>::new());
    assert_eq!(host.ok("images -q").lines().count(), 1);
}

#[test]
fn names_and_ports_in_use() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name web -p 8080:80 busybox sleep 1000");
    refused(
        &host,
        "run --name web busybox true",
        125,
        &["web", "in use"],
    );
    refused(&host, "run --name a/b busybox true", 125, &["a/b"]);
    refused(
        &host,
        "run --rm -p 8080:81 busybox true",
        125,
        &["8080", "already allocated"],
    );
    refused(
        &host,
        "run --rm -p 127.0.0.1:8080:81 busybox true",
        125,
        &["8080", "already allocated"],
    );
    host.ok("run --rm -p 8080:80/udp busybox true"); // another protocol is another port

    let mut foreign =
        host.spawn_inside("docker-registry", ["serve", &registry_config(&host, 9090)]);
    support::wait_until("a port is taken by another program", || {
        assert!(foreign.runs());
        host.inside("bash", ["-c", ": </dev/tcp/127.0.0.1/9090"])
            .code
            == 0
    });
    refused(
        &host,
        "run --rm -p 9090:80 busybox true",
        125,
        &["9090", "in use"],
    );
}

/// A configuration of docker-registry, which here is just a program that listens.
fn registry_config(host: &Host, port: u16) -> String {
    let path = host.scratch().join("registry.yml");
    let text =
        format!("version: 0.1\nstorage: {{inmemory: {{}}}}\nhttp: {{addr: '0.0.0.0:{port}'}}\n");
    fs::write(&path, text).expect("write the configuration");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn flags_that_make_no_sense() {
    let host = single(&[Image::Busybox]);
    for wrong in [
        "abc",
        "1:2:3:4",
        "99999:80",
        "80:99999",
        "8000-8002:80-81",
        "80/icmp",
        "300.1.1.1:80:80",
    ] {
        let message = host
            .nuncio(["run", "--rm", "-p", wrong, "busybox", "true"])
            .refused(125);
        let named = wrong
            .split([':', '/', '-'])
            .any(|part| message.contains(part));
        assert!(named, "-p {wrong}: {message}");
    }
    refused(
        &host,
        "run --rm --link nobody:db busybox true",
        125,
        &["nobody"],
    );
    refused(&host, "run --rm --link : busybox true", 125, &[":"]);
    refused(
        &host,
        "run --rm --network nosuch busybox true",
        125,
        &["nosuch"],
    );
    refused(&host, "run --rm -m 1x busybox true", 125, &["1x"]);
    refused(&host, "run --rm --nosuch busybox true", 125, &["--nosuch"]);
    for words in [
        "stop nobody",
        "logs nobody",
        "rm nobody",
        "inspect nobody",
        "exec nobody true",
        "start nobody",
    ] {
        host.nuncio(words).refused(1);
    }
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn networks_that_cannot_be() {
    let [a, b] = cluster(&[]);
    refused(
        &a,
        "network create -d overlay --subnet 198.18.0.0/24 mesh",
        1,
        &["198.18.0.0/24"],
    );
    refused(
        &a,
        "network create -d overlay --subnet 10.0.0.0/33 mesh",
        1,
        &["10.0.0.0/33"],
    );
    refused(&a, "network create -d nosuch mesh", 1, &["nosuch"]);
    a.ok("network create -d overlay --subnet 10.77.0.0/16 mesh");
    refused(&b, "network create -d overlay mesh", 1, &["mesh"]);
    refused(
        &b,
        "network create -d overlay --subnet 10.77.3.0/24 other",
        1,
        &["10.77.3.0/24"],
    );
    refused(&b, "network rm nosuch", 1, &["nosuch"]);
    refused(&b, "network rm bridge", 1, &["bridge"]);
    let names = b.ok(["network", "ls", "--format", "{{.Name}}"]);
    assert!(
        names.lines().any(|name| name == "mesh") && !names.contains("other"),
        "{names}"
    );
}

#[test]
fn a_registry_out_of_reach() {
    let host = Underlay::new().host();
    for (registry, says) in [
        ("http://198.18.0.99:2379", "198.18.0.99:2379"),
        ("nonsense", "nonsense"),
    ] {
        let mut daemon = host.daemon_command();
        daemon.args(["--registry", registry]);
        let ended = Spawned::new(daemon, None).finish();
        assert_ne!(ended.code, 0);
        assert!(
            ended
                .stderr
                .lines()
                .any(|line| line.starts_with("nuncio: ") && line.contains(says)),
            "{}",
            ended.stderr
        );
    }
    assert_eq!(host.remains().list(), Vec::<String>::new());
    assert!(!host.ip("-br link").contains("nuncio0"));
}

#[test]
fn a_daemon_that_is_not_there() {
    let host = Underlay::new().host();
    let message = host.nuncio("ps").refused(1);
    assert!(message.contains(&host.url()), "{message}");
    assert!(message.contains("daemon"), "{message}");
    host.nuncio("run busybox true").refused(125);
}

#[test]
fn a_second_daemon_on_the_same_directories() {
    let host = single(&[]);
    let second = Spawned::new(host.daemon_command(), None).finish();
    assert_ne!(second.code, 0);
    let last = second.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(
        last.contains(host.scratch().to_str().expect("a path in UTF-8")),
        "{}",
        second.stderr
    );
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn not_being_root() {
    let host = single(&[]);
    let program = open_to_all(&host);
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(words);
        Spawned::new(command, None).finish()
    };
    let message = as_nobody(&[
        "daemon",
        "--data-root",
        "/tmp/nt-none",
        "--exec-root",
        "/tmp/nt-none",
    ])
    .refused(1);
    assert!(message.contains("root"), "{message}");
    assert!(!Path::new("/tmp/nt-none").exists());
    let url = host.url();
    let message = as_nobody(&["-H", &url, "ps"]).refused(1);
    assert!(
        message.to_lowercase().contains("permission denied"),
        "{message}"
    );
    as_nobody(&["-H", &url, "run", "busybox", "true"]).refused(125);
}

/// A copy of the program that every user may run.
fn open_to_all(host: &Host) -> std::path::PathBuf {
    let program = host.scratch().join("nuncio");
    fs::copy(env!("CARGO_BIN_EXE_nuncio"), &program).expect("copy the program");
    for (path, mode) in [(&*program, 0o755), (host.scratch(), 0o711)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("open it to all");
    }
    program
}

#[test]
fn doctor_lists_what_the_kernel_must_have() {
    let host = Underlay::new().host();
    let told = host
        .inside(env!("CARGO_BIN_EXE_nuncio"), "doctor")
        .ok()
        .to_lowercase();
    for feature in [
        "overlay", "vxlan", "bridge", "veth", "nft", "seccomp", "cgroup",
    ] {
        assert!(told.contains(feature), "{feature} is missing:\n{told}");
    }
}
