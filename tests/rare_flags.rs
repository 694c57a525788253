//! Flags of `run`, `update` and `network connect` that few use, from both clients.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Client, Host, Image, single};

/// A file of the cgroup of a container below `parent`, where this machine keeps that controller.
fn group_file(controller: &str, parent: &str, id: &str, file: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(controller);
    let root = if own.is_dir() { own } else { root.into() };
    root.join(parent).join(id).join(file)
}

#[track_caller]
fn read(path: &Path) -> String {
    let text = fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.trim().to_owned()
}

/// A disk of this machine: its node and its number.
fn disk() -> (String, String) {
    let disks = fs::read_dir("/sys/block").expect("list the disks");
    let disks = disks.map(|entry| entry.expect("a disk"));
    let mut found: Vec<(String, String)> = disks
        .map(|entry| {
            let node = format!("/dev/{}", entry.file_name().to_string_lossy());
            (node, read(&entry.path().join("dev")))
        })
        .filter(|(node, _)| Path::new(node).exists())
        .collect();
    found.sort();
    found.pop().expect("this machine has a disk")
}

#[track_caller]
fn shown(client: Client, host: &Host, name: &str, field: &str) -> String {
    client.ok(host, ["inspect", "-f", &format!("{{{{{field}}}}}"), name])
}

#[test]
fn disks_are_bounded_and_weighed() {
    let host = single(&[Image::Busybox]);
    let (node, number) = disk();
    for client in Client::ALL {
        let rate = format!("{node}:2mb");
        let requests = format!("{node}:77");
        let id = client.ok(
            &host,
            [
                "run",
                "-d",
                "--name",
                "xx",
                "--device-read-bps",
                &rate,
                "--device-write-iops",
                &requests,
                "--blkio-weight",
                "300",
                "busybox",
                "sleep",
                "1000",
            ],
        );
        let group = |file| group_file("blkio", "nuncio", &id, file);
        if group("blkio.throttle.read_bps_device").exists() {
            let line = |file| read(&group(file));
            assert_eq!(
                line("blkio.throttle.read_bps_device"),
                format!("{number} 2097152")
            );
            assert_eq!(
                line("blkio.throttle.write_iops_device"),
                format!("{number} 77")
            );
        } else {
            let line = read(&group("io.max"));
            assert!(
                line.contains("rbps=2097152") && line.contains("wiops=77"),
                "{line}"
            );
        }
        let weight = group("blkio.bfq.weight");
        if weight.exists() {
            assert_eq!(read(&weight), "300");
            client.ok(&host, "update --blkio-weight 500 xx");
            assert_eq!(read(&weight), "500");
            assert_eq!(shown(client, &host, "xx", ".HostConfig.BlkioWeight"), "500");
        }
        client.ok(&host, "rm -f xx");
        let missing = client.run(
            &host,
            "run --name xx --device-read-bps /dev/nosuch:1mb busybox true",
        );
        assert!(missing.stderr.contains("/dev/nosuch"), "{missing:?}");
        assert_eq!(
            missing.code,
            125 + 2 * i32::from(missing.code == 127),
            "{missing:?}"
        );
        let _ = client.run(&host, "rm -f xx");
        let refused = client.run(&host, "create --blkio-weight 5 busybox").stderr;
        assert!(
            refused.contains("Range of blkio weight is from 10 to 1000"),
            "{refused}"
        );
    }
}

#[test]
fn real_time_is_given_or_refused() {
    let host = single(&[Image::Busybox]);
    let known = Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    for client in Client::ALL {
        let line =
            "run -d --name xx --cpu-rt-period 200000 --cpu-rt-runtime 1000 busybox sleep 1000";
        let run = client.run(&host, line);
        if known {
            let id = run.ok();
            let file = |name| read(&group_file("cpu", "nuncio", &id, name));
            assert_eq!(file("cpu.rt_runtime_us"), "1000");
            assert_eq!(file("cpu.rt_period_us"), "200000");
            client.ok(&host, "update --cpu-rt-runtime 2000 xx");
            assert_eq!(file("cpu.rt_runtime_us"), "2000");
            client.ok(&host, "rm -f xx");
        } else {
            let refused = run.stderr;
            assert!(
                refused.contains("kernel does not support CPU real-time scheduler"),
                "{refused}"
            );
        }
        let refused = client
            .run(
                &host,
                "create --cpu-rt-period 10 --cpu-rt-runtime 20 busybox",
            )
            .stderr;
        assert!(
            refused.contains("cpu real-time runtime cannot be higher"),
            "{refused}"
        );
    }
}

/// The parent of the cgroups that a test asks for; removed with its guard.
struct Parent(String);

impl Parent {
    fn new() -> Self {
        Self(format!("nuncio-test-{}", std::process::id()))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for hierarchy in hierarchies {
            let _ = fs::remove_dir(hierarchy.path().join(&self.0)); // not there
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.0));
    }
}

#[test]
fn a_container_is_below_the_cgroup_that_is_asked_for() {
    let parent = Parent::new();
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let id = client.ok(
            &host,
            [
                "run",
                "-d",
                "--name",
                "xx",
                "--cgroup-parent",
                &parent.0,
                "busybox",
                "sleep",
                "1000",
            ],
        );
        let group = group_file("memory", &parent.0, &id, "cgroup.procs");
        assert!(!read(&group).is_empty());
        assert_eq!(
            shown(client, &host, "xx", ".HostConfig.CgroupParent"),
            format!("/{}", parent.0)
        );
        assert_eq!(client.ok(&host, "exec xx echo hello"), "hello");
        client.ok(&host, "rm -f xx");
        assert!(!group.exists());
        let refused = client
            .run(&host, "create --cgroup-parent /a/../b busybox")
            .stderr;
        assert!(refused.contains("invalid CgroupParent"), "{refused}");
    }
}

