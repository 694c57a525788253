//! Containers, networks and volumes by name: in filters, in templates, and by the names that links give.

mod support;

use support::{Client, Host, Image, single, wait_until};

/// What a list says, sorted.
#[track_caller]
fn listed(client: Client, host: &Host, line: &str) -> Vec<String> {
    let text = client.ok(host, line);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn filters_of_names_are_regular_expressions() {
    let host = single(&[Image::Busybox]);
    for name in ["web", "web-1", "web-22", "db"] {
        host.ok(&format!("create --name {name} busybox true"));
        host.ok(&format!("volume create {name}"));
        host.ok(&format!("network create {name}"));
    }
    for client in Client::ALL {
        for (pattern, expected) in [
            ("web", &["web", "web-1", "web-22"][..]),
            ("^/?web$", &["web"]),
            ("^web-[0-9]+$", &["web-1", "web-22"]),
            ("(web|db)$", &["db", "web"]),
            ("^(", &[]),
            ("nosuch.*", &[]),
        ] {
            let ps = format!("ps -a --format {{{{.Names}}}} --filter name={pattern}");
            assert_eq!(listed(client, &host, &ps), expected, "{client:?} {pattern}");
            let pattern = pattern.replace("/?", "");
            for kind in ["volume", "network"] {
                let ls = format!("{kind} ls --format {{{{.Name}}}} --filter name={pattern}");
                assert_eq!(
                    listed(client, &host, &ls),
                    expected,
                    "{client:?} {kind} {pattern}"
                );
            }
        }
    }
}

#[test]
fn templates_find_a_label_by_its_name() {
    let host = single(&[Image::Busybox]);
    host.ok("create --name web --label org.example.tier=front --label b=2 busybox true");
    host.ok("volume create --label org.example.tier=front data");
    host.ok("network create --label org.example.tier=front mesh");
    let format = "{{.Label \"org.example.tier\"}}|{{.Label \"nosuch\"}}";
    for client in Client::ALL {
        for list in [
            &["ps", "-a"][..],
            &["volume", "ls"],
            &["network", "ls", "--filter", "name=mesh"],
        ] {
            let words: Vec<&str> = list.iter().copied().chain(["--format", format]).collect();
            assert_eq!(
                client.ok(&host, &words[..]),
                "front|",
                "{client:?} {list:?}"
            );
        }
        let table = "table {{.Names}}\t{{.Label \"org.example.tier\"}}";
        let shown = client.ok(&host, ["ps", "-a", "--format", table]);
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words, ["NAMES", "tier", "web", "front"], "{client:?}");
        let labels = client.ok(&host, ["ps", "-a", "--format", "{{.Labels}}"]);
        let mut labels: Vec<&str> = labels.split(',').collect();
        labels.sort_unstable();
        assert_eq!(labels, ["b=2", "org.example.tier=front"]);
        let json = client.ok(&host, "ps -a --format json");
        assert!(!json.contains("LabelMap"), "{json}");
    }
}

#[test]
fn a_link_is_a_name_that_can_be_taken_away() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name db --expose 5432 busybox sleep 1000");
    for client in Client::ALL {
        client.ok(
            &host,
            "run -d --name web --link db:store busybox sleep 1000",
        );
        let names = client.ok(
            &host,
            "ps --no-trunc --format {{.Names}} --filter name=^db$",
        );
        assert_eq!(names, "db,web/store", "{client:?}");
        let hosts = || client.ok(&host, "exec web cat /etc/hosts");
        assert!(hosts().contains("store"));
        let refused = client.run(&host, "rm --link web/nosuch");
        assert!(
            refused.stderr.contains("No such link: /web/nosuch"),
            "{refused:?}"
        );
        let refused = client.run(&host, "rm --link web");
        assert!(
            refused
                .stderr
                .contains("cannot remove the default link name"),
            "{refused:?}"
        );
        assert_eq!(client.ok(&host, "rm --link web/store"), "web/store");
        wait_until("the name is gone", || !hosts().contains("store"));
        let names = client.ok(
            &host,
            "ps --no-trunc --format {{.Names}} --filter name=^db$",
        );
        assert_eq!(names, "db", "{client:?}");
        assert_eq!(client.ok(&host, "ps -q").lines().count(), 2);
        client.ok(&host, "rm -f web");
    }
}

#[test]
fn several_kinds_are_inspected_at_once() {
    let host = single(&[Image::Busybox]);
    host.ok("create --name web busybox true");
    host.ok("volume create data");
    host.ok("network create mesh");
    for client in Client::ALL {
        let format = "{{if .Name}}{{.Name}}{{else}}{{.Id}}{{end}}";
        let shown = client.run(
            &host,
            ["inspect", "-f", format, "web", "data", "mesh", "nosuch"],
        );
        assert_eq!(shown.code, 1);
        assert_eq!(
            shown.stdout.lines().collect::<Vec<_>>(),
            ["/web", "data", "mesh"],
            "{client:?}"
        );
        assert!(shown.stderr.contains("No such object: nosuch"), "{shown:?}");
        let one = client.ok(
            &host,
            ["inspect", "--type", "volume", "-f", "{{.Driver}}", "data"],
        );
        assert_eq!(one, "local");
        let refused = client.run(&host, ["inspect", "--type", "volume", "web"]);
        assert!(refused.stderr.contains("web"), "{refused:?}");
    }
}

#[test]
fn inspect_knows_what_services_consist_of() {
    let host = single(&[Image::Busybox]);
    let file = host.scratch().join("page");
    std::fs::write(&file, "x\n").expect("write a file");
    let file = file.to_str().expect("a path in UTF-8");
    host.ok(["config", "create", "page", file]);
    host.ok(["secret", "create", "word", file]);
    host.ok("service create --detach --replicas 0 --no-resolve-image --name svc busybox sleep 1");
    for client in Client::ALL {
        let format = "{{.Spec.Name}}";
        for name in ["page", "word", "svc"] {
            assert_eq!(client.ok(&host, ["inspect", "-f", format, name]), name);
        }
        let named = |kind, name| client.run(&host, ["inspect", "--type", kind, name]);
        assert_eq!(named("service", "svc").code, 0, "{client:?}");
        assert_eq!(named("node", "host-1").code, 0, "{client:?}");
        assert_eq!(named("config", "svc").code, 1, "{client:?}");
        let sized = client.run(&host, ["inspect", "-s", "svc"]);
        assert_eq!(sized.code, 0, "{sized:?}");
        assert!(
            sized.stderr.contains("WARNING: --size ignored for service"),
            "{sized:?}"
        );
    }
}
