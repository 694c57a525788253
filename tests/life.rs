//! What is done to containers between their start and their end, from both clients.

mod support;

use support::{Finished, Host, Image, single, wait_until};

#[track_caller]
fn shown(host: &Host, name: &str, field: &str) -> String {
    host.ok(["inspect", "-f", &format!("{{{{{field}}}}}"), name])
}

/// Runs a container that counts in its log.
#[track_caller]
fn count(host: &Host, name: &str) -> String {
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    host.ok(["run", "-d", "--name", name, "busybox", "sh", "-c", script])
}

fn lines(host: &Host, name: &str) -> usize {
    host.ok(["logs", name]).lines().count()
}

#[test]
fn a_paused_container_stands_still() {
    let host = single(&[Image::Busybox]);
    let id = count(&host, "counter");
    wait_until("it counts", || lines(&host, "counter") > 3);
    assert_eq!(host.ok("pause counter"), "counter");
    assert_eq!(shown(&host, "counter", ".State.Status"), "paused");
    assert_eq!(shown(&host, "counter", ".State.Running"), "true");
    assert!(
        host.docker("ps --format {{.Status}}")
            .ok()
            .ends_with(" (Paused)")
    );
    assert_eq!(host.ok("ps -q --no-trunc --filter status=paused"), id);
    assert_eq!(host.docker("info --format {{.ContainersPaused}}").ok(), "1");
    let before = lines(&host, "counter");
    let refused = host.docker("exec counter true");
    assert!(
        refused
            .stderr
            .contains("is paused, unpause the container before exec"),
        "{refused:?}"
    );
    let refused = host.nuncio("pause counter").refused(1);
    assert!(refused.contains("is already paused"), "{refused}");
    assert_eq!(lines(&host, "counter"), before, "it went on");

    // The next daemon finds it as it is.
    host.kill_daemon();
    host.start_again();
    assert_eq!(shown(&host, "counter", ".State.Paused"), "true");
    assert_eq!(host.docker("unpause counter").ok(), "counter");
    wait_until("it goes on", || lines(&host, "counter") > before);
    let refused = host.docker("unpause counter").refused(1);
    assert!(refused.contains("is not paused"), "{refused}");

    // What is to end is let go on.
    host.ok("pause counter");
    let refused = host.nuncio("rm counter").refused(1);
    assert!(
        refused.contains("container is paused: unpause and then stop"),
        "{refused}"
    );
    host.docker("stop -t 1 counter").ok();
    assert_eq!(shown(&host, "counter", ".State.Paused"), "false");
    host.ok("start counter");
    host.ok("pause counter");
    host.docker("kill counter").ok();
    assert_eq!(shown(&host, "counter", ".State.ExitCode"), "137");
    host.ok("start counter");
    host.ok("pause counter");
    host.ok("rm -f counter");
    let refused = host.nuncio("pause counter").refused(1);
    assert!(refused.contains("No such container: counter"), "{refused}");
}

