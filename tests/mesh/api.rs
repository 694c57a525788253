//! The API over TCP: who is let in by which certificate, and what is written down of what they change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{Finished, Host, Image, Underlay};
use crate::{found, papers};

/// What no audit log may show.
const MARKER: &str = "a-word-of-somebodys-environment";

/// A docker command over TCP from `client` to `server`, showing what is in `directory`.
fn docker(client: &Host, directory: &Path, server: &Host, words: &[&str]) -> Finished {
    let host = format!("tcp://{}:2376", server.address);
    let path = format!("DOCKER_CERT_PATH={}", directory.display());
    let docker = crate::support::tool("docker");
    let docker = docker.to_str().expect("a path in UTF-8");
    let first = ["DOCKER_TLS_VERIFY=1", &path, docker, "-H", &host];
    client.inside("env", &*[&first, words].concat())
}

fn changes(host: &Host) -> Vec<Value> {
    let path = host.data_root().join("audit.log");
    let mode = path.metadata().expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&path).expect("a log");
    assert!(!text.contains(MARKER), "a secret is written down: {text}");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn operators_alone_use_the_api_by_tcp_and_what_they_do_is_written_down() {
    let underlay = Underlay::new();
    let [a, b, c] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    for host in [&a, &b] {
        if host.address == b.address {
            b.offline(&format!("join {token} {}", a.address)).ok();
        } else {
            a.stop_daemon();
        }
        host.start(&["-H", &format!("tcp://{}:2376", host.address)]);
        host.load(Image::Busybox);
    }
    let ann = a.scratch().join("ann");
    let output = ann.to_str().expect("a path in UTF-8");
    let create = format!("cert create --client ann --expiry 1h -o {output}");
    assert!(a.ok(&create).contains("good until"));
    assert!(a.nuncio(&create).refused(1).contains("is there already"));
    let elsewhere = b.nuncio("cert create --client bob -o /nonexistent/bob");
    assert!(elsewhere.refused(1).contains("is not the mesh's manager"));
    let key = ann.join("key.pem");
    let mode = key.metadata().expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The real client, on each host; an exec's input ends where the client's does.
    for host in [&a, &b] {
        let run = [
            "run",
            "-d",
            "--name",
            "web",
            "-e",
            &format!("WORD={MARKER}"),
            "busybox",
        ];
        docker(&c, &ann, host, &[&run[..], &["sleep", "1000"]].concat()).ok();
        let path = format!("DOCKER_CERT_PATH={output}");
        let tcp = format!("tcp://{}:2376", host.address);
        let nuncio = env!("CARGO_BIN_EXE_nuncio");
        let words = ["DOCKER_TLS_VERIFY=1", &path, nuncio, "-H", &tcp];
        let hello = ["exec", "web", "echo", "hello"];
        assert_eq!(
            c.inside("env", &*[&words[..], &hello].concat()).ok(),
            "hello"
        );
        let cat =
            format!("echo over | DOCKER_TLS_VERIFY=1 {path} {nuncio} -H {tcp} exec -i web cat");
        assert_eq!(c.inside("sh", ["-c", &cat]).ok(), "over");
    }

    // Nobody else: without TLS, without a certificate, or with that of a host.
    let node = papers(&b).join("node.pem");
    let url = format!("https://{}:2376/_ping", a.address);
    let curl = |flags: &[&str]| {
        let words = ["-s", "-S", "--max-time", "5", "-k", &url];
        c.inside("curl", &*[&words, flags].concat())
    };
    let node = node.to_str().expect("a path in UTF-8");
    for flags in [&[][..], &["--cert", node, "--key", node]] {
        let got = curl(flags);
        assert!(got.code != 0 && got.stdout.is_empty(), "{got:?}");
    }
    let plain = c.inside(
        "curl",
        ["-s", "--max-time", "5", &url.replace("https", "http")],
    );
    assert!(plain.stdout.is_empty(), "{plain:?}");
    let unshown = c.inside(
        env!("CARGO_BIN_EXE_nuncio"),
        ["-H", &format!("tcp://{}", a.address), "ps"],
    );
    assert!(
        unshown
            .stderr
            .contains("those alone who show a certificate"),
        "{unshown:?}"
    );

    // What was done is written down, by whom, and no more than that.
    a.ok("rm -f web");
    let noted = changes(&a);
    let find = |method: &str, end: &str| {
        let is = |change: &&Value| {
            let path = change["path"].as_str().expect("a path");
            change["method"] == method && path.ends_with(end)
        };
        noted
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("{end}: {noted:?}"))
    };
    let created = find("POST", "/containers/create");
    let by = created["certificate"].as_str().expect("a name");
    assert!(by.ends_with("/operator/ann"), "{created}");
    assert_eq!(created["name"], "name=web");
    assert_eq!(created["result"], 201);
    assert_eq!(created["id"].as_str().map(str::len), Some(64));
    assert!(
        created["address"]
            .as_str()
            .expect("one")
            .starts_with(&c.address.to_string())
    );
    let removed = find("DELETE", "/containers/web");
    assert_eq!((&removed["uid"], &removed["gid"]), (&0.into(), &0.into()));
    assert!(
        removed["pid"].as_i64().is_some_and(|pid| pid > 1),
        "{removed}"
    );
    let certified = find("POST", "/nuncio/v1/certificates");
    assert_eq!(certified["id"], "ann");
    assert!(noted.iter().all(|change| change["method"] != "GET"));
    let socket = a.exec_root().join("nuncio.sock");
    let socket = a.url().strip_prefix("unix://").map_or(socket, Into::into);
    let mode = socket.metadata().expect("a socket").permissions().mode() & 0o777;
    let groups = fs::read_to_string("/etc/group").expect("groups");
    let shared = groups.lines().any(|line| line.starts_with("nuncio:"));
    assert_eq!(mode, if shared { 0o660 } else { 0o600 });

    // By certificates of one's own; and what would let in everybody is refused.
    b.stop_daemon();
    let tcp = format!("tcp://{}:2376", b.address);
    let ca = format!("{output}/ca.pem");
    let node = papers(&b).join("node.pem");
    let node = node.to_str().expect("a path in UTF-8");
    let flags = [
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        node,
        "--tlskey",
        node,
    ];
    b.start(&[&["-H", &tcp][..], &flags].concat());
    docker(&c, &ann, &b, &["rm", "-f", "web"]).ok();
    let last = changes(&b).pop().expect("a change");
    assert_eq!(
        (&last["certificate"], &last["path"]),
        (&"ann".into(), &"/containers/web".into())
    );
    let refused = |flags: &[&str]| {
        let mut daemon = c.daemon_command();
        let ended = daemon
            .args(["-H", "tcp://127.0.0.1:2375"])
            .args(flags)
            .output();
        let ended = ended.expect("run a daemon");
        assert!(!ended.status.success());
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let said = refused(&[]);
    assert!(
        said.contains("everybody who reaches it would be root here"),
        "{said}"
    );
    let said = refused(&["--tlscert", "/x"]);
    assert!(said.contains("need --tlsverify too"), "{said}");
    let said = refused(&[
        "--tlsverify",
        "--tlscacert",
        "/x",
        "--tlscert",
        "/x",
        "--tlskey",
        "/x",
    ]);
    assert!(said.contains("/x"), "{said}");
}