#[test]
fn names_addresses_and_annotations() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let script = "cat /proc/sys/kernel/domainname; hostname; cat /sys/class/net/eth0/address; grep web /etc/hosts";
        let run = [
            "run",
            "--name",
            "xx",
            "-h",
            "web",
            "--domainname",
            "example.org",
            "--mac-address",
            "02:42:ac:11:65:43",
            "--annotation",
            "colour=green",
            "--quiet",
            "--disable-content-trust",
            "busybox",
            "sh",
            "-c",
            script,
        ];
        let told = client.ok(&host, run);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[..3],
            ["example.org", "web.example.org", "02:42:ac:11:65:43"]
        );
        assert!(lines[3].ends_with("\tweb.example.org web"), "{told}");
        assert_eq!(
            shown(client, &host, "xx", ".Config.Domainname"),
            "example.org"
        );
        assert_eq!(
            shown(client, &host, "xx", ".HostConfig.Annotations.colour"),
            "green"
        );
        client.ok(&host, "rm xx");
        let refused = client
            .run(&host, "create --mac-address 01:00:5e:00:00:01 busybox")
            .stderr;
        assert!(
            refused.contains("invalid MAC address: 01:00:5e"),
            "{refused}"
        );
    }
}

#[test]
fn the_network_of_the_highest_priority_leads_out() {
    let host = single(&[Image::Busybox]);
    host.ok("network create front");
    host.ok("network create back");
    let way = |client: Client| {
        let routes = client.ok(&host, "exec xx ip route");
        let line = routes.lines().find(|line| line.starts_with("default"));
        line.expect("a way out")
            .split(' ')
            .nth(4)
            .expect("a link")
            .to_owned()
    };
    for client in Client::ALL {
        client.ok(&host, "run -d --name xx --network front busybox sleep 1000");
        assert_eq!(way(client), "eth0");
        client.ok(&host, "network connect --gw-priority 1 back xx");
        assert_eq!(way(client), "eth1");
        client.ok(&host, "network disconnect back xx");
        assert_eq!(way(client), "eth0");
        client.ok(&host, "network connect --gw-priority -1 back xx");
        assert_eq!(way(client), "eth0");
        client.ok(&host, "rm -f xx");
    }
}

#[test]
fn what_is_not_to_be_had_is_told() {
    let host = single(&[Image::Busybox]);
    let windows = "is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux";
    for client in Client::ALL {
        for (flags, words) in [
            (
                "--gpus all",
                "could not select device driver \"\" with capabilities: [[gpu]]",
            ),
            ("--runtime kata", "unknown or invalid runtime name: kata"),
            ("--storage-opt size=1g", "not built: --storage-opt"),
            ("--isolation hyperv", "invalid isolation 'hyperv' on linux"),
            ("--cpu-count 2", windows),
            ("--cpu-percent 2", windows),
            ("--io-maxbandwidth 2", windows),
            ("--io-maxiops 2", windows),
            ("--userns auto", "--userns"),
            (
                "--link-local-ip 169.254.1.1 --network x",
                "not built: --link-local-ip",
            ),
        ] {
            let refused = client.run(&host, &format!("create {flags} busybox"));
            assert!(
                refused.stderr.contains(words),
                "{client:?} {flags}: {refused:?}"
            );
            assert_ne!(refused.code, 0);
        }
        let taken =
            "create --runtime nuncio --isolation default --kernel-memory 64m --userns host busybox";
        client.ok(&host, taken);
        assert_eq!(
            client
                .ok(
                    &host,
                    "network create --ipam-driver default --scope local --ipv4 x"
                )
                .len(),
            64
        );
        client.ok(&host, "network inspect --verbose x");
        client.ok(&host, "network rm x");
        for (flags, words) in [
            ("--ipam-driver dhcp", "not built: --ipam-driver"),
            ("--ipam-opt a=b", "not built: --ipam-opt"),
            ("--scope swarm", "scope"),
            ("--config-only", "not built: --config-only"),
            ("--ingress -d overlay", "not built: --ingress"),
        ] {
            let refused = client.run(&host, &format!("network create {flags} x"));
            assert!(
                refused.stderr.contains(words),
                "{client:?} {flags}: {refused:?}"
            );
        }
    }
}

#[test]
fn an_image_of_another_platform_is_not_found() {
    let host = single(&[Image::Busybox]);
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        _ => "linux/arm64",
    };
    let words = format!(
        "was found but its platform ({own}) does not match the specified platform (linux/s390x)"
    );
    for client in Client::ALL {
        for command in ["image inspect", "history"] {
            client.ok(&host, &format!("{command} --platform {own} busybox"));
            let refused = client.run(&host, &format!("{command} --platform linux/s390x busybox"));
            assert!(refused.stderr.contains(&words), "{client:?}: {refused:?}");
        }
        let archive = host.scratch().join("saved.tar");
        let archive = archive.to_str().expect("UTF-8");
        let save = |platform: &str| {
            client.run(
                &host,
                ["save", "--platform", platform, "-o", archive, "busybox"],
            )
        };
        let refused = save("linux/s390x");
        assert!(refused.stderr.contains(&words), "{client:?}: {refused:?}");
        save(own).ok();
        client.ok(&host, ["load", "--platform", own, "-i", archive]);
        let refused = client.run(&host, ["load", "--platform", "linux/s390x", "-i", archive]);
        assert!(
            refused
                .stderr
                .contains("not built: load --platform linux/s390x"),
            "{refused:?}"
        );
    }
}
