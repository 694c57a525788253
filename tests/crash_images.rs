//! The daemon is killed while images come, change and go: each is there whole or not at all, and of what is not there
//! nothing is left.

mod support;

use std::fs;

use support::{Host, Operation, Scene, plain_registry};

/// The tar of a root file system with two files, small enough that each call counts.
fn root(host: &Host) -> String {
    let path = host.scratch().join("root.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).expect("make it"));
    for name in ["etc/one", "etc/two"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        let added = archive.append_data(&mut header, name, &b"abc"[..]);
        added.expect("add a file");
    }
    archive.finish().expect("end it");
    path.display().to_string()
}

#[test]
fn an_image_comes_whole_or_not_at_all() {
    let scene = Scene::new(|host| {
        host.ok(&format!("import {} own:1", root(host)));
        let saved = host.scratch().join("own.tar");
        host.ok(&format!("save -o {} own:1", saved.display()));
        host.ok("rmi own:1");
    });
    let scratch = scene.host.scratch().display();
    let load = format!("load -i {scratch}/own.tar");
    for run in [&load, &format!("import {scratch}/root.tar own:1")] {
        scene.walk(&Operation {
            run,
            undo: &["rmi own:1"],
            ..Operation::default()
        });
    }
    scene.walk(&Operation {
        prepare: &[&load],
        run: "rmi own:1",
        ..Operation::default()
    });
}

#[test]
fn an_image_is_pulled_whole_or_not_at_all() {
    let registry = std::cell::OnceCell::new();
    let scene = Scene::new(|host| {
        registry.get_or_init(|| plain_registry(host));
        host.ok(&format!("import {} 127.0.0.1:5000/own:1", root(host)));
        host.ok("push 127.0.0.1:5000/own:1");
        host.ok("rmi 127.0.0.1:5000/own:1");
    });
    scene.walk(&Operation {
        run: "pull 127.0.0.1:5000/own:1",
        undo: &["rmi 127.0.0.1:5000/own:1"],
        ..Operation::default()
    });
}

#[test]
fn an_image_is_made_of_a_container_or_is_not() {
    let scene = Scene::new(|_| ());
    scene.walk(&Operation {
        prepare: &[
            "run -d --network none --name box busybox sleep 1000",
            "exec box touch /new",
        ],
        run: "commit box own:1",
        undo: &["rmi own:1", "rm -f box"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        run: "tag busybox other:1",
        undo: &["rmi other:1"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["tag busybox other:1"],
        run: "rmi other:1",
        ..Operation::default()
    });
}
