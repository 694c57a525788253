//! Registries: `push`, `pull` in all its ways, `login`, mirrors and certificates, with Debian's docker-registry.

mod support;

use std::fs;

use support::{
    Image, RegistryKind, Spawned, Underlay, guarded_registry, plain_registry, registry, single,
    wait_until,
};

#[test]
fn what_is_pushed_is_pulled_elsewhere() {
    let host = single(&[Image::Busybox]);
    let _registry = plain_registry(&host);
    let id = host.ok("inspect -f {{.Id}} busybox");
    host.ok("tag busybox 127.0.0.1:5000/team/tools:1");
    let pushed = host.ok("push 127.0.0.1:5000/team/tools:1");
    let lines: Vec<&str> = pushed.lines().collect();
    assert_eq!(
        lines[0],
        "The push refers to repository [127.0.0.1:5000/team/tools]"
    );
    assert!(pushed.contains(": Pushed\n"), "{pushed}");
    let digest = lines
        .iter()
        .find_map(|line| line.strip_prefix("1: digest: "))
        .and_then(|rest| rest.split(' ').next())
        .expect(&pushed)
        .to_owned();
    // the same layer again, by the other client; then by way of another repository of the same registry
    let again = host.docker("push 127.0.0.1:5000/team/tools:1").ok();
    assert!(again.contains("Layer already exists"), "{again}");
    assert!(
        again.contains(&format!("1: digest: {digest} size: ")),
        "{again}"
    );
    host.docker("tag busybox 127.0.0.1:5000/other").ok();
    let mounted = host.docker("push 127.0.0.1:5000/other").ok();
    assert!(mounted.contains("Using default tag: latest"), "{mounted}");
    assert!(mounted.contains("Mounted from team/tools"), "{mounted}");
    assert_eq!(
        host.ok("images --digests --format {{.Digest}} 127.0.0.1:5000/team/tools"),
        digest
    );
    let inspected = host.inside(
        "skopeo",
        [
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            "docker://127.0.0.1:5000/other",
        ],
    );
    assert_eq!(inspected.ok(), digest);

    host.ok("image prune -af");
    host.ok(&format!("pull -q 127.0.0.1:5000/team/tools@{digest}"));
    host.docker("pull 127.0.0.1:5000/other").ok();
    assert_eq!(host.ok("inspect -f {{.Id}} 127.0.0.1:5000/other"), id);
    assert_eq!(
        host.ok("run --rm --network none 127.0.0.1:5000/other echo hello"),
        "hello"
    );
    for (words, says) in [
        (
            "push nosuch",
            "An image does not exist locally with the tag: nosuch",
        ),
        (
            "push 127.0.0.1:5000/other:nosuch",
            "tag does not exist: 127.0.0.1:5000/other:nosuch",
        ),
    ] {
        for message in [host.nuncio(words).refused(1), host.docker(words).refused(1)] {
            assert!(message.contains(says), "{message}");
        }
    }
    host.ok("tag 127.0.0.1:5000/other 127.0.0.1:5009/x");
    let message = host.nuncio("push 127.0.0.1:5009/x").refused(1);
    assert!(
        message.contains("127.0.0.1:5009 cannot be reached"),
        "{message}"
    );
}

#[test]
fn all_tags_at_once_and_in_silence() {
    let host = single(&[Image::Busybox]);
    let _registry = plain_registry(&host);
    for tag in ["1", "2", "3"] {
        host.ok(&format!("tag busybox 127.0.0.1:5000/team/tools:{tag}"));
    }
    let quiet = host.ok("push -q 127.0.0.1:5000/team/tools:1");
    assert_eq!(quiet, "127.0.0.1:5000/team/tools:1");
    let pushed = host.docker("push -a 127.0.0.1:5000/team/tools").ok();
    assert_eq!(pushed.matches("digest: sha256:").count(), 3, "{pushed}");
    host.ok("image prune -af");
    let pulled = host.ok("pull -a 127.0.0.1:5000/team/tools");
    for tag in ["1", "2", "3"] {
        assert!(
            pulled.contains(&format!("{tag}: Pulling from team/tools")),
            "{pulled}"
        );
    }
    assert!(pulled.contains("Status: Downloaded newer image for 127.0.0.1:5000/team/tools"));
    assert_eq!(host.ok("images -q").lines().count(), 3);
    let again = host.docker("pull -a 127.0.0.1:5000/team/tools").ok();
    assert!(again.contains("Image is up to date for"), "{again}");
    let message = host
        .nuncio("pull -a 127.0.0.1:5000/team/tools:1")
        .refused(1);
    assert!(
        message.contains("tag can't be used with --all-tags/-a"),
        "{message}"
    );
    let quiet = host.ok("pull -q 127.0.0.1:5000/team/tools:2");
    assert_eq!(quiet, "127.0.0.1:5000/team/tools:2");
    let message = host
        .nuncio("pull --platform linux/s390x/v1/x 127.0.0.1:5000/team/tools:2")
        .refused(1);
    assert!(message.contains("is not a platform"), "{message}");
}

