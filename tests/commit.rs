//! `commit`: an image of a container, by both clients.

mod support;

use support::{Host, Image, single, wait_until};

/// What a container does to its files before it is made an image.
const CHANGES: &str = "set -e; \
    mkdir -p /own/sub; echo one >/own/file; ln /own/file /own/twice; ln -s file /own/link; chmod 4750 /own/sub; \
    rm -r /usr/bin/socat* /var; mkdir /var; echo new >/var/only; mkfifo /own/fifo; chown 7:8 /own/fifo; \
    echo 127.0.0.1 me >>/etc/hosts; echo done; while :; do sleep 0.05; done";
/// What is to be seen of it in the image.
const LOOK: &str = "cat /own/file /own/link; stat -c '%a %h' /own/sub /own/file; ls /var; ls /usr/bin/socat* 2>&1; \
    stat -c '%F %u %g' /own/fifo; grep -c me$ /etc/hosts || true";

#[track_caller]
fn changed(host: &Host, name: &str) {
    host.ok([
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        CHANGES,
    ]);
    wait_until("it has made its changes", || {
        host.ok(["logs", name]) == "done"
    });
}

#[test]
fn a_container_becomes_an_image() {
    let host = single(&[Image::Busybox]);
    changed(&host, "web");
    let base = host.ok("inspect -f {{.Id}} busybox");
    let ours = host.ok(["commit", "-a", "me", "-m", "with own files", "web", "own:1"]);
    let theirs = host
        .docker([
            "commit",
            "-a",
            "me",
            "-m",
            "with own files",
            "web",
            "theirs",
        ])
        .ok();
    for (id, name) in [(ours, "own:1"), (theirs, "theirs")] {
        assert_eq!(host.ok(["inspect", "-f", "{{.Id}}", name]), id);
        let seen = host.ok(["run", "--rm", "--network", "none", name, "sh", "-c", LOOK]);
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(
            lines[..5],
            ["one", "one", "4750 2", "644 2", "only"],
            "{seen}"
        );
        assert!(lines[5].contains("No such file"), "{seen}");
        assert_eq!(lines[6..], ["fifo 7 8", "0"], "{seen}");
        assert_eq!(
            host.ok([
                "inspect",
                "-f",
                "{{.Author}}|{{.Comment}}|{{.Parent}}",
                name
            ]),
            format!("me|with own files|{base}")
        );
        let history = host.ok(["history", "--format", "{{.ID}}|{{.Comment}}", name]);
        let first = format!("{}|with own files", &id["sha256:".len()..][..12]);
        assert_eq!(history.lines().next(), Some(first.as_str()), "{history}");
        assert_eq!(history.lines().count(), 2, "{history}");
    }
    // it goes on, and what it was made of only loses its name
    assert_eq!(host.ok("exec web cat /own/file"), "one");
    host.ok("rm -f web");
    assert_eq!(host.ok("rmi busybox"), "Untagged: busybox:latest");
    host.ok("run --rm --network none own:1 true");
    host.ok("rmi own:1");
    let removed = host.docker("rmi theirs").ok();
    assert!(removed.contains(&format!("Deleted: {base}")), "{removed}");
    assert_eq!(host.ok("images -aq"), "");
}

#[test]
fn an_image_says_what_the_container_did_and_the_changes() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "create", "--name", "web", "-e", "A=1", "-w", "/tmp", "-u", "7", "--label", "l=1",
        "--expose", "80", "busybox", "sh", "-c", "id -u",
    ]);
    host.ok("commit web same");
    assert_eq!(host.ok("run --rm --network none same"), "7");
    let fields = "{{json .Config.Env}} {{.Config.WorkingDir}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}";
    let config = host.ok(["inspect", "-f", fields, "same"]);
    for part in ["A=1", "/tmp", "{\"l\":\"1\"}", "{\"80/tcp\":{}}"] {
        assert!(config.contains(part), "{config}");
    }
    // nothing was changed, so there is no layer of its own
    let layers = |name: &str| host.ok(["inspect", "-f", "{{.RootFS.Layers}}", name]);
    assert_eq!(layers("same"), layers("busybox"));

    let changes = [
        "ENTRYPOINT [\"echo\"]",
        "CMD [\"a\"]",
        "USER 0",
        "ENV B=2",
        "EXPOSE 81/udp",
        "LABEL m=2",
    ];
    let mut args = vec!["commit"];
    changes
        .iter()
        .for_each(|change| args.extend(["--change", change]));
    args.extend(["web", "other:1"]);
    host.ok(&args[..]);
    assert_eq!(host.ok("run --rm --network none other:1"), "a");
    args.truncate(args.len() - 1);
    args.push("other:2");
    host.docker(&args[..]).ok();
    let of = |name: &str| host.ok(["inspect", "-f", "{{json .Config}}", name]);
    assert_eq!(of("other:1"), of("other:2"));
    for (words, says) in [
        (vec!["commit", "nosuch"], "No such container: nosuch"),
        (
            vec!["commit", "-c", "RUN x", "web"],
            "RUN is not a valid change command",
        ),
        (
            vec!["commit", "-c", "EXPOSE x", "web"],
            "invalid containerPort: x",
        ),
        (vec!["commit", "web", "Upper"], "must be lowercase"),
    ] {
        for message in [
            host.nuncio(&words[..]).refused(1),
            host.docker(&words[..]).refused(1),
        ] {
            assert!(message.contains(says), "{words:?}: {message}");
        }
    }
    let unnamed = host.ok("commit --pause=false web");
    assert_eq!(
        host.ok("images -q --no-trunc --filter dangling=true"),
        unnamed
    );
}

#[test]
fn a_paused_container_stays_so_and_others_go_on() {
    let host = single(&[Image::Busybox]);
    changed(&host, "web");
    host.ok("pause web");
    host.ok("commit web one");
    assert_eq!(host.ok("inspect -f {{.State.Status}} web"), "paused");
    host.ok("unpause web");
    host.ok("commit web two");
    assert_eq!(host.ok("inspect -f {{.State.Status}} web"), "running");
    assert_eq!(host.ok("exec web echo hello"), "hello");
    host.ok("rm -f web");
}
