//! What a container cannot do, and what it does not see.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod support;

use std::fs;
use std::process::Command;

use anyhow::Result;
use nuncio_runtime::{BindOptions, Mount, MountKind, Resources};
use support::{Place, owned};

#[tokio::test]
async fn namespaces_are_its_own() -> Result<()> {
    let place = Place::new()?;
    let said = place.says("for ns in pid mnt uts ipc cgroup net; do readlink /proc/self/ns/$ns; done; echo $$; ls /proc | grep -c '^[0-9]'; hostname").await?;
    let lines: Vec<_> = said.lines().collect();
    for (line, name) in lines.iter().zip(["pid", "mnt", "uts", "ipc", "cgroup"]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}"))?;
        assert_ne!(*line, ours.to_str().unwrap());
    }
    assert_eq!(
        lines[5],
        fs::read_link("/proc/self/ns/net")?.to_str().unwrap(),
        "the caller's when none is given"
    );
    assert_eq!(lines[6], "1");
    assert!(lines[7].parse::<u32>()? <= 3);
    Ok(())
}

/// A network namespace of `ip netns`.
struct NetNs(String);

impl NetNs {
    fn new(suffix: &str) -> Result<Self> {
        let name = format!("nt-{}-{suffix}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status()?;
        anyhow::ensure!(added.success(), "ip netns add {name}: {added}");
        Ok(Self(name))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

#[tokio::test]
async fn the_network_namespace_it_is_given() -> Result<()> {
    let place = Place::new()?;
    let netns = NetNs::new("net")?;
    let mut spec = place.sh("ip -o link | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/core/somaxconn");
    spec.netns = Some(format!("/run/netns/{}", netns.0).into());
    spec.sysctls
        .insert("net.core.somaxconn".into(), "77".into());
    let said = place.run(&spec).await?.succeeded()?;
    assert!(said.ends_with("\n0\n77\n"), "{said}");
    Ok(())
}

#[tokio::test]
async fn capabilities_are_dockers() -> Result<()> {
    let place = Place::new()?;
    let show = "grep -E '^Cap(Inh|Eff|Bnd|Amb)' /proc/self/status | cut -f2";
    let docker = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(
        place.says(show).await?,
        format!("{none}\n{docker}\n{docker}\n{none}\n")
    );
    nuncio_runtime::cleanup(&place.run_dir)?;
    let mut spec = place.sh(show);
    spec.user = "web".into();
    assert_eq!(
        place.run(&spec).await?.succeeded()?,
        format!("{none}\n{none}\n{docker}\n{none}\n")
    );
    nuncio_runtime::cleanup(&place.run_dir)?;
    let mut spec = place.sh(show);
    (spec.cap_add, spec.cap_drop) = (owned(&["NET_ADMIN"]), owned(&["ALL"]));
    let one = "0000000000001000";
    assert_eq!(
        place.run(&spec).await?.succeeded()?,
        format!("{none}\n{one}\n{one}\n{none}\n")
    );
    Ok(())
}

#[tokio::test]
async fn system_calls_are_filtered() -> Result<()> {
    let place = Place::new()?;
    let script = "grep ^Seccomp: /proc/self/status; unshare -U true; unshare -m true; mount -t tmpfs x /tmp; echo end";
    let ran = place.run(&place.sh(script)).await?;
    assert_eq!(ran.stdout, "Seccomp:\t2\nend\n");
    assert_eq!(
        ran.stderr.matches("Operation not permitted").count()
            + ran.stderr.matches("permission denied").count(),
        3,
        "{}",
        ran.stderr
    );
    nuncio_runtime::cleanup(&place.run_dir)?;
    let mut spec = place.sh("grep ^Seccomp: /proc/self/status; unshare -U true && echo made");
    spec.seccomp = false;
    let said = place.run(&spec).await?.succeeded()?;
    assert_eq!(said, "Seccomp:\t0\nmade\n");
    Ok(())
}

#[tokio::test]
async fn setuid_programs_are_stopped_only_if_asked() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new()?;
    // busybox gives privileges up by itself, this one does not
    let program = place.rootfs.join("bin/suid");
    fs::copy(support::binary(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    for (forbidden, effective) in [(false, "0"), (true, "1000")] {
        let mut spec = place.command(&["suid", "init", "--", "grep", "^Uid:", "/proc/1/status"]);
        (spec.user, spec.no_new_privileges) = ("web".into(), forbidden);
        let said = place.run(&spec).await?.succeeded()?;
        assert_eq!(
            said.split_ascii_whitespace().nth(2),
            Some(effective),
            "{said}"
        );
        nuncio_runtime::cleanup(&place.run_dir)?;
    }
    Ok(())
}

#[tokio::test]
async fn secrets_of_the_kernel_are_masked_and_settings_read_only() -> Result<()> {
    let place = Place::new()?;
    let script = "for file in kcore keys timer_list interrupts; do [ -s /proc/$file ] && echo $file; done; \
                  ls -A /sys/firmware | wc -l; \
                  echo 1 > /proc/sys/kernel/panic; touch /sys/x; echo end";
    let ran = place.run(&place.sh(script)).await?;
    assert_eq!(ran.stdout, "0\nend\n");
    let refused = ran.stderr.matches("Read-only file system").count();
    assert_eq!(refused, 2, "{}", ran.stderr);
    Ok(())
}

#[tokio::test]
async fn devices_are_few() -> Result<()> {
    let place = Place::new()?;
    let script = "cd /dev; ls | tr '\\n' ' '; echo; echo x > null; head -c 2 zero | wc -c; head -c 4 urandom | wc -c; \
                  mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk; echo end";
    let ran = place.run(&place.sh(script)).await?;
    let said = ran.stdout.lines().collect::<Vec<_>>();
    for name in [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ] {
        assert!(
            said[0].split(' ').any(|found| found == name),
            "{name} is not in {}",
            said[0]
        );
    }
    assert_eq!(said[1..], ["2", "4", "end"]);
    assert!(
        ran.stderr.contains("/tmp/disk: Operation not permitted"),
        "{}",
        ran.stderr
    );
    Ok(())
}

#[tokio::test]
async fn limits_are_seen_and_hold() -> Result<()> {
    let place = Place::new()?;
    let show = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares pids/pids.max 2>/dev/null \
                || cat memory.max cpu.max cpu.weight pids.max; sleep 1000";
    let mut spec = place.sh(show);
    spec.resources = Resources {
        memory: Some(64 << 20),
        nano_cpus: Some(250_000_000),
        cpu_shares: Some(512),
        pids_limit: Some(20),
        ..Resources::default()
    };
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(support::EVERYTHING).await?;
    shim.start().await?;
    let seen = support::expect(&mut attach.output, "\n20\n").await?;
    assert!(
        seen.contains("67108864\n") && seen.contains("25000"),
        "{seen}"
    );

    let forks = place
        .exec("for i in $(seq 40); do sleep 1000 & done")
        .await?;
    assert!(
        forks
            .stderr
            .contains("can't fork: Resource temporarily unavailable"),
        "{forks:?}"
    );
    let lifted = "for file in memory/memory.limit_in_bytes memory.max pids/pids.max pids.max; do \
                  cd /sys/fs/cgroup; [ -e $file ] && echo 999999999 > $file; done; ls -d /sys/fs/cgroup/unified/*; \
                  mount -o remount,rw /sys/fs/cgroup/memory; mkdir /tmp/c; mount -t cgroup -o memory x /tmp/c; true";
    let _ = place.exec(lifted).await; // it may not even find a process number
    shim.signal(9).await?;
    shim.wait().await?;
    Ok(())
}

#[tokio::test]
async fn a_container_cannot_lift_its_limits() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("cd /sys/fs/cgroup; for file in memory/memory.limit_in_bytes memory.max memory/cgroup.procs; do \
         [ -e $file ] && echo -1 > $file; done; mount -o remount,rw memory; mount -t cgroup -o memory x /tmp; echo end");
    spec.resources.memory = Some(64 << 20);
    let ran = place.run(&spec).await?;
    assert_eq!(ran.stdout, "end\n");
    assert!(
        ran.stderr.contains("Read-only file system"),
        "{}",
        ran.stderr
    );
    Ok(())
}

#[tokio::test]
async fn too_much_memory_is_death_and_told() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.command(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    spec.resources.memory = Some(32 << 20);
    let status = place.run(&spec).await?.status;
    assert_eq!((status.code, status.oom), (137, true));
    assert!(place.cgroups().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_cgroup2_of_a_hybrid_has_its_processes() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let pid = shim.state().await?.pid.unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let own = format!("0::/nuncio-test/{}", place.id);
    assert!(groups.lines().any(|line| line == own), "{groups}");
    Ok(())
}

#[tokio::test]
async fn mounts() -> Result<()> {
    let place = Place::new()?;
    let shared = place.path().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), "from outside\n")?;
    let bind = |target: &str, read_only| Mount {
        kind: MountKind::Bind {
            source: shared.clone(),
            options: BindOptions::default(),
        },
        target: target.into(),
        read_only,
    };
    let file = Mount {
        kind: MountKind::Bind {
            source: shared.join("file"),
            options: BindOptions::default(),
        },
        target: "/etc/hosts".into(),
        read_only: false,
    };
    let memory = Mount {
        kind: MountKind::Tmpfs {
            size: Some(1 << 20),
            mode: Some(0o700),
        },
        target: "/memory".into(),
        read_only: false,
    };
    let mut spec = place.sh("cat /ro/file /etc/hosts; touch /ro/x; touch /rw/new; stat -c %a /memory; \
                             df -k /memory /dev/shm | awk 'NR>1{print $2}'; touch /x; umask; wc -l < /proc/mounts");
    spec.mounts = vec![bind("/ro", true), bind("/rw", false), file, memory];
    spec.readonly_rootfs = true;
    let ran = place.run(&spec).await?;
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "from outside",
            "from outside",
            "700",
            "1024",
            "65536",
            "0022"
        ]
    );
    assert_eq!(
        ran.stderr.matches("Read-only file system").count(),
        2,
        "{}",
        ran.stderr
    );
    assert!(shared.join("new").exists());
    Ok(())
}

