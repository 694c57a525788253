//! docker-py, Docker's library for Python, on nuncio's socket: what `tests/sdk/docker_py.py` does with it.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::{Image, Spawned, plain_registry, single, tool};

/// Runs a part of the script on a host of its own.
#[track_caller]
fn part(name: &str) {
    let host = single(&[Image::Busybox, Image::Redis]);
    let registry = (name == "images").then(|| plain_registry(&host));
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("target/tools/python-docker");
    assert!(
        library.is_dir(),
        "there is no docker-py; `make deps-test` gets what the tests need"
    );
    let mut command = Command::new(tool("python3"));
    command
        .arg(root.join("tests/sdk/docker_py.py"))
        .args([name, "127.0.0.1:5000"])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DOCKER_HOST", host.url())
        .env("DOCKER_CONFIG", host.scratch());
    Spawned::new(command, None).finish().ok();
    drop(registry);
}

#[test]
fn the_daemon_tells_of_itself() {
    part("system");
}

#[test]
fn images_are_named_carried_and_fetched() {
    part("images");
}

#[test]
fn containers_are_run_for_what_they_say() {
    part("run");
}

#[test]
fn a_container_lives_from_create_to_remove() {
    part("life");
}

#[test]
fn streams_are_followed_and_fed() {
    part("streams");
}

#[test]
fn files_go_in_and_come_out() {
    part("files");
}

#[test]
fn volumes_are_kept_and_shared() {
    part("volumes");
}

#[test]
fn networks_are_joined_and_left() {
    part("networks");
}

#[test]
fn events_are_heard_and_remembered() {
    part("events");
}

#[test]
fn health_is_checked() {
    part("health");
}
