//! The API over TCP, to who shows a certificate and nobody else; who may use the socket; and what is written of both.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::Value;
use support::{Finished, Host, Image, Underlay, wait_until};

const PORT: u16 = 2376;

/// An authority for certificates.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes what Docker calls ca.pem, cert.pem and key.pem.
    fn issue(&self, directory: &Path, name: &str, addresses: &[String]) -> PathBuf {
        let mut params = CertificateParams::new(addresses.to_vec()).expect("addresses");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::create_dir_all(directory).expect("a directory");
        for (file, text) in [
            ("ca.pem", &self.certificate),
            ("cert.pem", &certificate.pem()),
            ("key.pem", &key.serialize_pem()),
        ] {
            fs::write(directory.join(file), text).expect("write a file");
        }
        directory.to_owned()
    }
}

/// Flags of a daemon that is reached over TCP.
fn flags(papers: &Path) -> Vec<String> {
    let mut flags = vec![
        "-H".to_owned(),
        format!("tcp://0.0.0.0:{PORT}"),
        "--tlsverify".to_owned(),
    ];
    for (flag, file) in [("tlscacert", "ca"), ("tlscert", "cert"), ("tlskey", "key")] {
        let path = papers.join(format!("{file}.pem"));
        flags.push(format!("--{flag}={}", path.display()));
    }
    flags
}

#[track_caller]
fn start(host: &Host, flags: &[String]) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    host.start(&flags);
}

/// Runs a client on a host that has no daemon, with these variables.
#[track_caller]
fn client(host: &Host, variables: &[String], program: &str, words: &[&str]) -> Finished {
    let config = format!("DOCKER_CONFIG={}", host.scratch().display());
    let mut args = vec![config.as_str()];
    args.extend(variables.iter().map(String::as_str));
    args.push(program);
    args.extend(words);
    host.inside("env", &args[..])
}

const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// The lines of the audit log.
fn audited(host: &Host) -> Vec<Value> {
    let text = fs::read_to_string(host.data_root().join("audit.log")).expect("a log");
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("lines of JSON")
}

fn is_for(line: &Value, method: &str, path: &str) -> bool {
    line["method"] == method
        && line["path"]
            .as_str()
            .is_some_and(|found| found.contains(path))
}

#[test]
fn who_has_a_certificate_is_served_over_tcp_and_nobody_else() {
    let underlay = Underlay::new();
    let (a, b) = (underlay.host(), underlay.host());
    let authority = Authority::new("operators of the test");
    let own = authority.issue(&a.scratch().join("own"), "host a", &[a.address.to_string()]);
    let ann = authority.issue(&b.scratch().join("ann"), "ann", &[]);
    start(&a, &flags(&own));
    a.load(Image::Busybox);
    let url = format!("tcp://{}:{PORT}", a.address);
    let variables = [
        format!("DOCKER_HOST={url}"),
        "DOCKER_TLS_VERIFY=1".to_owned(),
        format!("DOCKER_CERT_PATH={}", ann.display()),
    ];
    for program in ["docker", NUNCIO] {
        let run = [
            "run",
            "--rm",
            "-i",
            "-e",
            "PASSWORD=s3cret",
            "busybox",
            "echo",
            "hello",
        ];
        assert_eq!(client(&b, &variables, program, &run).ok(), "hello");
        let exit = client(
            &b,
            &variables,
            program,
            &["run", "--rm", "busybox", "false"],
        );
        assert_eq!(exit.code, 1, "{program}");
    }
    // By flags, and by a context that has the files.
    let files = ["ca", "cert", "key"].map(|file| ann.join(format!("{file}.pem")));
    let files = files.each_ref().map(|file| file.display().to_string());
    let [ca, cert, key] = &files;
    let by_flags = [
        "-H",
        &url,
        "--tlsverify",
        "--tlscacert",
        ca,
        "--tlscert",
        cert,
        "--tlskey",
        key,
        "ps",
        "-q",
    ];
    let endpoint = format!("host={url},ca={ca},cert={cert},key={key}");
    let make = ["context", "create", "far", "--docker", &endpoint];
    for program in ["docker", NUNCIO] {
        assert_eq!(client(&b, &[], program, &by_flags).ok(), "");
        assert_eq!(
            client(&b, &[], program, &make).ok().lines().next(),
            Some("far")
        );
        let info = ["--context", "far", "info", "--format", "{{.Name}}"];
        assert_eq!(client(&b, &[], program, &info).ok(), "host-1");
        client(&b, &[], program, &["context", "rm", "-f", "far"]).ok();
    }

    // Whom the daemon does not know, what is no TLS, and a daemon that is another than was asked for.
    let stranger = Authority::new("somebody else").issue(&b.scratch().join("eve"), "eve", &[]);
    fs::copy(ann.join("ca.pem"), stranger.join("ca.pem")).expect("the right authority");
    let as_stranger = [
        format!("DOCKER_HOST={url}"),
        variables[1].clone(),
        format!("DOCKER_CERT_PATH={}", stranger.display()),
    ];
    let told = client(&b, &as_stranger, NUNCIO, &["ps"]).refused(1);
    assert!(told.to_lowercase().contains("unknownca"), "{told}");
    let nothing = [
        format!("DOCKER_HOST={url}"),
        variables[1].clone(),
        format!("DOCKER_CERT_PATH={}", b.scratch().join("none").display()),
    ];
    let told = client(&b, &nothing, NUNCIO, &["ps"]).refused(1);
    assert!(
        told.contains("none/ca.pem") && told.contains("DOCKER_CERT_PATH"),
        "{told}"
    );
    let plain = format!("http://{}:{PORT}/containers/json", a.address);
    let answer = b.inside("curl", ["-s", "-m", "20", &plain]);
    assert!(answer.code != 0 && answer.stdout.is_empty(), "{answer:?}");
    let other = [
        format!("DOCKER_HOST=tcp://127.0.0.1:{PORT}"),
        variables[1].clone(),
        variables[2].clone(),
    ];
    let told = client(&a, &other, NUNCIO, &["ps"]).refused(1);
    assert!(told.contains("cannot speak TLS"), "{told}");
    wait_until("those who were not let in are told of", || {
        a.log().matches("not let into the API").count() >= 2
    });

    // Certificates that are renewed are shown without a restart, and those that cannot be read change nothing.
    let serials = |host: &Host| {
        let command = format!(
            "openssl s_client -connect {}:{PORT} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            a.address
        );
        host.inside("sh", ["-c", &command]).stdout
    };
    let before = serials(&b);
    authority.issue(&own, "host a", &[a.address.to_string()]);
    let after = serials(&b);
    assert!(
        before.contains("serial=") && after.contains("serial="),
        "{before}{after}"
    );
    assert_ne!(before, after);
    fs::write(own.join("cert.pem"), "rubbish").expect("write a file");
    client(&b, &variables, "docker", &["ps"]).ok();

    let lines = audited(&a);
    let text = format!("{lines:?}");
    assert!(!text.contains("s3cret"), "{text}");
    let by_ann: Vec<_> = lines
        .iter()
        .filter(|line| line["certificate"] == "ann")
        .collect();
    assert!(
        by_ann
            .iter()
            .any(|line| is_for(line, "POST", "/containers/create")),
        "{text}"
    );
    assert!(
        by_ann
            .iter()
            .any(|line| is_for(line, "DELETE", "/containers/") || is_for(line, "POST", "/start"))
    );
    let from = by_ann[0]["address"].as_str().expect("an address");
    assert!(from.starts_with(&b.address.to_string()), "{from}");
}