#[test]
fn accounts_are_kept_used_and_forgotten() {
    let host = single(&[Image::Busybox]);
    let _registry = guarded_registry(&host, "127.0.0.1");
    host.ok("tag busybox 127.0.0.1:5000/team/tools");
    let message = host.nuncio("push 127.0.0.1:5000/team/tools").refused(1);
    assert!(
        message.contains("requested access to the resource is denied"),
        "{message}"
    );
    let message = host
        .nuncio_with(b"wrong\n", "login -u me --password-stdin 127.0.0.1:5000")
        .refused(1);
    assert!(
        message.contains("unauthorized: incorrect username or password"),
        "{message}"
    );
    let message = host.docker("login -u me -p wrong 127.0.0.1:5000");
    assert_eq!(message.code, 1);
    assert!(
        message.stderr.contains("incorrect username or password"),
        "{}",
        message.stderr
    );

    let told = host.nuncio_with(b"U*U\n", "login -u me --password-stdin 127.0.0.1:5000");
    assert!(
        told.stderr.contains("stored unencrypted"),
        "{}",
        told.stderr
    );
    assert_eq!(told.ok(), "Login Succeeded");
    // both clients have the account now
    assert!(
        host.docker("push 127.0.0.1:5000/team/tools")
            .ok()
            .contains("Pushed")
    );
    host.ok("image prune -af");
    assert_eq!(
        host.ok("run --rm --network none 127.0.0.1:5000/team/tools echo hello"),
        "hello"
    );
    assert!(host.ok("login 127.0.0.1:5000").contains("Login Succeeded"));
    host.ok("logout 127.0.0.1:5000");
    host.ok("image prune -af");
    let message = host.nuncio("pull 127.0.0.1:5000/team/tools").refused(1);
    assert!(message.contains("pull access denied"), "{message}");
    host.docker("login -u me -p U*U 127.0.0.1:5000").ok();
    host.ok("pull 127.0.0.1:5000/team/tools");
    let message = host.nuncio("login -u me 127.0.0.1:5000").refused(1);
    assert!(message.contains("non TTY"), "{message}");
}

