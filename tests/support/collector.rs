//! A collector of OpenTelemetry that takes traces by OTLP over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, spawn};

use nix::sched::{CloneFlags, setns};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::host::Host;

/// A span, and what it is of.
type Got = (Vec<KeyValue>, Span);

/// It listens until the test ends.
pub(crate) struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    /// Requests that are still to be answered 503.
    refusals: Arc<AtomicUsize>,
}

impl Collector {
    /// Listens in the host's network namespace, at this port or, for 0, at any.
    #[track_caller]
    pub(crate) fn listen(host: &Host, port: u16) -> Self {
        let namespace = std::fs::File::open(host.netns()).expect("open the namespace");
        let listener = scope(|scope| {
            let bound = scope.spawn(|| {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                TcpListener::bind(("127.0.0.1", port)).expect("listen")
            });
            bound.join().expect("no panic")
        });
        let address = listener.local_addr().expect("an address");
        let (got, refusals) = (Arc::default(), Arc::default());
        let collector = Self {
            address,
            got: Arc::clone(&got),
            refusals: Arc::clone(&refusals),
        };
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (got, refusals) = (Arc::clone(&got), Arc::clone(&refusals));
                spawn(move || serve(&stream, &got, &refusals));
            }
        });
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Is out of order for so many requests.
    pub(crate) fn refuse(&self, requests: usize) {
        self.refusals.store(requests, Ordering::SeqCst);
    }

    /// Whether it has refused as often as it was to.
    pub(crate) fn has_refused(&self) -> bool {
        self.refusals.load(Ordering::SeqCst) == 0
    }

    /// The spans so far that have this name.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        let got = self.got.lock().expect("no panic");
        let of_name = got.iter().filter(|(_, span)| span.name == name);
        of_name.map(|(_, span)| span.clone()).collect()
    }

    /// All names so far.
    pub(crate) fn names(&self) -> Vec<String> {
        let got = self.got.lock().expect("no panic");
        got.iter().map(|(_, span)| span.name.clone()).collect()
    }

    /// What the first span is of.
    pub(crate) fn resource(&self) -> Vec<KeyValue> {
        let got = self.got.lock().expect("no panic");
        got.first().map(|(of, _)| of.clone()).unwrap_or_default()
    }
}

/// An attribute as text; nothing, if it is not there.
pub(crate) fn attribute(all: &[KeyValue], key: &str) -> String {
    let found = all.iter().find(|one| one.key == key);
    match found.and_then(|one| one.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

/// Answers one request after the other, until the connection is closed.
fn serve(stream: &TcpStream, got: &Mutex<Vec<Got>>, refusals: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader) {
        let mut stream = stream;
        let less = |left: usize| left.checked_sub(1);
        if refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
        {
            let _ = stream.write_all(b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        assert!(head[0].starts_with("POST /v1/traces HTTP/1.1"), "{head:?}");
        let kind = "content-type: application/x-protobuf";
        assert!(head.iter().any(|line| line == kind), "{head:?}");
        let request = ExportTraceServiceRequest::decode(&*body).expect("protobuf");
        {
            let mut got = got.lock().expect("no panic");
            for of in request.resource_spans {
                let resource = of.resource.unwrap_or_default().attributes;
                let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
                got.extend(spans.map(|span| (resource.clone(), span)));
            }
        }
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
    }
}

/// The lines of a request's head, in lower case but for the first, and its body.
fn request(reader: &mut impl BufRead) -> Option<(Vec<String>, Vec<u8>)> {
    let mut head: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            first if head.is_empty() => head.push(first.to_owned()),
            line => head.push(line.to_lowercase()),
        }
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}