#[test]
fn limits_change_while_it_runs() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name box -m 64m busybox sleep 1000");
    let inside = |file: &str| {
        host.ok([
            "exec",
            "box",
            "sh",
            "-c",
            &format!("cat /sys/fs/cgroup/{file}"),
        ])
    };
    assert_eq!(
        inside("memory/memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    assert_eq!(host.docker("update -m 96m --memory-swap 128m --pids-limit 50 --cpu-shares 512 --cpus 0.5 --restart always box").ok(), "box");
    assert_eq!(
        inside("memory/memory.limit_in_bytes"),
        (96 << 20).to_string()
    );
    assert_eq!(inside("pids/pids.max"), "50");
    assert_eq!(inside("cpu/cpu.shares"), "512");
    assert_eq!(inside("cpu/cpu.cfs_quota_us"), "50000");
    assert_eq!(
        shown(&host, "box", ".HostConfig.RestartPolicy.Name"),
        "always"
    );
    assert_eq!(shown(&host, "box", ".HostConfig.NanoCpus"), "500000000");
    // Also for the time when it is started again.
    host.ok("update --pids-limit 60 box");
    host.ok("restart -t 0 box");
    assert_eq!(inside("pids/pids.max"), "60");
    assert_eq!(
        inside("memory/memory.limit_in_bytes"),
        (96 << 20).to_string()
    );

    for client in [Host::nuncio, Host::docker] {
        let refused = client(&host, "update -m 256m box").refused(1);
        assert!(
            refused.contains("already set memoryswap limit"),
            "{refused}"
        );
        let refused = client(&host, "update --cpu-quota 20000 box").refused(1);
        assert!(
            refused.contains("NanoCPUs has already been set"),
            "{refused}"
        );
        let refused = client(&host, "update box").refused(1);
        assert!(refused.contains("one or more flags"), "{refused}");
    }
}

#[test]
fn signals_and_stops_as_asked() {
    let host = single(&[Image::Busybox]);
    let script = "trap 'exit 5' USR1; trap 'echo hup' HUP; trap '' TERM; echo ready; while :; do sleep 0.02; done";
    let run = |name: &str, flags: &[&str]| {
        let words = ["run", "-d", "--name", name];
        let command = ["busybox", "sh", "-c", script];
        let words: Vec<&str> = words.iter().chain(flags).chain(&command).copied().collect();
        host.ok(&words[..]);
        wait_until("it has its traps", || {
            host.ok(["logs", name]).contains("ready")
        });
    };
    run("one", &[]);
    host.docker("kill -s HUP one").ok();
    wait_until("it hears the signal", || {
        host.ok("logs one").contains("hup")
    });
    host.docker("stop -s USR1 one").ok();
    assert_eq!(shown(&host, "one", ".State.ExitCode"), "5");
    host.ok("start one");
    wait_until("it has its traps again", || {
        host.ok("logs one").matches("ready").count() == 2
    });
    host.ok("stop --signal SIGUSR1 one");
    assert_eq!(shown(&host, "one", ".State.ExitCode"), "5");
    run("two", &["--stop-signal", "USR1", "--stop-timeout", "-1"]);
    run("three", &["--stop-timeout", "0"]);
    host.docker("stop two three").ok();
    assert_eq!(shown(&host, "two", ".State.ExitCode"), "5");
    assert_eq!(shown(&host, "three", ".State.ExitCode"), "137");
    assert_eq!(host.docker("wait one two three").ok(), "5\n5\n137");
    assert_eq!(host.ok("wait one two three"), "5\n5\n137");
    assert_eq!(
        host.nuncio("stop one").code,
        0,
        "what has ended is no error"
    );
    let refused = host.nuncio("kill one").refused(1);
    assert!(refused.contains("is not running"), "{refused}");
    let refused = host.nuncio("stop -s NONSENSE one").refused(1);
    assert!(refused.contains("Invalid signal: NONSENSE"), "{refused}");
}

#[test]
fn lists_are_narrowed_and_formed() {
    let host = single(&[Image::Busybox]);
    for name in ["aa", "bb", "cc"] {
        host.ok([
            "create",
            "--name",
            name,
            "--label",
            &format!("is={name}"),
            "--expose",
            "81",
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    host.ok("start bb");
    for (words, expected) in [
        ("-a", "cc bb aa"),
        ("", "bb"),
        ("-l", "cc"),
        ("-n 2", "cc bb"),
        ("-a --filter before=cc", "bb aa"),
        ("-a --filter since=aa", "cc bb"),
        ("-a --filter since=aa --filter before=cc", "bb"),
        ("-a --filter label=is=aa", "aa"),
        ("-a --filter name=b", "bb"),
        ("-a --filter expose=80-90", "cc bb aa"),
        ("-a --filter publish=81", ""),
        ("-a --filter status=created", "cc aa"),
        ("-a --filter ancestor=busybox", "cc bb aa"),
        ("-a --filter volume=/data", ""),
    ] {
        let line = format!("ps {words} --format {{{{.Names}}}}");
        let ours = host.ok(&line);
        assert_eq!(
            ours.lines().collect::<Vec<_>>().join(" "),
            expected,
            "{words}"
        );
        assert_eq!(host.docker(&line).ok(), ours, "{words}");
    }
    host.ok(["exec", "bb", "sh", "-c", "head -c 3000000 /dev/zero > /big"]);
    for sizes in [host.ok("ps -s"), host.docker("ps -s").ok()] {
        assert!(sizes.contains("3MB (virtual "), "{sizes}");
    }
    for spelling in ["container ls", "container list", "container ps"] {
        assert_eq!(
            host.ok(&format!("{spelling} -q")),
            host.ok("ps -q"),
            "{spelling}"
        );
    }
    let refused = host.nuncio("ps --filter before=nobody").refused(1);
    assert!(refused.contains("No such container: nobody"), "{refused}");
    let format = "table {{.Names}}\\t{{upper .State}}\\t{{join (split .Labels \"=\") \":\"}}";
    let words = ["ps", "-a", "--filter", "name=aa", "--format", format];
    assert_eq!(host.ok(words), host.docker(words).ok());
    let template = "{{.Name}} {{range .Args}}<{{.}}>{{end}}{{if not .State.Running}} idle{{end}} {{index .Config.Labels \"is\"}}";
    let words = ["inspect", "-f", template, "aa"];
    assert_eq!(host.ok(words), "/aa <1000> idle aa");
    assert_eq!(host.docker(words).ok(), "/aa <1000> idle aa");
}

#[test]
fn processes_are_shown_as_ps_does() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "sleep 1000 & exec sleep 2000",
    ]);
    wait_until("both run", || host.ok("top box").contains("sleep 1000"));
    let ours = host.ok("top box");
    assert!(ours.starts_with("UID"), "{ours}");
    assert!(
        ours.contains("sleep 2000") && ours.contains("root"),
        "{ours}"
    );
    assert_eq!(ours.lines().count(), 3);
    let theirs = host.docker("top box -o pid,args").ok();
    assert!(theirs.starts_with("PID"), "{theirs}");
    assert_eq!(theirs.lines().count(), 3, "{theirs}");
    let refused = host.docker("top box -o args").refused(1);
    assert!(refused.contains("Couldn't find PID field"), "{refused}");
    assert_ne!(host.nuncio("top box --nonsense").code, 0);
}

/// The same of one client or the other.
#[track_caller]
fn ask(host: &Host, docker: bool, words: &[&str]) -> Finished {
    match docker {
        true => host.docker(words),
        false => host.nuncio(words),
    }
}

#[test]
fn figures_of_what_it_takes() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "-d",
        "--name",
        "busy",
        "-m",
        "64m",
        "busybox",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
    host.ok("create --name idle busybox true");
    let format = "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.NetIO}}|{{.PIDs}}";
    for docker in [false, true] {
        let text = ask(
            &host,
            docker,
            &["stats", "--no-stream", "--format", format, "busy"],
        )
        .ok();
        let parts: Vec<&str> = text.split('|').collect();
        assert_eq!(parts[0], "busy");
        let percent: f64 = parts[1].trim_end_matches('%').parse().expect("a number");
        assert!(percent > 1.0, "{text}");
        assert!(parts[2].ends_with(" / 64MiB"), "{text}");
        assert_eq!(parts[4], "1");
        let all = ask(
            &host,
            docker,
            &["stats", "--no-stream", "-a", "--format", "{{.Name}}"],
        )
        .ok();
        let mut names: Vec<&str> = all.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["busy", "idle"]);
        let refused = ask(&host, docker, &["stats", "--no-stream", "nobody"]);
        assert!(
            refused.stderr.contains("No such container: nobody"),
            "{refused:?}"
        );
    }
    let mut stream = host.spawn(["stats", "--format", "{{.Name}} {{.CPUPerc}}", "busy"]);
    stream.until("busy ");
    let mut stream = host.spawn_docker(["stats", "--format", "{{.Name}} {{.CPUPerc}}"]);
    stream.until("busy ");
}

