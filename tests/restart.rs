//! Restart policies, over ends, requests, and daemons that come and go.

mod support;

use std::time::{Duration, Instant};

use support::{Host, Image, single, wait_until};

/// A command that ends with 3 at once, after it has noted that it ran.
const FAILS: [&str; 3] = ["sh", "-c", "echo ran; exit 3"];

#[track_caller]
fn shown(host: &Host, name: &str, field: &str) -> String {
    host.ok(["inspect", "-f", &format!("{{{{{field}}}}}"), name])
}

/// Runs `command` in the background as `name` under a policy.
#[track_caller]
fn run(host: &Host, name: &str, policy: &str, command: &[&str]) -> String {
    let words = ["run", "-d", "--name", name, "--restart", policy, "busybox"];
    let words: Vec<&str> = words.iter().chain(command).copied().collect();
    host.ok(&words[..])
}

#[test]
fn a_failing_container_is_tried_again_so_often_and_ever_more_rarely() {
    let host = single(&[Image::Busybox]);
    let began = Instant::now();
    run(&host, "job", "on-failure:3", &FAILS);
    wait_until("it is given up", || {
        shown(&host, "job", ".State.Status") == "exited"
    });
    // 100, 200 and 400 ms lie between its four runs
    assert!(began.elapsed() > Duration::from_millis(700));
    assert_eq!(shown(&host, "job", ".RestartCount"), "3");
    assert_eq!(shown(&host, "job", ".State.ExitCode"), "3");
    assert_eq!(host.ok("logs job").lines().count(), 4);
    assert_eq!(
        shown(&host, "job", ".HostConfig.RestartPolicy.Name"),
        "on-failure"
    );
    // Whoever starts it begins to count anew.
    host.docker("start job").ok();
    wait_until("it is given up again", || {
        host.ok("logs job").lines().count() == 8 && shown(&host, "job", ".State.Status") == "exited"
    });
    assert_eq!(shown(&host, "job", ".RestartCount"), "3");

    run(&host, "done", "on-failure", &["true"]);
    wait_until("it ends", || {
        shown(&host, "done", ".State.Status") == "exited"
    });
    assert_eq!(shown(&host, "done", ".RestartCount"), "0");
}

#[test]
fn while_it_waits_to_be_restarted_it_can_be_stopped_and_removed() {
    let host = single(&[Image::Busybox]);
    run(&host, "loop", "always", &FAILS);
    wait_until("its pauses are long", || {
        shown(&host, "loop", ".RestartCount")
            .parse::<u32>()
            .expect("a number")
            >= 6 // 3.2 s then
            && shown(&host, "loop", ".State.Status") == "restarting"
    });
    assert_eq!(shown(&host, "loop", ".State.Restarting"), "true");
    assert!(
        host.ok("ps --format {{.Status}}")
            .starts_with("Restarting (3) "),
    );
    assert_eq!(
        host.docker("ps -q --filter status=restarting")
            .ok()
            .lines()
            .count(),
        1
    );
    let refused = host.nuncio("exec loop true");
    assert!(refused.stderr.contains("is restarting"), "{refused:?}");
    let refused = host.docker("rm loop").refused(1);
    assert!(
        refused.contains("container is restarting: stop the container"),
        "{refused}"
    );
    host.docker("stop loop").ok();
    assert_eq!(shown(&host, "loop", ".State.Status"), "exited");
    let count = shown(&host, "loop", ".RestartCount");

    host.ok("start loop");
    wait_until("it waits again", || {
        shown(&host, "loop", ".State.Status") == "restarting"
    });
    host.ok("rm -f loop");
    assert_eq!(host.ok("ps -aq"), "");
    assert!(count.parse::<u32>().expect("a number") >= 6);
}

#[test]
fn what_was_stopped_or_killed_stays_so_and_other_signals_do_not_count() {
    let host = single(&[Image::Busybox]);
    let sleep = ["sleep", "1000"];
    for name in ["stopped", "killed"] {
        run(&host, name, "always", &sleep);
    }
    host.ok("stop -t 0 stopped");
    host.docker("kill killed").ok();
    for name in ["stopped", "killed"] {
        assert_eq!(shown(&host, name, ".State.Status"), "exited", "{name}");
        assert_eq!(shown(&host, name, ".RestartCount"), "0", "{name}");
    }
    // A signal that is not meant to end it does not keep its policy from its work.
    run(
        &host,
        "hurt",
        "unless-stopped",
        &[
            "sh",
            "-c",
            "trap 'exit 1' USR1; while :; do sleep 0.05; done",
        ],
    );
    wait_until("its policy restarts it", || {
        host.nuncio("kill -s USR1 hurt");
        shown(&host, "hurt", ".RestartCount") != "0"
    });
}