#[tokio::test]
async fn nothing_of_the_host_is_mounted() -> Result<()> {
    let place = Place::new()?;
    let mounts = place.says("cat /proc/self/mountinfo").await?;
    for line in mounts.lines() {
        let target = line.split(' ').nth(4).unwrap();
        let known = ["/", "/proc", "/dev", "/sys"];
        assert!(
            known
                .iter()
                .any(|root| target == *root
                    || (*root != "/" && target.starts_with(&format!("{root}/")))),
            "{line}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn privileged_is_without_all_that() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("grep ^Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted; test -w /proc/sys/kernel/panic && echo open; ls /dev | grep -c .");
    spec.privileged = true;
    let said = place.run(&spec).await?.succeeded()?;
    assert!(said.starts_with("Seccomp:\t0\nmounted\nopen\n"), "{said}");
    Ok(())
}

#[tokio::test]
async fn cgroups_hidden_by_ip_netns_exec_are_found() -> Result<()> {
    let place = Place::new()?;
    let netns = NetNs::new("hidden")?;
    let ran = Command::new("ip")
        .args(["netns", "exec", &netns.0])
        .arg(support::binary())
        .arg(&place.rootfs)
        .args(["sh", "-c", "cat /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs; ip -o link | wc -l"])
        .output()?;
    assert!(
        String::from_utf8(ran.stdout)?.starts_with("1\n"),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Ok(())
}