#[test]
fn what_would_let_in_everybody_is_refused() {
    let underlay = Underlay::new();
    let host = underlay.host();
    let refused = |flags: &[&str]| {
        let mut args = vec!["daemon", "--exec-root"];
        let run = host.exec_root().display().to_string();
        args.push(&run);
        args.extend(flags);
        host.offline(&args[..]).refused(1)
    };
    let told = refused(&["-H", "tcp://0.0.0.0:2375"]);
    assert!(
        told.contains("would be root here") && told.contains("--tlsverify"),
        "{told}"
    );
    let none = host.scratch().join("none");
    let [ca, cert, key] = ["ca", "cert", "key"].map(|file| none.join(file).display().to_string());
    let told = refused(&[
        "-H",
        "tcp://0.0.0.0:2376",
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ]);
    assert!(told.contains(&ca), "{told}");
    let a = Authority::new("a").issue(&host.scratch().join("a"), "a", &[]);
    let b = Authority::new("b").issue(&host.scratch().join("b"), "b", &[]);
    let mut mixed = flags(&a);
    mixed.pop();
    mixed.push(format!("--tlskey={}", b.join("key.pem").display()));
    let mixed: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let told = refused(&mixed);
    assert!(told.contains("do not belong together"), "{told}");
    assert!(!host.exec_root().join("nuncio.sock").exists());
}

#[test]
fn the_socket_is_a_groups_and_changes_are_written_down() {
    let underlay = Underlay::new();
    let host = underlay.host();
    let socket = host.exec_root().join("nuncio.sock");
    host.start(&["--group", "daemon"]); // it is on every machine
    let group = fs::read_to_string("/etc/group").expect("groups");
    let line = group.lines().find(|line| line.starts_with("daemon:"));
    let gid: u32 = line
        .and_then(|line| line.split(':').nth(2)?.parse().ok())
        .expect("a group");
    let found = socket.metadata().expect("a socket");
    assert_eq!(
        (found.uid(), found.gid(), found.mode() & 0o777),
        (0, gid, 0o660)
    );

    host.ok("volume create kept");
    host.ok("volume ls");
    host.nuncio("volume rm none").refused(1);
    host.nuncio("volume rm kept").ok();
    let log = host.data_root().join("audit.log");
    assert_eq!(
        log.metadata().expect("a log").permissions().mode() & 0o777,
        0o600
    );
    let lines = audited(&host);
    let did = |method: &str, path: &str, status: u64| {
        let mut found = lines.iter().filter(|line| is_for(line, method, path));
        found.any(|line| {
            line["result"] == status
                && line["uid"] == 0
                && line["pid"].as_i64().is_some_and(|pid| pid > 0)
        })
    };
    assert!(did("POST", "/volumes/create", 201), "{lines:?}");
    assert!(did("DELETE", "/volumes/none", 404), "{lines:?}");
    assert!(did("DELETE", "/volumes/kept", 204), "{lines:?}");
    assert!(
        lines.iter().all(|line| line["method"] != "GET"),
        "{lines:?}"
    );
    host.stop_daemon();

    let elsewhere = host.scratch().join("changes.log");
    host.start(&["--audit-log", elsewhere.to_str().expect("text")]);
    host.ok("volume create other");
    assert!(
        fs::read_to_string(&elsewhere)
            .expect("a log")
            .contains("/volumes/create")
    );
    assert_eq!(audited(&host).len(), lines.len());
    host.stop_daemon();
    host.start(&["--audit-log", "none"]);
    host.ok("volume rm other");
    assert_eq!(audited(&host).len(), lines.len());
    host.stop_daemon();
    let run = host.exec_root().display().to_string();
    let told = host.offline(["daemon", "--exec-root", &run, "--group", "nosuch"]);
    let told = told.refused(1);
    assert!(
        told.contains("nosuch") && told.contains("/etc/group"),
        "{told}"
    );
}