#[test]
fn what_its_policy_cannot_start_is_given_up() {
    let host = single(&[Image::Busybox]);
    // It is not there any more when it is to be started again.
    host.ok([
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "rm -rf /bin /usr /sbin; exit 3",
    ]);
    wait_until("it is given up", || {
        shown(&host, "web", ".State.Status") == "exited"
    });
    for _ in 0..2 {
        assert_eq!(shown(&host, "web", ".State.ExitCode"), "3");
        assert_eq!(shown(&host, "web", ".RestartCount"), "1");
        let error = shown(&host, "web", ".State.Error");
        assert!(error.contains("executable file not found"), "{error}");
        // The next daemon knows it, too, and starts what is always to run, or tries.
        host.ok("update --restart no web");
        host.kill_daemon();
        host.start_again();
    }
    host.ok("rm web");
}

#[test]
fn why_a_start_failed_is_known_to_the_next_daemon() {
    let host = single(&[Image::Busybox]);
    host.ok("create --name web busybox /nothing");
    host.nuncio("start web").refused(1);
    let error = shown(&host, "web", ".State.Error");
    assert!(error.contains("/nothing"), "{error}");
    host.kill_daemon();
    host.start_again();
    assert_eq!(shown(&host, "web", ".State.Error"), error);
    assert_eq!(shown(&host, "web", ".State.ExitCode"), "127");
    assert_eq!(shown(&host, "web", ".State.Status"), "created");
    assert_eq!(
        host.docker(["inspect", "-f", "{{.State.Error}}", "web"])
            .ok(),
        error
    );
}

#[test]
fn policies_that_contradict_other_flags_are_refused() {
    let host = single(&[Image::Busybox]);
    let words = "run --rm --restart always busybox true";
    let refused = host.nuncio(words).refused(125);
    assert!(
        refused.contains("cannot specify both --restart and --rm"),
        "{refused}"
    );
    let refused = host.docker(words).refused(125);
    assert!(refused.contains("--restart and --rm"), "{refused}");
    let refused = host
        .docker("create --restart always:3 busybox true")
        .refused(1);
    assert!(refused.contains("on-failure"), "{refused}");
    host.docker("create --restart never busybox true")
        .refused(1);
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn a_restart_by_request_keeps_a_container_that_is_removed_at_its_end() {
    let host = single(&[Image::Busybox]);
    let id = host.ok("run -d --rm --name web busybox sleep 1000");
    host.ok("restart -t 0 web");
    assert_eq!(shown(&host, "web", ".Id"), id);
    assert_eq!(shown(&host, "web", ".State.Running"), "true");
    host.ok("stop -t 0 web");
    wait_until("it is removed", || host.ok("ps -aq").is_empty());
}

#[test]
fn over_a_daemons_death_those_that_run_go_on_and_those_that_wait_are_restarted() {
    let host = single(&[Image::Busybox]);
    run(&host, "steady", "always", &["sleep", "1000"]);
    run(&host, "loop", "always", &FAILS);
    run(&host, "halted", "always", &["sleep", "1000"]);
    run(&host, "rests", "unless-stopped", &["sleep", "1000"]);
    run(&host, "once", "no", &["sleep", "1000"]);
    host.ok("stop -t 0 halted rests once");
    let pid = shown(&host, "steady", ".State.Pid");
    wait_until("it waits", || {
        shown(&host, "loop", ".State.Status") == "restarting"
    });
    host.kill_daemon();
    host.start_again();
    assert_eq!(shown(&host, "steady", ".State.Pid"), pid);
    assert_eq!(shown(&host, "steady", ".RestartCount"), "0");
    let before = host.ok("logs loop").lines().count();
    wait_until("it is restarted by the next daemon", || {
        host.ok("logs loop").lines().count() > before
    });
    wait_until("what is always to run runs", || {
        shown(&host, "halted", ".State.Status") == "running"
    });
    for name in ["rests", "once"] {
        assert_eq!(shown(&host, name, ".State.Status"), "exited", "{name}");
    }
}

#[test]
fn after_the_host_went_down_policies_start_what_ran() {
    let host = single(&[Image::Busybox]);
    for (name, policy) in [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("failed", "on-failure"),
        ("plain", "no"),
    ] {
        run(&host, name, policy, &["sleep", "1000"]);
    }
    // As when the machine loses power: daemon, shims and processes at once, and what lay in memory.
    host.crash();
    host.start_again();
    for name in ["always", "unless", "failed"] {
        wait_until("it runs again", || {
            shown(&host, name, ".State.Status") == "running"
        });
        assert_eq!(host.nuncio(["exec", name, "true"]).code, 0, "{name}");
    }
    assert_eq!(shown(&host, "plain", ".State.Status"), "exited");
    assert_eq!(shown(&host, "plain", ".State.ExitCode"), "137");
}
