//! What the daemon tells of what happens, to both clients.

mod support;

use support::{Host, Image, single, wait_until};

/// To the nanosecond: the docker client makes whole seconds of `0s`, and leaves out what is of this one.
fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// The events of a container so far, by name, with its network's.
#[track_caller]
fn past(host: &Host, more: &[&str]) -> Vec<String> {
    let words = ["events", "--since", "1", "--until", &now()];
    let format = ["--format", "{{.Type}} {{.Action}}"];
    let words: Vec<&str> = words.iter().chain(&format).chain(more).copied().collect();
    let ours = host.ok(&words[..]);
    let theirs = host.docker(&words[..]).ok();
    assert_eq!(ours, theirs, "both clients are told the same");
    ours.lines().map(str::to_owned).collect()
}

#[test]
fn a_life_is_told_in_order() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name web --label tier=front busybox sleep 1000");
    host.ok("exec web true");
    host.docker("pause web").ok();
    host.docker("unpause web").ok();
    host.ok("rename web site");
    host.docker("stop -t 0 site").ok();
    host.ok("start site");
    host.ok("kill -s KILL site");
    host.ok("rm site");
    let told = past(&host, &["--filter", "type=container"]);
    let expected = [
        "create",
        "start",
        "exec_create: true",
        "exec_start: true",
        "exec_die",
        "pause",
        "unpause",
        "rename",
        "kill",
        "kill",
        "die",
        "stop",
        "start",
        "kill",
        "die",
        "destroy",
    ];
    let expected = expected.map(|action| format!("container {action}"));
    assert_eq!(told, expected);
    let networks = past(
        &host,
        &["--filter", "type=network", "--filter", "network=bridge"],
    );
    let expected = ["connect", "disconnect", "connect", "disconnect"];
    assert_eq!(networks, expected.map(|action| format!("network {action}")));
}

#[test]
fn volumes_and_networks_have_lives_too() {
    let host = single(&[Image::Busybox]);
    host.ok("volume create data");
    host.docker("volume create data").ok();
    host.ok("network create --label a=b net");
    host.ok("run --rm -v data:/data:ro -v /cache --network net busybox true");
    host.ok("volume rm data");
    host.docker("network rm net").ok();
    let told = past(&host, &["--filter", "type=volume"]);
    let expected = [
        "create", "create", "mount", "mount", "unmount", "unmount", "destroy", "destroy",
    ];
    assert_eq!(told, expected.map(|action| format!("volume {action}")));
    let told = past(&host, &["--filter", "volume=data"]);
    let expected = ["create", "mount", "unmount", "destroy"];
    assert_eq!(told, expected.map(|action| format!("volume {action}")));
    let told = past(&host, &["--filter", "network=net"]);
    let expected = ["create", "connect", "disconnect", "destroy"];
    assert_eq!(told, expected.map(|action| format!("network {action}")));
    let filters = ["--filter", "event=mount", "--filter", "volume=data"];
    let words = ["events", "--since", "1", "--until", &now(), "--format"];
    let format = "{{.Actor.ID}} {{.Actor.Attributes.destination}} {{index .Actor.Attributes \"read/write\"}}";
    let words: Vec<&str> = words.into_iter().chain([format]).chain(filters).collect();
    assert_eq!(host.ok(&words[..]), "data /data false");
    assert_eq!(host.docker(&words[..]).ok(), "data /data false");
}

