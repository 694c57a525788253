//! The ambassador alone: a program of its own, and the image made of it for containers that other engines run.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Finished, Image, Spawned, cluster, tool, wait_until};

const AMBASSADOR: &str = env!("CARGO_BIN_EXE_nuncio-ambassador");
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ambassador/build.sh");

#[track_caller]
fn run(program: impl AsRef<Path>, args: &[&str]) -> Finished {
    let mut command = Command::new(program.as_ref());
    command.args(args);
    Spawned::new(command, None).finish()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The archive that `make ambassador-image` would make of the program under test.
#[track_caller]
fn archive(directory: &Path) -> PathBuf {
    let (binary, archive) = (directory.join("stripped"), directory.join("ambassador.tar"));
    run(tool("strip"), &["-o", path(&binary), AMBASSADOR]).ok();
    let told = run(BUILD, &[path(&binary), path(&archive)]).ok();
    assert!(told.contains("nuncio/ambassador"), "{told}");
    archive
}

#[test]
fn it_has_the_commands_of_an_ambassador_and_no_others() {
    let help = run(AMBASSADOR, &["ambassador", "--help"]).ok();
    let all = run(env!("CARGO_BIN_EXE_nuncio"), &["ambassador", "--help"]).ok();
    assert_eq!(help, all);
    for (words, code, says) in [
        (&["run", "redis"][..], 1, "unknown command: run"),
        (&["daemon"], 1, "unknown command: daemon"),
        (&["ambassador", "--names"], 125, "unknown flag: --names"),
        (&["ambassador"], 1, "REDIS_PORT_6379_TCP="),
        (&["ambassador", "check", "/nonexistent"], 1, "/nonexistent"),
        (
            &["flows", "--admin", "unix:///nonexistent"],
            1,
            "is it running?",
        ),
    ] {
        let message = run(AMBASSADOR, words).refused(code);
        assert!(message.contains(says), "{words:?}: {message}");
    }
}

#[test]
fn its_image_stands_between_containers() {
    let [a, b] = cluster(&[Image::Redis]);
    let archive = archive(a.scratch());
    for kind in ["docker-archive", "oci-archive"] {
        let image = format!("{kind}:{}", path(&archive));
        let config = run(tool("skopeo"), &["inspect", "--config", &image]).ok();
        let config: Value = serde_json::from_str(&config).expect("JSON");
        let entrypoint = &config["config"]["Entrypoint"];
        assert_eq!(*entrypoint, json!(["/nuncio", "ambassador"]), "{kind}");
    }
    let manifest = run("tar", &["-xOf", path(&archive), "manifest.json"]).ok();
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest[0]["RepoTags"], json!(["nuncio/ambassador:latest"]));
    let config = manifest[0]["Config"].as_str().expect("a path");
    // the daemon's own image has the same name
    let id = config.strip_prefix("blobs/sha256/").expect("a digest");

    a.ok("run -d --name store -p 7000:6379 redis");
    b.ok(["load", "-i", path(&archive)]);
    let target = format!("STORE_PORT_6379_TCP=tcp://{}:7000", a.address);
    b.ok(&format!(
        "run -d --name far --expose 6379 -e {target} {id} --admin unix:///tmp/a.sock"
    ));
    wait_until("redis answers by way of it", || {
        let ping = "run -i --rm --link far:store redis redis-cli -h store ping";
        b.nuncio(ping).stdout.trim() == "PONG"
    });
    let explained = b.ok("exec far /nuncio explain store --admin unix:///tmp/a.sock");
    assert!(explained.contains(&a.address.to_string()), "{explained}");
    b.ok("stop far");
    let code = b.ok("inspect --format {{.State.ExitCode}} far");
    assert_eq!(code, "0", "SIGTERM ends it in order");
}

#[test]
fn one_that_is_too_large_is_not_packed() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = directory.path().join("ambassador.tar");
    let mut build = Command::new(BUILD);
    build.args([AMBASSADOR, path(&archive)]).env("MOST", "1000");
    let message = Spawned::new(build, None).finish().refused(1);
    assert!(message.contains("more than 1000"), "{message}");
    assert!(!archive.exists());
}
