//! The server, as others than its page find it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

use super::support::{Finished, Host, Image, Spawned, Underlay, wait_until};
use super::{ADDRESS, id_of, json, one_host, proxied, two_hosts};

/// What a WebSocket is over.
trait Stream: std::fmt::Debug + std::io::Read + std::io::Write {}
impl<S: std::fmt::Debug + std::io::Read + std::io::Write> Stream for S {}

type Socket<S> = WebSocket<S>;

/// Opens a WebSocket; else what was answered: a status and a text.
fn handshake<S: Stream>(
    stream: S,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Socket<S>, (u16, String)> {
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .expect("a request");
    for (name, value) in headers {
        let name: tungstenite::http::HeaderName = name.parse().expect("a name");
        request
            .headers_mut()
            .insert(name, value.parse().expect("a value"));
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(answer))) => {
            let text = answer.body().clone().unwrap_or_default();
            Err((
                answer.status().as_u16(),
                String::from_utf8_lossy(&text).into_owned(),
            ))
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

/// A stream to the daemon's own socket.
fn to_daemon(host: &Host) -> UnixStream {
    let stream =
        UnixStream::connect(host.exec_root().join("nuncio.sock")).expect("the daemon's socket");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    stream
}

fn page(host: &Host) -> Result<Socket<UnixStream>, (u16, String)> {
    handshake(to_daemon(host), "/nuncio/v1/dashboard/live", &[])
}

/// The next text.
#[track_caller]
fn text<S: Stream>(socket: &mut Socket<S>) -> Value {
    loop {
        match socket.read().expect("a message") {
            Message::Text(text) => return json(&text),
            Message::Close(frame) => panic!("closed: {frame:?}"),
            _ => {}
        }
    }
}

/// The next text that has this in it.
#[track_caller]
fn told<S: Stream>(socket: &mut Socket<S>, key: &str) -> Value {
    loop {
        let value = text(socket)[key].take();
        if !value.is_null() {
            return value;
        }
    }
}

/// Why it was closed.
#[track_caller]
fn farewell<S: Stream>(socket: &mut Socket<S>) -> CloseFrame {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => return frame.expect("a reason"),
            Ok(_) => {}
            Err(error) => panic!("no word: {error}"),
        }
    }
}

/// A dashboard that serves this machine's loopback, with its address and token.
struct Proxy {
    _running: Spawned,
    address: SocketAddr,
    token: String,
}

impl Proxy {
    #[track_caller]
    fn new(host: &Host, flags: &str) -> Self {
        let (running, url) = proxied(host, flags);
        let (address, token) = url
            .trim()
            .trim_start_matches("http://")
            .split_once("/#token=")
            .expect("an address and a token");
        Self {
            address: address.parse().expect("an address"),
            token: token.to_owned(),
            _running: running,
        }
    }

    fn curl(&self, path: &str, flags: &[&str]) -> Finished {
        let mut command = std::process::Command::new(super::support::tool("curl"));
        command.args(["-sS", "-i", "--max-time", "30"]).args(flags);
        command.arg(format!("http://{}{path}", self.address));
        Spawned::new(command, None).finish()
    }

