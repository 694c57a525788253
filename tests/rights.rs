//! What a container may do and see of its host, from both clients.

mod support;

use support::{Host, Image, single};

#[track_caller]
fn shown(host: &Host, name: &str, field: &str) -> String {
    host.ok(["inspect", "-f", &format!("{{{{{field}}}}}"), name])
}

#[test]
fn rights_and_namespaces() {
    let host = single(&[Image::Busybox]);
    let run = |words: &[&str]| {
        let all: Vec<&str> = ["run", "--rm"].iter().chain(words).copied().collect();
        host.docker(&all[..])
    };
    let sh = |flags: &[&str], script: &str| {
        let words: Vec<&str> = flags
            .iter()
            .chain(&["busybox", "sh", "-c", script])
            .copied()
            .collect();
        run(&words).ok()
    };
    assert_eq!(
        sh(
            &["--shm-size", "1m"],
            "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"
        ),
        "1024"
    );
    assert_eq!(
        sh(&["--group-add", "1234", "--group-add", "5"], "id -G")
            .split(' ')
            .filter(|id| *id == "1234" || *id == "5")
            .count(),
        2
    );
    assert_eq!(
        sh(
            &["--device", "/dev/null:/dev/nothing"],
            "echo x > /dev/nothing; ls /dev/nothing"
        ),
        "/dev/nothing"
    );
    assert_eq!(
        sh(
            &["--security-opt", "no-new-privileges"],
            "grep NoNewPrivs /proc/self/status | tr -d '\\t'"
        ),
        "NoNewPrivs:1"
    );
    assert_ne!(
        sh(
            &["--security-opt", "systempaths=unconfined"],
            "cat /proc/timer_list | wc -c"
        ),
        "0"
    );
    assert_eq!(
        sh(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"),
        "500"
    );
    assert_eq!(
        sh(
            &["--cpu-period", "50000", "--cpu-quota", "25000"],
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        ),
        "25000"
    );
    assert_eq!(
        sh(
            &["--cpuset-cpus", "0"],
            "cat /sys/fs/cgroup/cpuset/cpuset.cpus"
        ),
        "0"
    );
    assert_eq!(sh(&["--ulimit", "nofile=123:456"], "ulimit -n"), "123");
    assert_eq!(
        sh(
            &["--sysctl", "net.core.somaxconn=77"],
            "cat /proc/sys/net/core/somaxconn"
        ),
        "77"
    );
    assert_ne!(run(&["--read-only", "busybox", "touch", "/x"]).code, 0);
    assert!(
        sh(
            &[
                "--add-host",
                "docs:192.0.2.9",
                "--add-host",
                "me:host-gateway"
            ],
            "cat /etc/hosts"
        )
        .contains("192.0.2.9\tdocs")
    );
    assert!(
        sh(
            &["--dns", "192.0.2.53", "--dns-search", "example.org"],
            "cat /etc/resolv.conf"
        )
        .contains("nameserver 192.0.2.53\nsearch example.org")
    );
    assert_eq!(
        sh(&["--uts", "host"], "hostname"),
        host.inside("hostname", "").ok()
    );
    assert_ne!(sh(&["--pid", "host"], "echo $$"), "1");

    host.ok("run -d --name first --ipc shareable busybox sleep 1000");
    assert_eq!(
        sh(&["--pid", "container:first"], "ps | grep -c '[s]leep 1000'"),
        "1"
    );
    host.ok(["exec", "first", "sh", "-c", "echo shared > /dev/shm/note"]);
    assert_eq!(
        sh(&["--ipc", "container:first"], "cat /dev/shm/note"),
        "shared"
    );
    host.ok("run -d --name second busybox sleep 1000");
    let refused = host
        .nuncio("run --rm --ipc container:second busybox true")
        .refused(125);
    assert!(refused.contains("non-shareable IPC"), "{refused}");
    for (words, says) in [
        ("run --rm --pid nonsense busybox true", "invalid PID mode"),
        (
            "run --rm --device /dev/no-such busybox true",
            "gathering device information",
        ),
        (
            "run --rm --cpus 1 --cpu-quota 20000 busybox true",
            "Conflicting options",
        ),
        ("run --rm --memory-swappiness 101 busybox true", "0-100"),
        (
            "run --rm --group-add nosuch busybox true",
            "unable to find group nosuch",
        ),
    ] {
        let refused = host.nuncio(words);
        assert_eq!(refused.code, 125, "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
    host.ok("run --name silent --log-driver none busybox echo nothing");
    assert_eq!(shown(&host, "silent", ".HostConfig.LogConfig.Type"), "none");
    let refused = host.docker("logs silent").refused(1);
    assert!(refused.contains("does not support reading"), "{refused}");
}
