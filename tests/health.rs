//! Health checks, as both clients ask for them and see them.

mod support;

use support::{Host, Image, single, wait_until};

#[track_caller]
fn shown(host: &Host, name: &str, field: &str) -> String {
    host.ok(["inspect", "-f", &format!("{{{{{field}}}}}"), name])
}

fn is(host: &Host, name: &str, status: &str) -> bool {
    shown(host, name, ".State.Health.Status") == status
}

/// Runs a container that is well as long as it has `/well`.
#[track_caller]
fn run(host: &Host, name: &str, flags: &[&str]) {
    let check = "echo looked at it; test -e /well";
    let first = ["run", "-d", "--name", name, "--health-cmd", check];
    let pace = ["--health-interval", "100ms"];
    let own_pace = flags.contains(&"--health-interval");
    let rest = ["busybox", "sleep", "1000"];
    let words: Vec<&str> = first
        .iter()
        .chain(pace.iter().filter(|_| !own_pace))
        .chain(flags)
        .chain(&rest)
        .copied()
        .collect();
    host.docker(&words[..]).ok();
}

#[test]
fn a_container_becomes_well_and_ill() {
    let host = single(&[Image::Busybox]);
    run(
        &host,
        "web",
        &[
            "--health-retries",
            "2",
            "--health-start-period",
            "1h",
            "--health-start-interval",
            "50ms",
        ],
    );
    assert!(is(&host, "web", "starting"));
    assert!(
        host.ok("ps --format {{.Status}}")
            .ends_with(" (health: starting)")
    );
    wait_until("a check has failed", || {
        shown(&host, "web", ".State.Health.Log").contains("ExitCode:1")
    });
    assert!(is(&host, "web", "starting"), "it may fail while it starts");
    host.ok("exec web touch /well");
    wait_until("it is well", || is(&host, "web", "healthy"));
    assert!(
        host.docker("ps --format {{.Status}}")
            .ok()
            .ends_with(" (healthy)")
    );
    assert_eq!(host.ok("ps -q --filter health=healthy").lines().count(), 1);
    assert_eq!(host.docker("ps -q --filter health=unhealthy").ok(), "");
    let log = shown(&host, "web", "json .State.Health.Log");
    let log = host
        .docker([
            "inspect",
            "-f",
            "{{len .State.Health.Log}} {{(index .State.Health.Log 0).Output}}",
            "web",
        ])
        .ok()
        + &log;
    assert!(log.contains("looked at it"), "{log}");

    host.ok("exec web rm /well");
    wait_until("it is ill", || is(&host, "web", "unhealthy"));
    wait_until("five results are kept", || {
        host.docker(["inspect", "-f", "{{len .State.Health.Log}}", "web"])
            .ok()
            == "5"
    });
    let streak: u32 = shown(&host, "web", ".State.Health.FailingStreak")
        .parse()
        .expect("a number");
    assert!(streak >= 2);
    let told = host.ok([
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "-f",
        "event=health_status",
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(told, "health_status: healthy\nhealth_status: unhealthy");

    host.ok("stop -t 0 web");
    let count = shown(&host, "web", ".State.Health.FailingStreak");
    assert!(!host.ok("ps -a --format {{.Status}}").contains("health"));
    host.ok("start web");
    assert!(is(&host, "web", "starting"), "{count}");
    host.ok("rm -f web");
}

#[test]
fn a_check_that_takes_too_long_has_failed_and_is_gone() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "-d",
        "--name",
        "slow",
        "--health-cmd",
        "echo so far; sleep 987",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "200ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    wait_until("it is ill", || is(&host, "slow", "unhealthy"));
    let log = shown(&host, "slow", ".State.Health.Log");
    assert!(
        log.contains("Health check exceeded timeout (200ms): so far"),
        "{log}"
    );
    assert!(log.contains("ExitCode:-1"), "{log}");
    host.ok("pause slow");
    let left = host
        .ok("top slow")
        .lines()
        .filter(|line| line.contains("sleep 987"))
        .count();
    assert!(left <= 1, "{left} checks pile up");
    assert!(host.ok("ps --format {{.Status}}").ends_with("(Paused)"));
    host.ok("rm -f slow");
    let execs = host.exec_root().join("exec");
    wait_until("nothing is left of its checks", || {
        std::fs::read_dir(&execs).is_ok_and(|mut entries| entries.next().is_none())
    });
}

#[test]
fn checks_can_be_forbidden_and_nonsense_is_refused() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name plain --no-healthcheck busybox sleep 1000");
    assert_eq!(
        shown(&host, "plain", "json .Config.Healthcheck.Test"),
        r#"["NONE"]"#
    );
    assert_eq!(
        host.docker(["inspect", "-f", "{{.State.Health}}", "plain"])
            .ok(),
        "<nil>"
    );
    assert_eq!(host.ok("ps -q --filter health=none").lines().count(), 1);
    let conflict = "run --no-healthcheck --health-cmd true busybox true";
    assert_ne!(host.nuncio(conflict).code, 0);
    assert_ne!(host.docker(conflict).code, 0);
    let refused = host
        .docker("run --health-cmd true --health-interval 1ns busybox true")
        .refused(125);
    assert!(
        refused.contains("Interval in Healthcheck cannot be less than 1ms"),
        "{refused}"
    );
    let refused = host.nuncio("ps --filter health=fine").refused(1);
    assert!(refused.contains("health=fine"), "{refused}");
}

#[test]
fn the_next_daemon_knows_what_was_found_and_goes_on_checking() {
    let host = single(&[Image::Busybox]);
    run(&host, "web", &["--health-retries", "1"]);
    // Checked until it is well, and then not for an hour.
    let seldom = [
        "--health-interval",
        "1h",
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "50ms",
    ];
    run(&host, "seldom", &seldom);
    for name in ["web", "seldom"] {
        host.ok(["exec", name, "touch", "/well"]);
        wait_until("it is well", || is(&host, name, "healthy"));
    }
    let log = shown(&host, "seldom", "json .State.Health.Log");
    host.kill_daemon();
    host.start_again();
    for name in ["web", "seldom"] {
        assert!(is(&host, name, "healthy"), "{name}");
    }
    assert_eq!(shown(&host, "seldom", "json .State.Health.Log"), log);
    host.ok("exec web rm /well");
    wait_until("the next daemon finds it ill", || {
        is(&host, "web", "unhealthy")
    });

    // What was known at its end stays known, too.
    host.ok("stop -t 0 seldom");
    host.kill_daemon();
    host.start_again();
    assert!(is(&host, "seldom", "unhealthy"));
    assert_eq!(shown(&host, "seldom", "json .State.Health.Log"), log);
    host.ok("start seldom");
    assert!(is(&host, "seldom", "starting"));
    host.ok("rm -f web seldom");
}
