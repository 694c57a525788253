//! What the API does with requests that no client should send, and with versions that it does not speak.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;
use support::{Client, Host, Image, Spawned, single};

/// The status and the message of what the daemon answers.
#[track_caller]
fn asked(host: &Host, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let url = host.url();
    let path_of_socket = url.strip_prefix("unix://").expect("a unix socket");
    let mut socket = UnixStream::connect(path_of_socket).expect("the daemon listens");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    socket.write_all(head.as_bytes()).expect("send the head");
    let _ = socket.write_all(body); // it may be refused before it is read
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer to {method} {path}: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let value: Value = serde_json::from_str(body.trim()).unwrap_or_default();
    let message = value["message"].as_str().unwrap_or(body);
    (status, message.to_owned())
}

/// Method, path, headers and body of a request; status and words of the answer.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str);

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn what_is_wrong_with_a_request_is_told_with_dockers_status() {
    let host = single(&[Image::Busybox]);
    let create = "/v1.49/containers/create";
    let large = vec![b' '; (2 << 20) + 1];
    let cases: &[Case<'_>] = &[
        ("POST", create, JSON, b"{", 400, "invalid JSON: EOF"),
        (
            "POST",
            create,
            JSON,
            b"{} {}",
            400,
            "invalid JSON: trailing characters",
        ),
        ("POST", create, JSON, b"[]", 400, "config cannot be empty"),
        (
            "POST",
            create,
            JSON,
            b"{\"Image\": 7}",
            400,
            "invalid JSON: invalid type",
        ),
        ("POST", create, JSON, b"{}", 400, "no image specified"),
        (
            "POST",
            create,
            "",
            b"{}",
            400,
            "malformed Content-Type header",
        ),
        (
            "POST",
            create,
            "Content-Type: text/plain\r\n",
            b"{}",
            400,
            "unsupported Content-Type header (text/plain)",
        ),
        ("POST", create, JSON, &large, 413, "request body too large"),
        (
            "POST",
            "/v1.49/containers/create?name=-x",
            JSON,
            b"{\"Image\":\"busybox\"}",
            400,
            "Invalid container name (-x)",
        ),
        (
            "POST",
            create,
            JSON,
            b"{\"Image\":\"nosuch\"}",
            404,
            "No such image: nosuch:latest",
        ),
        (
            "GET",
            "/v1.49/containers/nosuch/json",
            "",
            b"",
            404,
            "No such container: nosuch",
        ),
        (
            "GET",
            "/v1.49/containers/%2e%2e%2fx/json",
            "",
            b"",
            404,
            "No such container",
        ),
        (
            "GET",
            "/v1.49/containers/json?filters=[1",
            "",
            b"",
            400,
            "invalid filter",
        ),
        (
            "GET",
            "/v1.49/containers/json?filters=%7B%22colour%22:%5B%22x%22%5D%7D",
            "",
            b"",
            400,
            "invalid filter 'colour'",
        ),
        (
            "GET",
            "/v1.49/containers/json?limit=many",
            "",
            b"",
            400,
            "limit",
        ),
        (
            "GET",
            "/v1.49/images/nosuch/json",
            "",
            b"",
            404,
            "No such image: nosuch",
        ),
        (
            "GET",
            "/v1.49/images/busybox/json?platform=%7B",
            "",
            b"",
            400,
            "invalid platform",
        ),
        (
            "GET",
            "/v1.49/exec/nosuch/json",
            "",
            b"",
            404,
            "No such exec instance: nosuch",
        ),
        (
            "GET",
            "/v1.49/networks/nosuch",
            "",
            b"",
            404,
            "network nosuch not found",
        ),
        (
            "DELETE",
            "/v1.49/networks/bridge",
            "",
            b"",
            403,
            "pre-defined network and cannot be removed",
        ),
        (
            "GET",
            "/v1.49/volumes/nosuch",
            "",
            b"",
            404,
            "no such volume",
        ),
        (
            "POST",
            "/v1.49/containers/nosuch/kill?signal=NOSUCH",
            "",
            b"",
            404,
            "No such container: nosuch",
        ),
        ("GET", "/v1.49/nosuch", "", b"", 404, "page not found"),
        (
            "PATCH",
            "/v1.49/containers/json",
            "",
            b"",
            404,
            "page not found",
        ),
        (
            "GET",
            "/v1.23/info",
            "",
            b"",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24",
        ),
        (
            "GET",
            "/v1.99/info",
            "",
            b"",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.49",
        ),
        ("POST", "/v1.49/build", "", b"", 501, "not built: build"),
        (
            "GET",
            "/v1.49/services",
            "",
            b"",
            501,
            "not built: services",
        ),
    ];
    for (method, path, headers, body, status, words) in cases {
        let (answered, message) = asked(&host, method, path, headers, body);
        assert_eq!(answered, *status, "{method} {path}: {message}");
        assert!(message.contains(words), "{method} {path}: {message}");
    }
    host.ok("ps"); // it is none the worse
}

#[test]
fn clients_of_versions_that_are_not_spoken_are_told() {
    let host = single(&[]);
    for client in Client::ALL {
        for (version, words) in [
            (
                "1.20",
                "client version 1.20 is too old. Minimum supported API version is 1.24",
            ),
            (
                "1.99",
                "client version 1.99 is too new. Maximum supported API version is 1.49",
            ),
        ] {
            let mut command = match client {
                Client::Docker => host.docker_client("ps"),
                Client::Nuncio => host.client("ps"),
            };
            let told = Spawned::new(run_with(&mut command, version), None).finish();
            assert_eq!(told.code, 1, "{told:?}");
            assert!(told.stderr.contains(words), "{client:?}: {told:?}");
        }
        let mut command = match client {
            Client::Docker => host.docker_client("version --format {{.Client.APIVersion}}"),
            Client::Nuncio => host.client("version --format {{.Client.APIVersion}}"),
        };
        let told = Spawned::new(run_with(&mut command, "1.41"), None).finish();
        assert_eq!(told.ok(), "1.41", "{client:?}");
        assert_eq!(client.ok(&host, "version --format {{.Client.APIVersion}}/{{.Server.APIVersion}}/{{.Server.MinAPIVersion}}"), "1.49/1.49/1.24");
        assert_eq!(
            client.ok(
                &host,
                "info --format {{.Swarm.LocalNodeState}}/{{.ClientInfo.Context}}"
            ),
            "inactive/default"
        );
    }
}

/// The command with another version of the API.
fn run_with(command: &mut Command, version: &str) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other.env("DOCKER_API_VERSION", version);
    other
}