#[test]
fn filters_narrow_what_is_told() {
    let host = single(&[Image::Busybox]);
    host.ok("run --name one --label tier=front busybox true");
    assert_eq!(host.nuncio("run --name two busybox false").code, 1);
    for (filters, expected) in [
        (&["container=one", "event=die"][..], 1),
        (&["event=die"], 2),
        (&["event=die", "event=create"], 4),
        (&["label=tier=front", "event=die"], 1),
        (&["image=busybox", "event=die"], 2),
        (&["image=redis"], 0),
        (&["type=volume"], 0),
    ] {
        let words: Vec<&str> = filters.iter().flat_map(|&filter| ["-f", filter]).collect();
        assert_eq!(past(&host, &words).len(), expected, "{filters:?}");
    }
    let code = host.docker([
        "events",
        "--since",
        "1",
        "--until",
        &now(),
        "--filter",
        "container=two",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    assert_eq!(code.ok(), "1");
    let refused = host.nuncio("events --filter colour=red").refused(1);
    assert!(refused.contains("invalid filter"), "{refused}");
}

#[test]
fn who_listens_hears_at_once() {
    let host = single(&[Image::Busybox]);
    let mut ours = host.spawn("events --filter event=start");
    let mut theirs = host.spawn_docker("events --filter event=start");
    // A listener is there when its request is answered, which it does not show: start until both have heard.
    wait_until("both hear", || {
        host.ok("run --rm --name web busybox true");
        ours.says("container start") && theirs.says("container start")
    });
    let line = ours.output();
    assert!(line.contains("(image=busybox, name=web)"), "{line}");
    assert_eq!(
        theirs
            .output()
            .lines()
            .next()
            .and_then(|line| line.split(' ').nth(2)),
        Some("start")
    );
}

#[test]
fn prunes_are_told() {
    let host = single(&[Image::Busybox]);
    for prune in ["container", "network", "volume", "image"] {
        host.ok(&format!("{prune} prune -f"));
        let kind = format!("type={prune}");
        let told = past(&host, &["--filter", &kind, "--filter", "event=prune"]);
        assert_eq!(told, [format!("{prune} prune")]);
    }
}

#[test]
fn checks_of_health_are_told_to_who_listens_and_not_remembered() {
    let host = single(&[Image::Busybox]);
    let mut ours = host.spawn("events --filter container=web");
    let mut theirs = host.spawn_docker("events --filter container=web");
    let run = "run -d --name web --health-interval 100ms --health-cmd true busybox sleep 1000";
    host.ok(run);
    for line in [
        "exec_create: /bin/sh -c true",
        "exec_start: /bin/sh -c true",
        "exec_die",
    ] {
        wait_until(line, || ours.says(line) && theirs.says(line));
    }
    let told = past(&host, &["--filter", "type=container"]);
    assert!(told.iter().all(|line| !line.contains("exec")), "{told:?}");
}

/// What both clients print and end with, where nothing is left to their own words.
#[track_caller]
fn alike(host: &Host, words: &[&str]) -> (i32, String) {
    let [ours, theirs] = [host.nuncio(words), host.docker(words)];
    assert_eq!(ours.code, theirs.code, "{words:?}: {ours:?} {theirs:?}");
    assert_eq!(ours.stdout, theirs.stdout, "{words:?}");
    (ours.code, ours.stdout)
}

#[test]
fn times_and_formats_are_dockers_and_so_is_what_is_wrong_with_them() {
    let host = single(&[Image::Busybox]);
    host.ok("run --name done --label a=b busybox echo hello");
    host.ok("volume create data");
    let until = now();
    let events = ["events", "--since", "1h", "--until", &until];
    for format in [
        "{{.Type}} {{.Status}} {{.ID}} {{.From}} {{.Scope}} {{.Time}} {{.TimeNano}}",
        "{{.Actor.ID}} {{.Actor.Attributes.name}} {{.Actor.Attributes.nobody}}",
        "{{json .}}",
        "json",
    ] {
        let (code, told) = alike(&host, &[&events[..], &["--format", format]].concat());
        assert!(code == 0 && told.lines().count() > 5, "{format}: {told}");
    }
    assert!(!alike(&host, &events).1.is_empty(), "with the same times");
    for wrong in ["{{.Nope}", "{{"] {
        assert_eq!(
            alike(&host, &[&events[..], &["--format", wrong]].concat()).0,
            64
        );
    }
    let logs = host.ok("logs -t done");
    let time = logs
        .split(' ')
        .next()
        .expect("a time")
        .trim_end_matches('Z');
    let minute = &time[..16];
    let zoned = format!("{time}Z");
    for given in [
        "",
        time,
        minute,
        &time[..10],
        &zoned,
        "1h",
        "0s",
        "1",
        "-1",
        "soon",
        "1x",
    ] {
        for bound in ["--since", "--until"] {
            let (code, _) = alike(&host, &["logs", bound, given, "done"]);
            assert_eq!(
                code,
                i32::from(["-1", "soon", "1x"].contains(&given)),
                "{given:?}"
            );
        }
        if !["0s", "1h", "1"].contains(&given) {
            alike(
                &host,
                &[
                    "events",
                    "--since",
                    given,
                    "--until",
                    &until,
                    "--format",
                    "{{.Action}}",
                ],
            );
        }
    }
    let words = ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"];
    host.ok("run -d --name one busybox sleep 1000");
    host.ok("run -d --name two busybox sleep 1000");
    let (_, told) = alike(&host, &[&words[..], &["two", "one", "done"]].concat());
    assert_eq!(told, "two 1\none 1\ndone 0\n");
}
