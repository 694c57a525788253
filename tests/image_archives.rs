//! `save` and `load`, with archives of and for others' programs.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Host, Image, Spawned, single, tool};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a program that others made.
#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(tool(program));
    command.args(args);
    Spawned::new(command, None).finish().ok()
}

fn id(host: &Host, image: &str) -> String {
    host.ok(["inspect", "-f", "{{.Id}}", image])
}

#[test]
fn what_is_saved_is_loaded_again_as_it_was() {
    let host = single(&[Image::Busybox, Image::Redis]);
    host.ok("tag busybox team/tools:1");
    let ids = [id(&host, "busybox"), id(&host, "redis")];
    let ours = host.scratch().join("ours.tar");
    let theirs = host.scratch().join("theirs.tar");
    host.ok([
        "save",
        "-o",
        text(&ours),
        "busybox",
        "redis",
        "team/tools:1",
    ]);
    host.docker([
        "save",
        "-o",
        text(&theirs),
        "busybox",
        "redis",
        "team/tools:1",
    ])
    .ok();
    assert!(
        fs::read(&ours).expect("read") == fs::read(&theirs).expect("read"),
        "the same images make the same archive"
    );
    for (archive, with_docker) in [(&ours, true), (&theirs, false)] {
        host.ok("image prune -af");
        assert_eq!(host.ok("images -q"), "");
        let args = ["load", "-i", text(archive)];
        let told = if with_docker {
            host.docker(args).ok()
        } else {
            host.ok(args)
        };
        for name in ["busybox:latest", "redis:latest", "team/tools:1"] {
            assert!(told.contains(&format!("Loaded image: {name}")), "{told}");
        }
        assert_eq!([id(&host, "team/tools:1"), id(&host, "redis")], ids);
        assert_eq!(
            host.ok("run --rm --network none busybox echo hello"),
            "hello"
        );
    }
    // a name alone is all its tags; an id is none
    host.ok("tag redis busybox:odd");
    host.ok(["save", "-o", text(&ours), "busybox"]);
    assert_eq!(
        run("tar", &["-xOf", text(&ours), "repositories"])
            .matches("odd")
            .count(),
        1
    );
    host.ok(["save", "-o", text(&ours), &ids[0]]);
    host.ok("image prune -af");
    let told = host.ok(["load", "-q", "-i", text(&ours)]);
    assert_eq!(told, format!("Loaded image ID: {}", ids[0]));
}

#[test]
fn others_read_what_is_saved() {
    let host = single(&[Image::Busybox]);
    let archive = host.scratch().join("busybox.tar");
    host.ok(["save", "-o", text(&archive), "busybox"]);
    let inspect = |kind: &str| {
        let source = format!("{kind}:{}", text(&archive));
        run("skopeo", &["inspect", "--config", &source])
    };
    assert!(inspect("docker-archive").contains("diff_ids"));
    assert!(inspect("oci-archive").contains("diff_ids"));
    let layout = host.scratch().join("layout");
    let bundle = host.scratch().join("bundle");
    let target = format!("oci:{}:latest", text(&layout));
    let source = format!("docker-archive:{}", text(&archive));
    run(
        "skopeo",
        &["copy", "-q", "--insecure-policy", &source, &target],
    );
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["unpack", "--image", &image, text(&bundle)]);
    assert!(bundle.join("rootfs/bin/busybox").exists());
}

#[test]
fn what_others_save_is_loaded() {
    let host = single(&[]);
    let source = format!("oci-archive:{}:latest", Image::Busybox.archive().display());
    let plain = host.scratch().join("docker.tar");
    let target = format!("docker-archive:{}:team/tools:2", text(&plain));
    run(
        "skopeo",
        &["copy", "-q", "--insecure-policy", &source, &target],
    );
    // changed by umoci, and packed as an OCI archive
    let layout = host.scratch().join("layout");
    let image = format!("{}:latest", text(&layout));
    let copied = format!("oci:{image}");
    run(
        "skopeo",
        &["copy", "-q", "--insecure-policy", &source, &copied],
    );
    let config = [
        "config",
        "--author",
        "me",
        "--config.cmd",
        "id",
        "--image",
        &image,
    ];
    run("umoci", &config);
    let packed = host.scratch().join("oci.tar");
    run("tar", &["-C", text(&layout), "-cf", text(&packed), "."]);

    let gzip = host.scratch().join("docker.tar.gz");
    let zstd = host.scratch().join("docker.tar.zst");
    run("gzip", &["-k", text(&plain)]);
    run("zstd", &["-q", "-k", text(&plain), "-o", text(&zstd)]);
    for archive in [&plain, &gzip, &zstd] {
        let told = host.docker(["load", "-i", text(archive)]).ok();
        assert!(told.ends_with("Loaded image: team/tools:2"), "{told}");
        let bytes = fs::read(archive).expect("read the archive");
        let told = host.nuncio_with(&bytes, "load").ok();
        assert_eq!(told, "Loaded image: team/tools:2");
        host.ok("run --rm --network none team/tools:2 true");
        host.ok("rmi team/tools:2");
    }
    let told = host.ok(["load", "-i", text(&packed)]);
    let id = told.strip_prefix("Loaded image ID: ").expect(&told);
    assert_eq!(host.ok(["inspect", "-f", "{{.Author}}", id]), "me");
    assert!(
        host.ok(["run", "--rm", "--network", "none", id])
            .contains("uid=0")
    );
    let history = host.ok(["history", "--no-trunc", "--format", "{{.CreatedBy}}", id]);
    assert!(history.contains("umoci config"), "{history}");
    // a name that moves leaves the image that had it
    host.ok(["tag", id, "team/tools:2"]);
    let told = host.ok(["load", "-i", text(&plain)]);
    let moved = "The image team/tools:2 already exists, renaming the old one with ID sha256:";
    assert!(told.contains(moved), "{told}");
    let unnamed = host
        .docker("images -q --no-trunc --filter dangling=true")
        .ok();
    assert_eq!(unnamed, id);
    assert!(host.ok("image prune -f").contains(id));
}

#[test]
fn archives_that_are_none_are_refused() {
    let host = single(&[Image::Busybox]);
    let file = host.scratch().join("archive");
    for (content, says) in [
        (&b"not a tar"[..], "read the archive"),
        (&[0; 1024][..], "neither index.json"),
    ] {
        fs::write(&file, content).expect("write");
        let ours = host.nuncio(["load", "-i", text(&file)]).refused(1);
        let theirs = host.docker(["load", "-i", text(&file)]).refused(1);
        assert!(
            ours.contains(says) && theirs.contains(says),
            "{ours} {theirs}"
        );
    }
    let nowhere = host.scratch().join("no/such");
    let message = host
        .nuncio(["save", "-o", text(&nowhere), "busybox"])
        .refused(1);
    assert!(message.contains("does not exist"), "{message}");
    let kept = host.scratch().join("kept");
    fs::write(&kept, "mine").expect("write");
    host.nuncio(["save", "-o", text(&kept), "nosuch"])
        .refused(1);
    assert_eq!(fs::read_to_string(&kept).expect("read"), "mine");
    let message = host.nuncio(["load", "-i", text(&nowhere)]).refused(1);
    assert!(message.contains("No such file"), "{message}");
}
