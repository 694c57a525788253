//! Pulling, from Debian's docker-registry inside the host's namespace.

mod support;

use std::fs;

use support::{Host, Image, Spawned, single};

/// A registry on the loopback of `host`, with busybox in it.
fn stocked_registry(host: &Host) -> Spawned {
    let registry = support::plain_registry(host);
    let source = format!("oci-archive:{}:latest", Image::Busybox.archive().display());
    for name in ["library/busybox:1.35", "team/tools:stable"] {
        let target = format!("docker://127.0.0.1:5000/{name}");
        host.inside(
            "skopeo",
            [
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &source,
                &target,
            ],
        )
        .ok();
    }
    registry
}

#[test]
fn pulled_images_run() {
    let host = single(&[]);
    let _registry = stocked_registry(&host);
    host.ok("pull 127.0.0.1:5000/library/busybox:1.35");
    assert_eq!(
        host.ok("run --rm 127.0.0.1:5000/library/busybox:1.35 echo hello"),
        "hello"
    );
    let again = host.ok("pull 127.0.0.1:5000/library/busybox:1.35");
    assert!(again.contains("up to date"), "{again}");
    // `run` pulls what is missing.
    let run = host.nuncio("run --rm 127.0.0.1:5000/team/tools:stable echo hello");
    assert_eq!(run.ok(), "hello");
}

#[test]
fn by_digest_and_with_the_docker_client() {
    let host = single(&[]);
    let _registry = stocked_registry(&host);
    let pulled = host.docker("pull 127.0.0.1:5000/team/tools:stable").ok();
    let digest = pulled
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .expect("the digest is told")
        .to_owned();
    assert!(digest.starts_with("sha256:"), "{digest}");
    host.ok(&format!("pull 127.0.0.1:5000/team/tools@{digest}"));
    assert_eq!(
        host.ok(&format!(
            "run --rm 127.0.0.1:5000/team/tools@{digest} echo hello"
        )),
        "hello"
    );
}

#[test]
fn what_is_not_there_cannot_be_pulled() {
    let host = single(&[]);
    let _registry = stocked_registry(&host);
    for (name, says) in [
        ("127.0.0.1:5000/team/tools:nosuch", "nosuch"),
        ("127.0.0.1:5000/nosuch:1", "127.0.0.1:5000/nosuch"),
        ("127.0.0.1:5001/team/tools:stable", "127.0.0.1:5001"),
        ("127.0.0.1:5000/Team/tools", "Team"),
    ] {
        let message = host.nuncio(["pull", name]).refused(1);
        assert!(message.contains(says), "{name}: {message}");
    }
    assert_eq!(host.ok("images -q"), "");
}

#[test]
fn a_blob_that_was_tampered_with_is_refused() {
    let host = single(&[]);
    let _registry = stocked_registry(&host);
    let blobs = host
        .inside(
            "find",
            [
                host.scratch().to_str().expect("a path in UTF-8"),
                "-path",
                "*blobs*",
                "-name",
                "data",
                "-size",
                "+64k",
            ],
        )
        .ok();
    let blob = blobs.lines().next().expect("there is a layer");
    let mut bytes = fs::read(blob).expect("read the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(blob, bytes).expect("change the layer");
    let message = host
        .nuncio("pull 127.0.0.1:5000/team/tools:stable")
        .refused(1);
    assert!(message.contains("sha256:"), "{message}");
    assert_eq!(host.ok("images -q"), "");
}