    /// The status, and all that was said.
    #[track_caller]
    fn ask(&self, path: &str, flags: &[&str]) -> (u16, String) {
        let said = self.curl(path, flags).ok();
        let status = said.split(' ').nth(1).and_then(|word| word.parse().ok());
        (status.unwrap_or_else(|| panic!("{said}")), said)
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the dashboard listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        stream
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

#[test]
fn a_token_is_wanted_and_a_browsers_own_page() {
    let host = one_host(&[]);
    host.ok("run -d --name web -e SECRET=in-its-environment busybox sleep 1000");
    let proxy = Proxy::new(&host, "");
    let (status, said) = proxy.ask("/", &[]);
    assert_eq!(status, 401, "{said}");
    assert!(
        said.contains("nuncio dashboard")
            && said.contains("content-security-policy: default-src 'none'; script-src 'self';"),
        "{said}"
    );
    for path in [
        "/map",
        "/live",
        "/app.js",
        "/containers/web",
        "/containers/web/terminal",
    ] {
        assert_eq!(proxy.ask(path, &[]).0, 401, "{path}");
        assert_eq!(
            proxy.ask(path, &["-H", "Authorization: Bearer wrong"]).0,
            401,
            "{path}"
        );
    }
    assert_eq!(proxy.ask("/login", &["-d", "wrong"]).0, 401);

    // The token is given for a cookie, once for each browser.
    let (status, said) = proxy.ask("/login", &["-d", &proxy.token]);
    assert_eq!(status, 204, "{said}");
    let cookie = said
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .expect("a cookie");
    assert!(
        cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(&proxy.token),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}", cookie.split(';').next().expect("a pair"));
    let bearer = format!("Authorization: {}", proxy.bearer());
    for shown in [&cookie, &bearer] {
        let (status, said) = proxy.ask("/map", &["-H", shown]);
        assert_eq!(status, 200, "{said}");
        assert!(
            said.contains("cache-control: no-store") && said.contains("\"web\""),
            "{said}"
        );
    }
    let (_, said) = proxy.ask("/containers/web", &["-H", &cookie]);
    assert!(
        said.contains("busybox") && !said.contains("in-its-environment"),
        "{said}"
    );

    // Neither a page elsewhere nor a name that was made to lead here.
    for wrong in [
        "Host: evil.example",
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: same-site",
    ] {
        assert_eq!(
            proxy.ask("/map", &["-H", &cookie, "-H", wrong]).0,
            403,
            "{wrong}"
        );
    }
    // Nothing else of the API, and nothing that changes anything.
    for path in [
        "/containers/json",
        "/../../../containers/json",
        "/%2e%2e/info",
        "/containers/web/json",
        "/events",
    ] {
        let (status, said) = proxy.ask(path, &["--path-as-is", "-H", &cookie]);
        assert!([404, 400].contains(&status), "{path}: {said}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(
            proxy
                .ask("/containers/web", &["-X", method, "-H", &cookie])
                .0,
            405,
            "{method}"
        );
    }
    // A WebSocket by cookie alone is one of a page that is not told.
    let pair = cookie.trim_start_matches("Cookie: ");
    let refused = handshake(proxy.stream(), "/live", &[("cookie", pair)]).err();
    assert_eq!(refused.map(|(status, _)| status), Some(403));
    let refused = handshake(
        proxy.stream(),
        "/live",
        &[("cookie", pair), ("origin", "http://evil.example")],
    )
    .err();
    assert_eq!(refused.map(|(status, _)| status), Some(403));
    assert!(
        handshake(
            proxy.stream(),
            "/live",
            &[("cookie", pair), ("origin", "http://localhost")]
        )
        .is_ok()
    );
}

#[test]
fn the_daemons_token_is_roots_alone_and_outlives_it() {
    let host = one_host(&[]);
    let url = host.ok("dashboard");
    let (address, token) = url.split_once("/#token=").expect("a token");
    assert_eq!(address, format!("http://{ADDRESS}"));
    let path = host.exec_root().join("dashboard.json");
    let mode = std::fs::metadata(&path)
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        std::fs::read_to_string(&path)
            .expect("text")
            .contains(token)
    );
    host.kill_daemon();
    host.start_again();
    assert_eq!(host.ok("dashboard"), url);
    let bearer = format!("Authorization: Bearer {token}");
    let map = host
        .inside("curl", ["-sSf", "-H", &bearer, &format!("{address}/map")])
        .ok();
    assert_eq!(json(&map)["hosts"][0]["name"], "host-1");

    for wrong in ["0.0.0.0:1", "10.0.0.1:80", "localhost:80", "127.0.0.1"] {
        for words in ["daemon --dashboard-addr", "dashboard --listen"] {
            let refused = host.nuncio(&format!("{words} {wrong}"));
            assert_ne!(refused.code, 0);
            assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
        }
    }
}

#[test]
fn programs_are_run_only_where_that_is_allowed() {
    let host = one_host(&[]);
    host.ok("run -d --name web busybox sleep 1000");
    let path = "/containers/web/terminal?command=echo+$((6*7));+cat";
    let only_shows = Proxy::new(&host, "");
    let bearer = only_shows.bearer();
    let headers = [
        ("authorization", bearer.as_str()),
        ("nuncio-dashboard-exec", "allowed"),
    ];
    let (status, why) = handshake(only_shows.stream(), path, &headers).expect_err("refused");
    assert_eq!(status, 403, "{why}");
    assert!(why.contains("--allow-exec"), "{why}");
    let refused = handshake(
        to_daemon(&host),
        "/nuncio/v1/dashboard/containers/web/terminal",
        &[],
    )
    .err();
    assert_eq!(refused.map(|(status, _)| status), Some(403));

    let runs = Proxy::new(&host, "--allow-exec");
    let bearer = runs.bearer();
    let headers = [("authorization", bearer.as_str())];
    let mut terminal = handshake(runs.stream(), path, &headers).expect("a terminal");
    let mut shown = String::new();
    let mut until = |terminal: &mut Socket<TcpStream>, text: &str| {
        while !shown.contains(text) {
            if let Message::Binary(bytes) = terminal.read().expect("more") {
                shown.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    };
    until(&mut terminal, "42");
    terminal
        .send(Message::text(r#"{"rows": 30, "cols": 100}"#))
        .expect("sent");
    terminal
        .send(Message::binary(&b"hello\r"[..]))
        .expect("sent");
    until(&mut terminal, "hello\r\nhello");
    terminal.send(Message::binary(&b"\x04"[..])).expect("sent");
    let end = farewell(&mut terminal);
    assert_eq!(end.reason.as_str(), "ended with exit status 0");
    let audit = std::fs::read_to_string(host.data_root().join("audit.log")).expect("the audit log");
    let noted = format!("/containers/{}/exec", id_of(&host, "web"));
    assert!(
        audit
            .lines()
            .any(|line| line.contains(&noted) && line.contains("\"result\":201")),
        "{audit}"
    );

    // Who leaves takes along what was run; rubbish is told so.
    let mut left = handshake(
        runs.stream(),
        "/containers/web/terminal?command=exec+sleep+4321",
        &headers,
    )
    .expect("a terminal");
    let runs_still = || host.ok("top web").contains("sleep 4321");
    wait_until("it runs", runs_still);
    left.send(Message::text("rubbish")).expect("sent");
    let end = farewell(&mut left);
    assert!(end.reason.contains("none of a terminal's"), "{end:?}");
    wait_until("it is ended", || !runs_still());
    let left = handshake(
        runs.stream(),
        "/containers/web/terminal?command=exec+sleep+4321",
        &headers,
    )
    .expect("a terminal");
    wait_until("it runs again", runs_still);
    drop(left);
    wait_until("it is ended with its page", || !runs_still());
    let refused = handshake(runs.stream(), "/containers/nobody/terminal", &headers).err();
    assert_eq!(refused.map(|(status, _)| status), Some(404));
}

#[test]
fn a_page_is_told_what_it_asks_for_and_why_it_is_let_go() {
    let host = one_host(&[]);
    let work = "echo first; sleep 1000";
    host.ok(["run", "-d", "--name", "web", "busybox", "sh", "-c", work]);
    let id = id_of(&host, "web");
    let mut socket = page(&host).expect("a page");
    assert_eq!(text(&mut socket)["hello"]["exec"], false);
    assert_eq!(told(&mut socket, "map")["containers"][0]["name"], "web");
    let watch = |id: &str| Message::text(format!("{{\"watch\": \"{id}\"}}"));
    socket.send(watch(&id)).expect("sent");
    let lines = told(&mut socket, "lines");
    assert_eq!(
        (&lines["lines"][0][0], &lines["lines"][0][2]),
        (&1.into(), &"first\n".into())
    );
    assert_eq!(told(&mut socket, "taken")["runs"], true);
    socket.send(watch("nobody")).expect("sent");
    let absent = told(&mut socket, "absent");
    assert!(
        absent["why"]
            .as_str()
            .is_some_and(|why| why.contains("No such container")),
        "{absent}"
    );
    socket.send(watch(&id)).expect("sent");
    host.ok("rm -f web");
    assert_eq!(told(&mut socket, "absent")["id"], id.as_str());

    for (rubbish, why) in [
        (Message::text("{"), "none of this page's"),
        (Message::text(r#"{"watch": 7}"#), "none of this page's"),
        (Message::text(r#"{"exec": "rm"}"#), "none of this page's"),
        (Message::binary(&[0; 9][..]), "no text"),
    ] {
        let mut socket = page(&host).expect("a page");
        socket.send(rubbish.clone()).expect("sent");
        let end = farewell(&mut socket);
        assert!(end.reason.contains(why), "{rubbish:?}: {end:?}");
    }
    // What is no WebSocket's message at all, or far too long.
    for bytes in [
        &[0xff_u8; 64][..],
        &[0x81, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
    ] {
        let mut socket = page(&host).expect("a page");
        socket.get_mut().write_all(bytes).expect("sent");
        let end = farewell(&mut socket);
        assert!(end.reason.contains("not a WebSocket's message"), "{end:?}");
    }
    assert!(page(&host).is_ok());
}

#[test]
fn the_map_of_each_host_has_what_all_of_them_know() {
    let [a, b] = two_hosts(Image::Busybox, &[]);
    a.ok("run -d --name store --expose 80 busybox httpd -f -h /etc");
    b.ok("run -d --name web --link store:db busybox sleep 1000");
    b.ok("run --name done busybox true");
    let mut socket = page(&a).expect("a page");
    let id = |map: &Value, name: &str| {
        let hosts = map["hosts"].as_array().into_iter().flatten();
        hosts
            .clone()
            .find(|host| host["name"] == name)
            .map(|host| host["id"].clone())
    };
    // The host of the client counts what passes, and is asked for it.
    wait_until("the link is counted", || {
        b.nuncio("exec web wget -q -O - http://db/passwd");
        let map = told(&mut socket, "map");
        let links = map["links"].as_array().cloned().unwrap_or_default();
        links.iter().any(|link| {
            link["id"] == "link/store/80/tcp"
                && Some(&link["host"]) == id(&map, "host-2").as_ref()
                && link["carried"]["flows"].as_u64() > Some(0)
                && link["rate"]["bytes_out"].as_f64() > Some(0.0)
        })
    });
    // As it knows of its containers that have ended.
    let map = told(&mut socket, "map");
    let containers = map["containers"].as_array().cloned().unwrap_or_default();
    let done = containers
        .iter()
        .find(|one| one["name"] == "done")
        .expect("the container");
    assert_eq!(
        (&done["state"], Some(&done["host"])),
        (&"exited".into(), id(&map, "host-2").as_ref())
    );
    let names = |name: &str| containers.iter().filter(|one| one["name"] == name).count();
    assert_eq!((names("store"), names("web")), (1, 1));
    wait_until("what passed is told, too", || {
        let path = "/nuncio/v1/dashboard/map?history=1";
        let socket = a.exec_root().join("nuncio.sock");
        let mut command = std::process::Command::new(super::support::tool("curl"));
        command
            .args(["-sS", "--unix-socket"])
            .arg(socket)
            .arg(format!("http://nuncio{path}"));
        let map = json(&Spawned::new(command, None).finish().ok());
        let links = map["links"].as_array().cloned().unwrap_or_default();
        links.iter().any(|link| {
            link["id"] == "link/store/80/tcp"
                && link["samples"]
                    .as_array()
                    .is_some_and(|samples| samples.len() > 1)
        })
    });
}

#[test]
fn so_many_terminals_and_no_more() {
    let host = one_host(&[]);
    host.ok("run -d --name web busybox sleep 1000");
    let open = |socket| {
        let path = "/nuncio/v1/dashboard/containers/web/terminal?command=cat";
        handshake(socket, path, &[("nuncio-dashboard-exec", "allowed")])
    };
    let mut terminals: Vec<_> = (0..32)
        .map(|_| open(to_daemon(&host)).expect("room for a terminal"))
        .collect();
    let (status, why) = open(to_daemon(&host)).expect_err("no room");
    assert_eq!(status, 409);
    assert!(why.contains("32 terminals are open"), "{why}");
    terminals.truncate(31);
    wait_until("there is room again", || open(to_daemon(&host)).is_ok());
}

#[test]
fn what_containers_of_other_hosts_write_and_take_is_told() {
    let [a, b] = two_hosts_that_tell();
    let work = "echo first; echo second >&2; sleep 1000";
    b.ok(["run", "-d", "--name", "web", "busybox", "sh", "-c", work]);
    let id = id_of(&b, "web");
    let mut socket = page(&a).expect("a page");
    wait_until("the other host's container is known", || {
        let map = told(&mut socket, "map");
        let containers = map["containers"].as_array().cloned().unwrap_or_default();
        containers.iter().any(|one| one["id"] == id.as_str())
    });
    let watch = |id: &str| Message::text(format!("{{\"watch\": \"{id}\"}}"));
    socket.send(watch(&id)).expect("sent");
    let (mut lines, mut runs) = (Vec::new(), false);
    while lines.len() < 2 || !runs {
        let message = text(&mut socket);
        assert!(message["absent"].is_null(), "{message}");
        let written = message["lines"]["lines"].as_array().into_iter().flatten();
        lines.extend(written.map(|line| (line[0].clone(), line[2].clone())));
        runs |= message["taken"]["runs"] == true && message["taken"]["memory"].as_u64() > Some(0);
    }
    assert!(lines.contains(&(1.into(), "first\n".into())), "{lines:?}");
    assert!(lines.contains(&(2.into(), "second\n".into())), "{lines:?}");
    // No shell, whoever asks.
    let path = format!("/nuncio/v1/dashboard/containers/{id}/terminal");
    let allowed = [("nuncio-dashboard-exec", "allowed")];
    let refused = handshake(to_daemon(&a), &path, &allowed).err();
    assert_eq!(refused.map(|(status, _)| status), Some(404));
    // It is told that it has gone; and that a host is.
    b.ok("rm -f web");
    let absent = told(&mut socket, "absent");
    let why = absent["why"].as_str().unwrap_or_default();
    assert!(why.contains("host-2, where it runs: "), "{why}");
}

#[test]
fn hosts_that_tell_each_other_nothing_say_why() {
    let [a, b] = two_hosts(Image::Busybox, &[]);
    a.ok("run -d --name web busybox sleep 1000");
    let mut socket = page(&b).expect("a page");
    let id = id_of(&a, "web");
    wait_until("the other host's container is known", || {
        let map = told(&mut socket, "map");
        let containers = map["containers"].as_array().cloned().unwrap_or_default();
        containers.iter().any(|one| one["id"] == id.as_str())
    });
    let watch = format!("{{\"watch\": \"{id}\"}}");
    socket.send(Message::text(watch)).expect("sent");
    let absent = told(&mut socket, "absent");
    let why = absent["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("host-1") && why.contains("--insecure-peek"),
        "{why}"
    );
}

/// Two hosts without a mesh that tell each other what happens all the same.
#[track_caller]
fn two_hosts_that_tell() -> [Host; 2] {
    let underlay = Underlay::new();
    let (a, b) = (underlay.host(), underlay.host());
    a.start(&["--registry", "embedded", "--insecure-peek"]);
    let registry = a.registry_url();
    b.start(&["--registry", &registry, "--insecure-peek"]);
    for host in [&a, &b] {
        host.load(Image::Busybox);
    }
    [a, b]
}

#[test]
fn so_many_pages_and_no_more() {
    let host = one_host(&[]);
    let mut pages: Vec<_> = (0..64)
        .map(|_| page(&host).expect("room for a page"))
        .collect();
    let (status, why) = page(&host).expect_err("no room");
    assert_eq!(status, 503);
    assert!(why.contains("64 pages"), "{why}");
    // The page asks without a WebSocket why it is not let in.
    let proxy = Proxy::new(&host, "");
    let bearer = format!("Authorization: {}", proxy.bearer());
    let (status, said) = proxy.ask("/live", &["-H", &bearer]);
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("64 pages"), "{said}");
    for socket in &mut pages {
        assert_eq!(told(socket, "map")["hosts"][0]["name"], "host-1");
    }
    pages.truncate(63);
    wait_until("there is room again", || page(&host).is_ok());
}

#[test]
fn a_thousand_pages_at_once_leave_the_daemon_as_it_was() {
    let host = one_host(&[]);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.daemon_pid()))
            .expect("the daemon");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("how much it has resident") / 1024
    };
    let before = resident();
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..1000 {
        match page(&host) {
            Ok(socket) => open.push(socket),
            Err((status, _)) => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (64, 936));
    // None of them reads what it is sent; the daemon goes on.
    host.ok("run --rm busybox true");
    let after = resident();
    assert!(after < before + 64, "{before} MiB became {after}");

    // By its door, no more connections than so many are served, and the next is told.
    let proxy = Proxy::new(&host, "");
    let idle: Vec<_> = (0..512).map(|_| proxy.stream()).collect();
    let mut said = String::new();
    let _ = proxy.stream().read_to_string(&mut said); // it may be reset once it was told
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("512 connections"),
        "{said:?}"
    );
    drop(idle);
    let bearer = format!("Authorization: {}", proxy.bearer());
    wait_until("there is room again", || {
        let asked = proxy.curl("/map", &["-H", &bearer]);
        asked.code == 0 && asked.stdout.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn a_page_that_takes_nothing_is_let_go_and_holds_nobody_up() {
    let host = one_host(&[]);
    let work = "while true; do head -c 2000 /dev/zero | tr '\\0' x; echo; done";
    host.ok(["run", "-d", "--name", "loud", "busybox", "sh", "-c", work]);
    let id = id_of(&host, "loud");
    let mut stuck = page(&host).expect("a page");
    stuck
        .send(Message::text(format!("{{\"watch\": \"{id}\"}}")))
        .expect("sent");
    let mut other = page(&host).expect("a page");
    let mut maps = 0;
    wait_until("it is let go", || {
        assert!(!told(&mut other, "map").is_null());
        maps += 1;
        host.log()
            .contains("this page took nothing of what it was sent")
    });
    assert!(maps > 3, "the other one was told on: {maps}");
    host.ok("kill loud");
}

#[test]
fn it_ends_at_ctrl_c_and_opens_a_browser_by_a_token_for_once() {
    let host = one_host(&[]);
    let programs = host.scratch().join("programs");
    std::fs::create_dir(&programs).expect("make a directory");
    let opened = programs.join("opened");
    let script = format!(
        "#!/bin/sh\necho \"$1\" >{0}.new && mv {0}.new {0}\n",
        opened.display()
    );
    let program = programs.join("xdg-open");
    std::fs::write(&program, script).expect("write a program");
    let may_run = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, may_run).expect("let it be run");
    let mut command = host.client("dashboard --listen 127.0.0.1:0");
    let path = format!("{}:/usr/bin:/bin", programs.display());
    command.env("PATH", path).env("DISPLAY", ":0");
    let mut running = Spawned::new(command, None);
    running.until("\n");
    let printed = running.output();
    wait_until("a browser is opened", || opened.exists());
    let given = std::fs::read_to_string(&opened).expect("an address");
    let split = |url: &str| {
        let (address, token) = url.trim().split_once("/#token=").expect("a token");
        (address.to_owned(), token.to_owned())
    };
    let ((address, token), (same, once)) = (split(&printed), split(&given));
    assert_eq!(address, same);
    assert_ne!(token, once);
    let log_in = |token: &str| {
        let mut command = std::process::Command::new(super::support::tool("curl"));
        command.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", token]);
        command.arg(format!("{address}/login"));
        Spawned::new(command, None).finish().ok()
    };
    assert_eq!(
        [&once, &once, &token, &token].map(|token| log_in(token)),
        ["204", "401", "204", "204"]
    );
    let pid = nix::unistd::Pid::from_raw(running.pid().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal it");
    assert_eq!(running.finish().code, 0);
}

#[test]
fn what_is_no_request_for_a_path_harms_nobody() {
    let host = one_host(&[]);
    let proxy = Proxy::new(&host, "");
    for line in [
        "CONNECT localhost:1 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://localhost HTTP/1.1",
        "\x16\x03\x01\0\0",
    ] {
        let mut stream = proxy.stream();
        let asked = format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).expect("sent");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said); // what is left unread may reset it
        assert!(said.starts_with("HTTP/1.1 4"), "{line:?}: {said:?}");
    }
    assert_eq!(proxy.ask("/", &[]).0, 401);
}
