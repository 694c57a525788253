//! The daemon is killed at the system calls by which it changes what lies on disk, what is mounted and what links there
//! are. The next one starts, finds things as they were before or as they were to become, and once they are removed nothing
//! is left.

mod support;

use std::process::Stdio;

use support::{Operation, Scene, Trap};

#[test]
fn a_container_is_made_and_removed_whole() {
    let scene = Scene::new(|_| ());
    scene.walk(&Operation {
        prepare: &["volume create data"],
        run: "create --name box -v /etc -v data:/data -p 80 busybox sleep 1000",
        undo: &["rm -v box", "volume rm data"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["create --name box -v /etc busybox true"],
        run: "rm -v box",
        undo: &[],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["run -d --name box -v /etc busybox sleep 1000"],
        run: "rm -f -v box",
        first_step: Some("kill box"),
        undo: &[],
    });
}

#[test]
fn a_container_is_changed_or_as_it_was() {
    let scene = Scene::new(|_| ());
    scene.walk(&Operation {
        prepare: &["create --name box busybox true"],
        run: "rename box other",
        undo: &["rm other"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["create --name box busybox true"],
        run: "update --memory 64m box",
        undo: &["rm box"],
        ..Operation::default()
    });
}

#[test]
fn a_container_runs_or_does_not() {
    let scene = Scene::new(|_| ());
    scene.walk(&Operation {
        prepare: &["create --name box -v /etc -p 80 busybox sleep 1000"],
        run: "start box",
        undo: &["rm -f -v box"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["run -d --stop-signal KILL --name box -v /etc -p 80 busybox sleep 1000"],
        run: "stop box",
        undo: &["rm -v box"],
        ..Operation::default()
    });
}

#[test]
fn a_network_is_made_and_removed_whole() {
    let scene = Scene::new(|_| ());
    for (create, remove) in [
        ("network create net", "network rm net"),
        ("network create -d overlay mesh", "network rm mesh"),
    ] {
        scene.walk(&Operation {
            prepare: &[],
            run: create,
            undo: &[remove],
            ..Operation::default()
        });
        let network = create.split(' ').next_back().expect("a name");
        let used = format!("run --rm --network {network} busybox true");
        scene.walk(&Operation {
            prepare: &[create, &used],
            run: remove,
            undo: &[],
            ..Operation::default()
        });
    }
}

#[test]
fn a_container_is_on_a_network_or_is_not() {
    let scene = Scene::new(|host| {
        host.ok("network create net");
        host.ok("network create -d overlay mesh");
        // What a network's first container of all makes is there from then on.
        host.ok("run --rm --network net busybox true");
        host.ok("run --rm --network mesh busybox true");
    });
    for (network, running) in [("net", false), ("net", true), ("mesh", true)] {
        let make = if running {
            "run -d --name box busybox sleep 1000"
        } else {
            "create --name box busybox true"
        };
        let connect = format!("network connect {network} box");
        let disconnect = format!("network disconnect {network} box");
        scene.walk(&Operation {
            prepare: &[make],
            run: &connect,
            undo: &["rm -f box"],
            ..Operation::default()
        });
        scene.walk(&Operation {
            prepare: &[make, &connect],
            run: &disconnect,
            undo: &["rm -f box"],
            ..Operation::default()
        });
    }
}

#[test]
fn a_volume_is_made_and_removed_whole() {
    let scene = Scene::new(|_| ());
    scene.walk(&Operation {
        prepare: &[],
        run: "volume create data",
        undo: &["volume rm data"],
        ..Operation::default()
    });
    scene.walk(&Operation {
        prepare: &["volume create data", "run --rm -v data:/etc busybox true"],
        run: "volume rm data",
        undo: &[],
        ..Operation::default()
    });
}

/// What a client keeps of accounts is as it was, or as it was to become.
#[test]
fn a_client_that_is_killed_keeps_what_it_knows_of_accounts() {
    let host = support::Underlay::new().host();
    let path = host.scratch().join("config.json");
    let before =
        r#"{"auths": {"a.example": {"auth": "YTpi"}, "b.example": {"auth": "Yzpk"}}, "x": 1}"#;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let mut after = parse(before);
    let auths = after["auths"].as_object_mut().expect("accounts");
    auths.remove("a.example");
    let mut killed = 0;
    for deadly in 1.. {
        std::fs::write(&path, before).expect("write what it knows");
        let mut logout = host.client("logout a.example");
        logout.stdin(Stdio::null()).stdout(Stdio::null());
        let (mut child, trap) = Trap::spawn(logout, Some(deadly));
        let ended = child.wait().expect("wait for it");
        let found = parse(&std::fs::read_to_string(&path).expect("it is there"));
        let whole = [&parse(before), &after].contains(&&found);
        assert!(whole, "killed at {:?}: {found}", trap.set(None));
        if ended.success() {
            assert_eq!(found, after);
            break;
        }
        killed += 1;
    }
    assert!(killed > 1, "hardly ever killed");
}
