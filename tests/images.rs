//! Images on one host, by nuncio's own client and the real docker client: listed, named, removed, pruned.

mod support;

use support::{Host, Image, single};

/// Both clients say the same.
#[track_caller]
fn both(host: &Host, words: &str) -> String {
    let ours = host.ok(words);
    assert_eq!(ours, host.docker(words).ok(), "{words}");
    ours
}

/// Both clients fail with the same words of the daemon.
#[track_caller]
fn both_refused(host: &Host, words: &str) -> String {
    let theirs = host.docker(words).refused(1);
    let ours = host.nuncio(words).refused(1);
    let ours = ours.strip_prefix("nuncio: ").unwrap_or(&ours);
    assert_eq!(ours, theirs.trim_start_matches("Error: "), "{words}");
    ours.to_owned()
}

#[test]
fn lists_are_narrowed_and_formatted() {
    let host = single(&[Image::Busybox, Image::Redis]);
    host.ok("tag busybox localhost:5000/team/tools:1");
    host.ok("tag busybox busybox:1.35");
    let names = |words: &str| {
        let words = format!("images --format {{{{.Repository}}}}:{{{{.Tag}}}} {words}");
        // Docker's client lists the names of one image in no order.
        let sorted = |text: String| {
            let mut names: Vec<&str> = text.lines().collect();
            names.sort_unstable();
            names.join(" ")
        };
        let ours = sorted(host.ok(&words));
        assert_eq!(ours, sorted(host.docker(&words).ok()), "{words}");
        ours
    };
    let all = "busybox:1.35 busybox:latest localhost:5000/team/tools:1 redis:latest";
    assert_eq!(names(""), all);
    assert_eq!(names("-a"), all);
    for (words, expected) in [
        ("busybox", "busybox:1.35 busybox:latest"),
        ("busybox:1.35", "busybox:1.35"),
        ("--filter reference=b*:1*", "busybox:1.35"),
        (
            "--filter reference=*/*/tools",
            "localhost:5000/team/tools:1",
        ),
        ("--filter reference=b[t-v]sy?ox:latest", "busybox:latest"),
        ("--filter dangling=false redis", "redis:latest"),
        ("--filter dangling=true", ""),
        ("--filter label=nosuch", ""),
        ("nosuch", ""),
    ] {
        assert_eq!(names(words), expected, "{words}");
    }
    for words in [
        "images redis",
        "images --digests redis",
        "images --no-trunc redis",
        "image ls redis",
        "image list redis",
        "images -q",
        "images -q --no-trunc redis",
        "images --format {{.ID}}|{{.Size}}|{{.Digest}}|{{.Containers}} redis",
    ] {
        assert!(!both(&host, words).is_empty(), "{words}");
    }
    let made = "{{.ID}} --filter before=redis";
    let older = both(&host, &format!("images --format {made}"));
    let newer = both(&host, "images --format {{.ID}} --filter since=redis");
    assert!(older.is_empty() || newer.is_empty(), "{older} {newer}");
    for (words, says) in [
        (
            "images --filter before=nosuch",
            "No such image: nosuch:latest",
        ),
        (
            "images --filter dangling=maybe",
            "invalid filter 'dangling=maybe'",
        ),
        ("images --filter colour=red", "invalid filter 'colour'"),
        ("images --filter reference=[", "syntax error in pattern"),
    ] {
        let message = both_refused(&host, words);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn names_come_and_go() {
    let host = single(&[Image::Busybox]);
    host.docker("tag busybox a/b").ok();
    host.ok("image tag busybox c:1");
    let names = || {
        host.ok("images --format {{.Repository}}:{{.Tag}}")
            .replace('\n', " ")
    };
    assert_eq!(names(), "a/b:latest busybox:latest c:1");
    assert_eq!(host.docker("rmi a/b").ok(), "Untagged: a/b:latest");
    assert_eq!(host.ok("image rm c:1"), "Untagged: c:1");
    for words in [
        "tag nosuch x",
        "rmi nosuch",
        "history nosuch",
        "save nosuch",
    ] {
        let message = both_refused(&host, words);
        assert!(message.contains("No such image: nosuch"), "{message}");
    }
    let message = host.nuncio("tag busybox Upper").refused(1);
    assert!(message.contains("must be lowercase"), "{message}");

    let id = host.ok("create --name cc busybox true");
    for words in ["rmi busybox", "image rm busybox:latest"] {
        let message = both_refused(&host, words);
        let expected = format!(
            "(must force) - container {} is using its referenced image",
            &id[..12]
        );
        assert!(message.contains(&expected), "{message}");
    }
    host.ok("tag busybox other");
    host.ok("rmi busybox"); // one of several names only goes
    let image = host.ok("images -q");
    let message = both_refused(&host, &format!("rmi {image}"));
    assert!(message.contains("(must be forced)"), "{message}");
    assert_eq!(host.docker("rmi -f other").ok(), "Untagged: other:latest");
    host.ok("start -a cc");
    host.ok("rm cc");
    let removed = host.ok(&format!("rmi {image}"));
    assert!(removed.starts_with("Deleted: sha256:"), "{removed}");
    assert_eq!(host.ok("images -aq"), "");
    assert_eq!(host.ok("rmi -f nosuch"), "");
}

#[test]
fn what_is_known_of_an_image() {
    let host = single(&[Image::Busybox]);
    for field in [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Parent",
        "Comment",
        "Created",
        "Author",
        "Architecture",
        "Os",
        "Size",
        "RootFS.Layers",
        "RootFS.Type",
        "Config.Cmd",
        "Config.Env",
        "GraphDriver.Name",
    ] {
        both(&host, &format!("image inspect -f {{{{.{field}}}}} busybox"));
    }
    let tagged = |host: &Host| host.ok("image inspect -f {{.Metadata.LastTagTime}} busybox");
    assert!(!tagged(&host).starts_with("0001"), "{}", tagged(&host));
    let before = tagged(&host);
    host.stop_daemon();
    host.start_again();
    assert_eq!(tagged(&host), before);

    both(&host, "history busybox");
    both(
        &host,
        "history --no-trunc --format {{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}} busybox",
    );
    both(&host, "history -q busybox");
    both(&host, "history --human=false busybox");
    let steps = both(&host, "image history --format {{.ID}} busybox");
    let id = host.ok("images -q busybox");
    assert_eq!(steps.lines().next(), Some(id.as_str()));
}

#[test]
fn what_happens_to_images_is_told() {
    let host = single(&[Image::Busybox]);
    host.ok("tag busybox other:1");
    host.ok("rmi other:1");
    host.docker("rmi busybox").ok();
    let words = [
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--filter",
        "type=image",
    ];
    let format = ["--format", "{{.Action}} {{.Actor.Attributes.name}}"];
    let told = host.ok(&[&words[..], &format[..]].concat()[..]);
    let id = told
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("load "));
    let id = id.expect(&told);
    let expected =
        format!("load {id}\ntag other:1\nuntag other:1\nuntag busybox:latest\ndelete {id}");
    assert_eq!(told, expected);
}

#[test]
fn pruning_takes_what_nothing_needs() {
    let host = single(&[Image::Busybox, Image::Redis]);
    host.ok("create --name cc busybox true");
    host.ok("tag redis other:1");
    let nothing = host.ok("image prune -f");
    assert_eq!(nothing, "Total reclaimed space: 0B");
    // who does not say yes means no
    let asked = host.nuncio_with(b"n\n", "image prune -a");
    assert!(asked.stdout.contains("[y/N]"), "{}", asked.stdout);
    assert_eq!(host.ok("images -q").lines().count(), 3);
    let kept = host.docker("image prune -af --filter until=876000h").ok();
    assert_eq!(kept, "Total reclaimed space: 0B");
    let kept = host.ok("image prune -af --filter label=nosuch");
    assert_eq!(kept, "Total reclaimed space: 0B");
    let message = host.nuncio("image prune -f --filter colour=red").refused(1);
    assert!(message.contains("invalid filter 'colour'"), "{message}");

    let pruned = host.docker("image prune -af").ok();
    assert!(pruned.contains("untagged: other:1"), "{pruned}");
    assert!(pruned.contains("deleted: sha256:"), "{pruned}");
    assert!(!pruned.contains("space: 0B"), "{pruned}");
    assert_eq!(host.ok("images --format {{.Repository}}"), "busybox");
    host.ok("rm cc");
    let pruned = host.nuncio_with(b"y\n", "image prune -a").ok();
    assert!(pruned.contains("untagged: busybox:latest"), "{pruned}");
    assert_eq!(host.ok("images -aq"), "");
}
