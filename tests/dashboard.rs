//! The dashboard: its page in a real browser, and its server as others than browsers find it.

mod support;

#[path = "dashboard/page.rs"]
mod page;
#[path = "dashboard/pictures.rs"]
mod pictures;
#[path = "dashboard/server.rs"]
mod server;

use serde_json::Value;
use support::{Host, Image, Spawned, Underlay};

/// Where a daemon serves it, in its host's namespace.
const ADDRESS: &str = "127.0.0.1:8440";

/// Two hosts of which the second serves the dashboard, with these flags beside.
#[track_caller]
fn two_hosts(image: Image, flags: &[&str]) -> [Host; 2] {
    let underlay = Underlay::new();
    let (a, b) = (underlay.host(), underlay.host());
    a.start(&["--registry", "embedded"]);
    let registry = a.registry_url();
    let own = ["--registry", &registry, "--dashboard-addr", ADDRESS];
    b.start(&[&own[..], flags].concat());
    a.load(image);
    b.load(image);
    [a, b]
}

/// One host that serves it.
#[track_caller]
fn one_host(flags: &[&str]) -> Host {
    let host = Underlay::new().host();
    let own = ["--registry", "embedded", "--dashboard-addr", ADDRESS];
    host.start(&[&own[..], flags].concat());
    host.load(Image::Busybox);
    host
}

/// The id of a container.
#[track_caller]
fn id_of(host: &Host, name: &str) -> String {
    host.ok(["inspect", "-f", "{{.Id}}", name])
}

/// A dashboard of its own that serves this machine's loopback for as long as it is kept, and where.
#[track_caller]
fn proxied(host: &Host, flags: &str) -> (Spawned, String) {
    let mut running = host.spawn(&format!("dashboard --no-open --listen 127.0.0.1:0 {flags}"));
    running.until("\n");
    let url = running.output().trim().to_owned();
    (running, url)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
