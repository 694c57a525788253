//! `import`: an image from the tar of a root file system.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Host, Image, Spawned, single, tool};

/// The files of busybox as a tar.
fn root(host: &Host) -> PathBuf {
    let (layout, bundle) = (host.scratch().join("layout"), host.scratch().join("bundle"));
    let source = format!("oci-archive:{}:latest", Image::Busybox.archive().display());
    let image = format!("{}:latest", layout.display());
    let archive = host.scratch().join("root.tar");
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            &source,
            &format!("oci:{image}"),
        ],
    );
    run("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let files = bundle.join("rootfs");
    run("tar", &["-C", text(&files), "-cf", text(&archive), "."]);
    archive
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(tool(program));
    command.args(args);
    Spawned::new(command, None).finish().ok();
}

#[test]
fn files_become_an_image() {
    let host = single(&[]);
    let archive = root(&host);
    let change = "ENV COLOUR=green";
    let args = [
        "import",
        "-c",
        "CMD [\"sh\", \"-c\", \"echo $COLOUR\"]",
        "-c",
        change,
        "-m",
        "made",
    ];
    let id = host.ok(&[&args[..], &[text(&archive), "own:1"]].concat()[..]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(host.ok("inspect -f {{.Id}} own:1"), id);
    assert_eq!(host.ok("run --rm --network none own:1"), "green");
    assert_eq!(host.ok("history --format {{.Comment}} own:1"), "made");
    assert_eq!(host.ok("image inspect -f {{.Comment}} own:1"), "made");

    let theirs = host
        .docker(&[&args[..], &[text(&archive), "theirs"]].concat()[..])
        .ok();
    assert!(theirs.starts_with("sha256:"), "{theirs}");
    assert_eq!(host.ok("run --rm --network none theirs"), "green");
    // compressed, from standard input, without a name
    run("gzip", &[text(&archive)]);
    let bytes = fs::read(archive.with_extension("tar.gz")).expect("read");
    let unnamed = host.nuncio_with(&bytes, "import -").ok();
    let comment = host.ok(["history", "--format", "{{.Comment}}", &unnamed]);
    assert_eq!(comment, "Imported from -");
    assert_eq!(
        host.ok([
            "run",
            "--rm",
            "--network",
            "none",
            &unnamed,
            "echo",
            "hello"
        ]),
        "hello"
    );
    assert_eq!(
        host.ok("images -q --filter dangling=true").lines().count(),
        1
    );
}

#[test]
fn what_makes_no_image_leaves_nothing() {
    let host = single(&[]);
    let file = host.scratch().join("file");
    fs::write(&file, "no tar").expect("write");
    let outside = host.scratch().join("outside.tar");
    run(
        "tar",
        &[
            "-C",
            text(host.scratch()),
            "-P",
            "-cf",
            text(&outside),
            "./../../etc/hostname",
        ],
    );
    for (args, says) in [
        (vec!["import", text(&file), "x"], "read the archive"),
        (vec!["import", text(&outside), "x"], "contains \"..\""),
        (
            vec!["import", "-c", "RUN make", text(&file)],
            "RUN is not a valid change command",
        ),
        (
            vec!["import", "http://example.org/root.tar", "x"],
            "import from a URL",
        ),
        (vec!["import", text(&file), "Upper"], "must be lowercase"),
    ] {
        for message in [
            host.nuncio(&args[..]).refused(1),
            host.docker(&args[..]).stderr.trim_end().to_owned(),
        ] {
            assert!(message.contains(says), "{args:?}: {message}");
        }
    }
    assert_eq!(host.ok("images -aq"), "");
    let blobs = host.data_root().join("images/blobs/sha256");
    assert_eq!(fs::read_dir(blobs).expect("the store").count(), 0);
}
