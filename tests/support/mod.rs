//! Hosts made of network namespaces, with the built binary in them, from outside.
//!
//! Everything made here is named after this process and removed when its guard is dropped, also by a failed test.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unused_imports, reason = "each test binary uses a part of it")]

mod browser;
mod capture;
mod clients;
mod clock;
mod collector;
mod command;
mod compose;
mod etcd;
mod host;
mod image;
mod recorder;
mod registry;
mod relay;
mod remains;
mod scene;
mod strace;
mod sys;
mod tmux;
mod trap;
mod underlay;

use std::time::{Duration, Instant};

pub(crate) use browser::Browser;
pub(crate) use capture::Capture;
pub(crate) use clients::Client;
pub(crate) use clock::Clock;
pub(crate) use collector::{Collector, attribute};
pub(crate) use command::{Args, Finished, Spawned, tool};
pub(crate) use compose::{NOTHING, Project, everything};
pub(crate) use etcd::{Etcds, pairs};
pub(crate) use host::Host;
pub(crate) use image::Image;
pub(crate) use recorder::{Asked, Recorder};
pub(crate) use registry::{RegistryKind, guarded_registry, plain_registry, registry};
pub(crate) use relay::Relay;
pub(crate) use remains::Remains;
pub(crate) use scene::{Operation, Scene, points, view};
pub(crate) use strace::Hidden;
pub(crate) use tmux::{Terminal, typed};
pub(crate) use trap::Trap;
pub(crate) use underlay::Underlay;

/// How long anything may take that is expected to happen at once; generous, for machines under load.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Looks until `condition` is met, at most [`SOON`].
///
/// # Panics
///
/// When the time is over, naming `what` was waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not so after {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Hosts on one underlay: the first keeps the registry, the others join it. `images` are loaded on each.
#[track_caller]
pub(crate) fn cluster<const N: usize>(images: &[Image]) -> [Host; N] {
    let underlay = Underlay::new();
    let hosts = std::array::from_fn(|_| underlay.host());
    let first: &Host = &hosts[0];
    first.start(&["--registry", "embedded"]);
    for host in &hosts[1..] {
        host.start(&["--registry", &first.registry_url()]);
    }
    for host in &hosts {
        for image in images {
            host.load(*image);
        }
    }
    hosts
}

/// One host by itself.
#[track_caller]
pub(crate) fn single(images: &[Image]) -> Host {
    let [host] = cluster(images);
    host
}