#[test]
fn a_helper_keeps_the_secrets() {
    let host = single(&[Image::Busybox]);
    let _registry = plain_registry(&host);
    let kept = host.scratch().join("kept");
    let helper = host.scratch().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat >{0} ;; get) cat >/dev/null; cat {0} 2>/dev/null \
         || {{ echo credentials not found in native keychain; exit 1; }} ;; erase) rm -f {0} ;; esac\n",
        kept.display()
    );
    fs::write(&helper, script).expect("write the helper");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&helper, mode).expect("make it a program");
    let config = host.scratch().join("config.json");
    fs::write(&config, r#"{"credHelpers": {"127.0.0.1:5000": "test"}}"#).expect("write");
    let path = format!(
        "{}:{}",
        host.scratch().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |words: &str| {
        let mut command = host.client(words);
        command.env("PATH", &path);
        Spawned::new(command, None).finish()
    };
    let told = run("login -u me -p secret 127.0.0.1:5000");
    assert!(!told.stderr.contains("unencrypted"), "{}", told.stderr);
    assert_eq!(told.ok(), "Login Succeeded");
    assert!(
        fs::read_to_string(&kept)
            .expect("kept")
            .contains("\"Secret\":\"secret\"")
    );
    assert!(
        !fs::read_to_string(&config)
            .expect("read")
            .contains("secret")
    );
    host.ok("tag busybox 127.0.0.1:5000/x");
    run("push 127.0.0.1:5000/x").ok();
    run("logout 127.0.0.1:5000").ok();
    assert!(!kept.exists());
    run("pull 127.0.0.1:5000/x").ok();
}

#[test]
fn mirrors_are_asked_before_the_hub() {
    let host = Underlay::new().host();
    host.start(&[
        "--registry",
        "embedded",
        "--registry-mirror",
        "http://127.0.0.1:5001",
        "--registry-mirror",
        "http://127.0.0.1:5000/",
    ]);
    host.load(Image::Busybox);
    let _registry = plain_registry(&host);
    host.ok("tag busybox 127.0.0.1:5000/library/busybox:mirrored");
    host.ok("push 127.0.0.1:5000/library/busybox:mirrored");
    host.ok("image prune -af");
    // nobody listens at the first mirror
    host.docker("pull busybox:mirrored").ok();
    assert_eq!(
        host.ok("images --format {{.Repository}}:{{.Tag}}"),
        "busybox:mirrored"
    );
    let info = host.docker("info").ok();
    assert!(info.contains("http://127.0.0.1:5000/"), "{info}");
    for (flag, value) in [
        ("--registry-mirror", "127.0.0.1"),
        ("--insecure-registry", "http://a"),
    ] {
        let refused = host.nuncio(["daemon", flag, value]).refused(125);
        assert!(refused.contains(value), "{refused}");
    }
}

#[test]
fn certificates_are_looked_at_unless_told_otherwise() {
    let host = Underlay::new().host();
    let address = host.address.to_string();
    let made = |name: &str| host.scratch().join(name).display().to_string();
    let (key, certificate) = (made("key.pem"), made("cert.pem"));
    let request = host.scratch().join("request.cnf");
    let text = format!(
        "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\nCN = registry\n\
         [ext]\nsubjectAltName = IP:{address}\nbasicConstraints = critical, CA:FALSE\n"
    );
    fs::write(&request, text).expect("write the request");
    let request = request.to_str().expect("a path in UTF-8");
    let make = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-config",
        request,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    host.inside("openssl", make).ok();
    let certs = host.scratch().join("certs");
    host.start(&[
        "--registry",
        "embedded",
        "--registry-certs",
        &certs.display().to_string(),
    ]);
    host.load(Image::Busybox);
    let tls = format!("  tls: {{certificate: {certificate}, key: {key}}}");
    let kind = RegistryKind {
        port: 5000,
        tls: &tls,
        ..RegistryKind::default()
    };
    let _registry = registry(&host, &address, kind);
    let name = format!("{address}:5000/x");
    host.ok(["tag", "busybox", &name]);
    let message = host.nuncio(["push", &name]).refused(1);
    assert!(
        message.contains("certificate") || message.contains("UnknownIssuer"),
        "{message}"
    );
    let trusted = certs.join(format!("{address}:5000"));
    fs::create_dir_all(&trusted).expect("make the directory");
    fs::copy(&certificate, trusted.join("ca.crt")).expect("trust it");
    host.ok(["push", &name]);
    fs::remove_dir_all(&trusted).expect("trust it no more");
    host.nuncio(["pull", &name]).refused(1);
    host.stop_daemon();
    host.start(&[
        "--registry",
        "embedded",
        "--insecure-registry",
        &format!("{address}/32"),
    ]);
    host.docker(["pull", &name]).ok();
}

#[test]
fn a_registry_without_search_says_so() {
    let host = single(&[]);
    let _registry = plain_registry(&host);
    for message in [
        host.nuncio("search 127.0.0.1:5000/tools").refused(1),
        host.docker("search 127.0.0.1:5000/tools").refused(1),
    ] {
        assert!(message.contains("cannot be searched"), "{message}");
    }
    let message = host
        .nuncio("search --limit 500 127.0.0.1:5000/tools")
        .refused(1);
    assert!(message.contains("outside the range"), "{message}");
    // one that has it, as Docker Hub answers
    let script = "import http.server as h, json\n\
        class A(h.BaseHTTPRequestHandler):\n\
        \x20def do_GET(self):\n\
        \x20 found = self.path.startswith('/v1/search?q=tools&n=')\n\
        \x20 self.send_response(200 if found or self.path == '/v2/' else 404); self.end_headers()\n\
        \x20 self.wfile.write(json.dumps({'results': [\n\
        \x20  {'name': 'tools', 'description': 'ours', 'star_count': 9, 'is_official': True},\n\
        \x20  {'name': 'a/tools', 'description': 'd'*60, 'star_count': 3, 'is_official': False}]}).encode())\n\
        h.HTTPServer(('127.0.0.1', 5001), A).serve_forever()";
    let mut server = host.spawn_inside("python3", ["-c", script]);
    wait_until("it listens", || {
        assert!(server.runs(), "it ended");
        host.inside("bash", ["-c", ": </dev/tcp/127.0.0.1/5001"])
            .code
            == 0
    });
    let format = "--format {{.Name}}|{{.Description}}|{{.StarCount}}|{{.IsOfficial}}";
    for words in [
        "",
        "--no-trunc",
        "--filter is-official=true",
        "--filter stars=5",
        format,
    ] {
        let words = format!("search {words} 127.0.0.1:5001/tools");
        let ours = host.ok(&words);
        assert!(ours.contains("tools"), "{ours}");
        let theirs = host.docker(&words).ok();
        let theirs: Vec<&str> = theirs.lines().map(str::trim_end).collect();
        assert_eq!(ours, theirs.join("\n"), "{words}");
    }
}