#[test]
fn who_shares_a_network_shares_its_names() {
    let host = single(&[Image::Busybox]);
    host.ok("network create inner");
    host.ok("run -d --name web --hostname site --add-host other:192.0.2.7 busybox sleep 1000");
    host.docker("run -d --name beside --network container:web busybox sleep 1000")
        .ok();
    let beside = |command: &str| host.ok(&format!("exec beside {command}"));
    assert_eq!(beside("hostname"), "site");
    assert_eq!(beside("cat /etc/hosts"), host.ok("exec web cat /etc/hosts"));
    assert!(beside("cat /etc/hosts").contains("192.0.2.7\tother"));
    assert_eq!(
        shown(&host, "beside", ".HostsPath"),
        shown(&host, "web", ".HostsPath")
    );
    host.ok("network connect inner web");
    let address = shown(&host, "web", ".NetworkSettings.Networks.inner.IPAddress");
    assert!(beside("cat /etc/hosts").contains(&address), "{address}");
    host.ok("rm -f beside web");
    host.ok("network rm inner");
}

#[test]
fn what_is_just_ending_can_be_stopped_and_removed() {
    let host = single(&[Image::Busybox]);
    for _ in 0..10 {
        host.ok("run -d --name short busybox true");
        host.docker("rm -f short").ok();
        host.ok("run -d --name short busybox true");
        host.ok("stop short");
        host.ok("rm short");
    }
}
