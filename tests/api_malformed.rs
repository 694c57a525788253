//! What the API does not take: malformed, too large or of nothing that is there. Each has its status and a message.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use support::{Host, Image, single};

/// An answer: its status, and the message if it is an error as Docker's clients expect it.
#[derive(Debug)]
struct Refused {
    status: u16,
    message: String,
}

/// Sends a request, with `headers` each ending in CRLF, and reads the answer to its end.
#[track_caller]
fn send(host: &Host, line: &str, headers: &str, body: &[u8]) -> Refused {
    let mut socket = UnixStream::connect(host.exec_root().join("nuncio.sock")).expect("connect");
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    // It may answer and close before it has all.
    let _ = socket.write_all(head.as_bytes());
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    Refused {
        status: status.unwrap_or_else(|| panic!("{line}: {head:?}")),
        message: body["message"].as_str().unwrap_or_default().to_owned(),
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[track_caller]
fn refuses(host: &Host, line: &str, headers: &str, body: &[u8], status: u16, says: &str) {
    let refused = send(host, line, headers, body);
    let shown = String::from_utf8_lossy(&body[..body.len().min(100)]);
    assert_eq!(refused.status, status, "{line} {shown}: {refused:?}");
    assert!(
        refused.message.contains(says),
        "{line} {shown}: {refused:?}"
    );
    assert!(!refused.message.is_empty(), "{line} {shown}: {refused:?}");
}

#[test]
fn bodies_that_are_no_json_or_not_of_that_type() {
    let host = single(&[]);
    let takes_a_body = [
        "/containers/create",
        "/networks/create",
        "/volumes/create",
        "/v1.43/containers/create?name=web",
        "/auth",
    ];
    for path in takes_a_body {
        let line = format!("POST {path}");
        for (body, says) in [
            ("{", "invalid JSON: EOF"),
            ("{\"Name\":", "invalid JSON: EOF"),
            ("[1", "invalid JSON"),
            ("{} {}", "invalid JSON: trailing characters"),
            ("nonsense", "invalid JSON"),
            ("\u{0}", "invalid JSON"),
        ] {
            refuses(&host, &line, JSON, body.as_bytes(), 400, says);
        }
        let text = "Content-Type: text/plain\r\n";
        refuses(
            &host,
            &line,
            text,
            b"{}",
            400,
            "unsupported Content-Type header (text/plain)",
        );
        refuses(
            &host,
            &line,
            "",
            b"{}",
            400,
            "malformed Content-Type header",
        );
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        refuses(
            &host,
            &line,
            form,
            b"a=b",
            400,
            "unsupported Content-Type header",
        );
    }
    for path in &takes_a_body[..4] {
        let line = format!("POST {path}");
        refuses(
            &host,
            &line,
            JSON,
            b"{\"Name\":\"\xff\"}",
            400,
            "invalid JSON",
        );
    }
    for body in ["7", "\"x\"", "[]", "{\"Image\":7}", "{\"HostConfig\":[]}"] {
        for path in ["/containers/create", "/networks/create"] {
            let line = format!("POST {path}");
            refuses(&host, &line, JSON, body.as_bytes(), 400, "");
        }
    }
    for (body, says) in [
        ("[]", "config cannot be empty"),
        ("{\"Image\": 7}", "invalid JSON: invalid type"),
        ("{}", "no image specified"),
    ] {
        let line = "POST /containers/create";
        refuses(&host, line, JSON, body.as_bytes(), 400, says);
    }
    host.ok("version");
}

#[test]
fn bodies_and_heads_that_are_too_large() {
    let host = single(&[]);
    let mut body = b"{\"Image\":\"".to_vec();
    body.resize(3 << 20, b'a');
    body.extend(b"\"}");
    for path in ["/containers/create", "/networks/create", "/volumes/create"] {
        refuses(
            &host,
            &format!("POST {path}"),
            JSON,
            &body,
            413,
            "too large",
        );
    }
    // What is nested too deeply is not followed.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"Labels\":{deep}}}");
    refuses(
        &host,
        "POST /containers/create",
        JSON,
        deep.as_bytes(),
        400,
        "recursion limit",
    );
    let long = format!("X-Long: {}\r\n", "a".repeat(2 << 20));
    let status = send(&host, "GET /version", &long, b"").status;
    assert_eq!(status, 431);
    let status = send(&host, &format!("GET /{}", "a".repeat(1 << 20)), "", b"").status;
    assert!([404, 414, 431].contains(&status), "{status}");
    host.ok("version");
}

#[test]
fn names_ids_and_parameters_that_cannot_be() {
    let host = single(&[Image::Busybox]);
    let container = b"{\"Image\":\"busybox\",\"Cmd\":[\"true\"]}";
    for name in ["a", "-web", "a%2Fb", "a%20b", ".x", "%C3%A9%C3%A9"] {
        let line = format!("POST /containers/create?name={name}");
        refuses(&host, &line, JSON, container, 400, "Invalid container name");
    }
    for name in ["..%2Fx", "a", "-data", "a%20b"] {
        let name = name.replace("%2F", "/").replace("%20", " ");
        let body = serde_json::json!({ "Name": name }).to_string();
        refuses(
            &host,
            "POST /volumes/create",
            JSON,
            body.as_bytes(),
            400,
            "",
        );
    }
    for (line, status, says) in [
        ("GET /containers/none/json", 404, "No such container: none"),
        (
            "POST /containers/none/start",
            404,
            "No such container: none",
        ),
        (
            "POST /containers/none/kill?signal=NOSUCH",
            404,
            "No such container: none",
        ),
        ("DELETE /containers/none", 404, "No such container: none"),
        ("GET /containers/..%2F..%2Fx/json", 404, "No such container"),
        ("GET /containers/%00/json", 404, ""),
        ("GET /containers/%ff/json", 400, ""),
        ("GET /images/none/json", 404, "No such image: none"),
        (
            "GET /images/busybox/json?platform=%7B",
            400,
            "invalid platform",
        ),
        ("DELETE /images/none", 404, "No such image: none"),
        ("GET /networks/nowhere", 404, "network nowhere not found"),
        (
            "DELETE /networks/bridge",
            403,
            "pre-defined network and cannot be removed",
        ),
        ("GET /volumes/none", 404, "no such volume"),
        ("DELETE /volumes/none", 404, "no such volume"),
        ("GET /exec/none/json", 404, "No such exec instance: none"),
        ("GET /nowhere", 404, "page not found"),
        ("PUT /version", 404, "page not found"),
        ("PATCH /containers/json", 404, "page not found"),
        (
            "GET /v1.99/version",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.49",
        ),
        (
            "GET /v1.1/version",
            400,
            "client version 1.1 is too old. Minimum supported API version is 1.24",
        ),
        ("GET /containers/json?filters=%7B", 400, "invalid filter"),
        (
            "GET /containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
            400,
            "invalid filter 'colour'",
        ),
        ("GET /containers/json?limit=some", 400, "limit"),
        ("GET /events?since=yesterday", 400, ""),
        ("POST /images/create?fromImage=UPPER%20case", 400, ""),
        (
            "POST /images/create?fromImage=busybox&platform=%2F%2F",
            400,
            "",
        ),
        ("POST /images/busybox/tag?repo=A%20B", 400, ""),
        ("POST /commit?container=none", 404, ""),
        ("POST /build", 501, "not built: build"),
        ("GET /services/none", 404, "service none not found"),
        ("GET /tasks/none", 404, "task none not found"),
        ("GET /nodes/none", 404, "node none not found"),
        ("DELETE /services/none", 404, "service none not found"),
        (
            "GET /services?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
            400,
            "invalid filter 'colour'",
        ),
        (
            "GET /tasks?filters=%7B%22desired-state%22%3A%5B%22red%22%5D%7D",
            400,
            "desired-state=red",
        ),
        (
            "GET /services/none/logs?stdout=1",
            404,
            "service none not found",
        ),
    ] {
        refuses(&host, line, "", b"", status, says);
    }
    let line = "POST /containers/create";
    let absent = b"{\"Image\":\"none\"}";
    refuses(&host, line, JSON, absent, 404, "No such image: none:latest");
    let wrong = "X-Registry-Auth: !!!\r\n";
    let line = "POST /images/create?fromImage=127.0.0.1:1/x";
    refuses(&host, line, wrong, b"", 400, "X-Registry-Auth");
    host.ok("version");
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn what_is_no_http_is_cut_off_and_the_daemon_serves_on() {
    let host = single(&[]);
    let path = host.exec_root().join("nuncio.sock");
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /containers/create HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ] {
        let mut socket = UnixStream::connect(&path).expect("connect");
        socket.write_all(bytes).expect("it reads");
        socket.shutdown(std::net::Shutdown::Write).expect("half-close");
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        host.ok("version");
    }
}
