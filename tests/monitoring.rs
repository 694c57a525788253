//! What hosts tell of themselves: figures for Prometheus, the history of what happened, and the map of what passes.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Host, Image, Underlay, tool, wait_until};

const PORT: u16 = 9323;

/// Two hosts that serve figures.
#[track_caller]
fn hosts() -> [Host; 2] {
    let underlay = Underlay::new();
    let hosts: [Host; 2] = std::array::from_fn(|_| underlay.host());
    let first = hosts[0].registry_url();
    for (host, registry) in hosts.iter().zip(["embedded", &first]) {
        let at = at(host);
        // Nobody collects traces there, which is counted, too.
        let traces = ["--otlp-endpoint", "http://127.0.0.1:4318"];
        let flags = ["--registry", registry, "--metrics-addr", &at];
        host.start(&[&flags[..], &traces].concat());
        host.load(Image::Busybox);
    }
    hosts
}

fn at(host: &Host) -> String {
    format!("{}:{PORT}", host.address)
}

/// What a host answers; what it is asked for by the head of the request, if anything.
#[track_caller]
fn scrape(host: &Host, accept: &str) -> String {
    let (url, accept) = (
        format!("http://{}/metrics", at(host)),
        format!("Accept: {accept}"),
    );
    let curl = ["-sSf", "--max-time", "30", "-H", &accept, &url];
    host.inside("curl", curl).ok()
}

/// The sum of the figures that have this name and all of these labels.
#[track_caller]
fn figure(host: &Host, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = scrape(host, "*/*");
    let labels = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""));
    let labels: Vec<String> = labels.collect();
    let of_name = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    let lines = text.lines().filter(of_name);
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    let value = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
    };
    lines.filter_map(value).sum()
}

/// Names beginning with `nuncio_` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_part = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    for word in text.split(|byte| !is_part(byte)) {
        if word.starts_with("nuncio_") {
            found.insert(word.to_owned());
        }
    }
    found
}

/// The names of the figures that a text in Prometheus' older format describes, those of a histogram's parts among them.
fn described(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut found = BTreeSet::new();
    for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
        if kind == "histogram" {
            found.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        found.insert(name.to_owned());
    }
    found
}

/// What an expression of PromQL takes.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/monitoring")
        .join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Runs a link and a network between the hosts, and has something pass by both.
#[track_caller]
fn carry(a: &Host, b: &Host) {
    let serve = "head -c 100000 /dev/zero >/tmp/zeros; exec httpd -f -h /tmp";
    a.ok("network create -d overlay mesh");
    for (name, network) in [("store", "bridge"), ("far", "mesh")] {
        let run = [
            "run",
            "-d",
            "--name",
            name,
            "--expose",
            "80",
            "--network",
            network,
        ];
        b.ok([&run[..], &["busybox", "sh", "-c", serve]]
            .concat()
            .as_slice());
    }
    a.ok("run -d --name web -m 64m --link store:db busybox sleep 1000");
    a.ok("run -d --name near --network mesh busybox sleep 1000");
    for (client, server) in [("web", "db"), ("near", "far")] {
        wait_until("a hundred kilobytes come", || {
            let get = format!("wget -q -O - http://{server}/zeros | wc -c");
            let got = a.nuncio(["exec", client, "sh", "-c", &get]);
            got.stdout.trim() == "100000"
        });
    }
    let missing = ["exec", "near", "nslookup", "far.of.nobody"];
    let _ = a.nuncio(missing); // there is no upstream, or none that knows it
}

#[test]
fn a_real_prometheus_reads_what_hosts_count_and_its_tools_find_no_fault() {
    let [a, b] = hosts();
    carry(&a, &b);
    wait_until("the network to the other host is counted", || {
        figure(
            &a,
            "nuncio_overlay_peer_received_bytes_total",
            &[("peer", "host-2")],
        ) > 100_000.0
            && figure(
                &b,
                "nuncio_overlay_peer_sent_bytes_total",
                &[("peer", "host-1")],
            ) > 100_000.0
    });
    for (name, labels) in [
        (
            "nuncio_container_cpu_seconds_total",
            &[("container", "web")][..],
        ),
        (
            "nuncio_container_memory_usage_bytes",
            &[("container", "web")],
        ),
        ("nuncio_container_pids", &[("container", "web")]),
        (
            "nuncio_container_info",
            &[("container", "web"), ("image", "busybox")],
        ),
        (
            "nuncio_container_network_received_bytes_total",
            &[("container", "near"), ("device", "eth0")],
        ),
        (
            "nuncio_ambassador_flows_total",
            &[("forward", "link/store/80/tcp")],
        ),
        ("nuncio_dns_queries_total", &[("answered_by", "own")]),
        ("nuncio_dns_answer_seconds_count", &[("answered_by", "own")]),
        ("nuncio_overlay_peer_path_mtu_bytes", &[("peer", "host-2")]),
        (
            "nuncio_overlay_peer_round_trip_seconds",
            &[("peer", "host-2")],
        ),
        (
            "nuncio_overlay_device_received_bytes_total",
            &[("network", "mesh")],
        ),
        ("nuncio_registry_revision", &[]),
    ] {
        let found = figure(&a, name, labels);
        assert!(
            found > 0.0,
            "{name} {labels:?}: {found}\n{}",
            scrape(&a, "*/*")
        );
    }
    // Counted by kernels that were built for it, and not started with psi=0.
    let counts = std::fs::read("/proc/pressure/cpu").is_ok();
    let line = "nuncio_container_pressure_cpu_waiting_seconds_total{container=\"web\"} ";
    assert_eq!(scrape(&a, "*/*").contains(line), counts);
    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        wait_until(&format!("{name} {labels:?} is {expected}"), || {
            figure(&a, name, labels) == expected
        });
    };
    is(
        "nuncio_container_memory_limit_bytes",
        &[("container", "web")],
        64.0 * 1024.0 * 1024.0,
    );
    is("nuncio_containers", &[("state", "running")], 2.0);
    is("nuncio_overlay_peer_reachable", &[("peer", "host-2")], 1.0);
    is("nuncio_registry_revision_lag", &[], 0.0);
    is("nuncio_registry_lease_held", &[], 1.0);
    is("nuncio_part_up", &[], 5.0);
    is("nuncio_metrics_omitted", &[], 0.0);
    let sent = figure(
        &a,
        "nuncio_ambassador_sent_bytes_total",
        &[("forward", "link/store/80/tcp")],
    );
    assert!(sent >= 100_000.0, "{sent}");

    let route = a
        .ip("route show")
        .lines()
        .find(|line| line.contains("dev nx-"))
        .map(str::to_owned);
    let route = route.expect("a route to the other host");
    a.ip(&format!(
        "route del {}",
        route.split(' ').next().expect("a network")
    ));
    wait_until("the repair is counted", || {
        figure(&a, "nuncio_drift_repairs_total", &[("kind", "route")]) >= 1.0
    });
    // What counts each peer's packets goes on counting.
    assert!(figure(&a, "nuncio_overlay_peer_received_bytes_total", &[]) > 100_000.0);

    tools_find_no_fault(&a);
    documents_agree(&a);
    prometheus_scrapes(&a, &b);

    // The next daemon counts on: what carries has not ended.
    a.kill_daemon();
    a.start_again();
    let again = figure(
        &a,
        "nuncio_ambassador_sent_bytes_total",
        &[("forward", "link/store/80/tcp")],
    );
    assert!(again >= sent, "{again} after {sent}");
}

#[track_caller]
fn tools_find_no_fault(host: &Host) {
    let (promtool, url) = (tool("promtool"), format!("http://{}/metrics", at(host)));
    let check = format!("curl -sSf {url} | {} check metrics", promtool.display());
    let checked = host.inside("bash", ["-c", &check]);
    assert_eq!(
        (
            checked.code,
            checked.stdout.as_str(),
            checked.stderr.as_str()
        ),
        (0, "", "")
    );
    host.inside("promtool", ["check", "config", &example("prometheus.yml")])
        .ok();
    host.inside("promtool", ["check", "rules", &example("alerts.yml")])
        .ok();
    let head = host
        .inside(
            "curl",
            ["-sSI", "-H", "Accept: application/openmetrics-text", &url],
        )
        .ok();
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(scrape(host, "application/openmetrics-text").ends_with("# EOF"));
    let wrong = host
        .inside("curl", ["-sS", "-X", "POST", "-w", "%{http_code}", &url])
        .ok();
    assert!(
        wrong.contains("with GET") && wrong.ends_with("405"),
        "{wrong}"
    );
}

/// Each figure is documented, and each that is documented, drawn or watched is there.
#[track_caller]
fn documents_agree(host: &Host) {
    let there = described(&scrape(host, "*/*"));
    let documented = names(include_str!("../docs/METRICS.md"));
    let documented: BTreeSet<_> = documented
        .into_iter()
        .filter(|name| !name.ends_with('_'))
        .collect();
    let ours = there.iter().filter(|name| name.starts_with("nuncio_"));
    let ours = ours.filter(|name| {
        !["_bucket", "_sum", "_count"]
            .iter()
            .any(|part| name.ends_with(part))
    });
    for name in ours {
        assert!(documented.contains(name), "docs/METRICS.md lacks {name}");
    }
    let mut wanted = Vec::new();
    let dashboard = fs::read_to_string(example("dashboard.json")).expect("the dashboard");
    expressions(
        &serde_json::from_str(&dashboard).expect("JSON"),
        &mut wanted,
    );
    assert!(wanted.len() > 20, "{wanted:?}");
    let alerts = fs::read_to_string(example("alerts.yml")).expect("the alerts");
    let watched = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    wanted.extend(watched.map(str::to_owned));
    let wanted: BTreeSet<String> = wanted.iter().flat_map(|text| names(text)).collect();
    let pressure = fs::read("/proc/pressure/cpu").is_ok();
    let counted = |name: &&String| pressure || !name.contains("_pressure_");
    for name in wanted.iter().chain(&documented).filter(counted) {
        assert!(there.contains(name), "there is no {name}");
    }
}

/// A server that reads both hosts, and what it then knows.
#[track_caller]
fn prometheus_scrapes(a: &Host, b: &Host) {
    let config = a.scratch().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n- job_name: nuncio\n  \
         static_configs:\n  - targets: [{:?}, {:?}]\n",
        example("alerts.yml"),
        at(a),
        at(b)
    );
    fs::write(&config, text).expect("write the configuration");
    let [config, data] = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", a.scratch().join("tsdb").display()),
    ];
    let flags = [
        &config,
        &data,
        "--web.listen-address=127.0.0.1:9090",
        "--log.level=warn",
    ];
    let _server = a.spawn_inside("prometheus", flags);
    let query = |expression: &str| {
        let query = format!("query={expression}");
        let url = "http://127.0.0.1:9090/api/v1/query";
        let asked = a.inside("curl", ["-sS", "--get", "--data-urlencode", &query, url]);
        let answer: Value = serde_json::from_str(&asked.stdout).unwrap_or_default();
        let result = answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let value = |one: &Value| {
            one["value"][1]
                .as_str()
                .and_then(|text| text.parse::<f64>().ok())
        };
        result.iter().filter_map(value).collect::<Vec<_>>()
    };
    wait_until("Prometheus reads both hosts", || query("up") == [1.0, 1.0]);
    wait_until("it has read several times", || {
        query("min(count_over_time(nuncio_build_info[1m]))")
            .iter()
            .any(|times| *times > 2.0)
    });
    let known = query("nuncio_ambassador_flows_total{forward=\"link/store/80/tcp\"}");
    assert!(known.iter().sum::<f64>() >= 1.0, "{known:?}");
    assert_eq!(query("nuncio_containers{state=\"running\"}"), [2.0, 2.0]);
    // Nothing is amiss here, so no rule that is evaluated finds anything.
    let alerts = a
        .inside("curl", ["-sS", "http://127.0.0.1:9090/api/v1/rules"])
        .ok();
    let rules: Value = serde_json::from_str(&alerts).expect("JSON");
    let groups = rules["data"]["groups"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let rules: Vec<Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned())
        .flatten()
        .collect();
    assert!(rules.len() > 10, "{alerts}");
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
}

#[test]
fn readers_that_do_nothing_keep_nobody_from_reading() {
    let underlay = Underlay::new();
    let host = underlay.host();
    host.start(&["--metrics-addr", &at(&host)]);
    // More than are served at once: each says nothing, and is let go.
    let idle = format!(
        "for i in $(seq 80); do exec {{fd}}<>/dev/tcp/{}/{PORT}; done; sleep 100",
        host.address
    );
    let _idle = host.spawn_inside("bash", ["-c", &idle]);
    wait_until("they are connected", || {
        let listed = host.inside("ss", ["-Htn", "state", "established", "dst", &at(&host)]);
        listed.stdout.lines().count() >= 80
    });
    wait_until("somebody else reads", || {
        figure(&host, "nuncio_registry_lease_held", &[]) == 1.0
    });
}

#[test]
fn an_address_that_is_not_to_be_had_is_told_at_the_start() {
    let underlay = Underlay::new();
    let host = underlay.host();
    host.start(&[]);
    host.stop_daemon();
    let mut command = host.daemon_command();
    command.args(["--metrics-addr", "203.0.113.7:9"]);
    let output = command.output().expect("run the daemon");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("listen on --metrics-addr 203.0.113.7:9"),
        "{said}"
    );
}

/// To the nanosecond, so that what is of this second is not left out.
fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// What is told of the past with this filter: the actions, with the names of what they happened to.
#[track_caller]
fn past(host: &Host, filter: &str) -> Vec<String> {
    let format = "{{.Action}} {{.Actor.Attributes.name}}";
    let now = now();
    let words = [
        "events", "--since", "1", "--until", &now, "-f", filter, "--format", format,
    ];
    host.ok(words).lines().map(str::to_owned).collect()
}

/// Whether these are all in the text, in this order.
fn in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn what_happened_is_known_to_the_next_daemon_and_told_of_a_name_in_order() {
    let [a, b] = support::cluster(&[Image::Busybox]);
    b.ok("run -d --name store --expose 80 busybox sleep 1000");
    a.ok("run -d --name web --label tier=front --link store:db busybox sleep 1000");
    wait_until("the other host's container is told", || {
        past(&a, "event=endpoint_up").contains(&"endpoint_up store".to_owned())
    });
    a.ok("rm -f web");
    let before = past(&a, "type=container");
    let expected = [
        "create web",
        "start web",
        "kill web",
        "die web",
        "destroy web",
    ];
    assert_eq!(before, expected);

    a.kill_daemon();
    a.start_again();
    b.ok("rm -f store");
    assert_eq!(past(&a, "type=container"), before);
    assert_eq!(past(&a, "label=tier=front").len(), before.len());
    wait_until("what went is told", || {
        past(&a, "event=endpoint_down") == ["endpoint_down store"]
    });
    let story = a.ok("events --explain store");
    let parts = [
        "store came up in network bridge",
        "nowhere -> ",
        "on host-2",
        "store left network bridge",
        "-> nowhere",
    ];
    assert!(in_order(&story, &parts), "{story}");
    let story = b.ok("events --explain store");
    let parts = [
        "store was made from busybox",
        "store was started",
        "sent signal",
        "ended with exit code",
        "store was removed",
    ];
    assert!(in_order(&story, &parts), "{story}");
    let unknown = a.nuncio("events --explain nobody").refused(1);
    assert!(
        unknown.contains("nothing is remembered of nobody"),
        "{unknown}"
    );

    // What a power cut tore is left out, and spoils nothing that follows.
    a.kill_daemon();
    let journal = a.data_root().join("events.jsonl");
    let mut torn = fs::read(&journal).expect("the journal");
    torn.extend(b"{\"kind\":\"contai");
    fs::write(&journal, torn).expect("write the journal");
    a.start_again();
    a.ok("run --rm --name again busybox true");
    a.kill_daemon();
    a.start_again();
    let after = past(&a, "type=container");
    assert!(
        in_order(
            &after.join("\n"),
            &["destroy web", "create again", "start again", "die again"]
        ),
        "{after:?}"
    );

    b.kill_daemon();
    wait_until("a host that is not heard of is told", || {
        past(&a, "event=peer_dead").contains(&"peer_dead host-2".to_owned())
    });
    b.start_again();
    wait_until("it lives again", || {
        past(&a, "event=peer_alive").contains(&"peer_alive host-2".to_owned())
    });
}

/// What a host's map says.
#[track_caller]
fn map(host: &Host, history: bool) -> Value {
    let words = ["map", "--format", "json", "--history"];
    let said = host.ok(&words[..if history { 4 } else { 3 }]);
    serde_json::from_str(&said).expect("JSON")
}

/// The one item of a list of the map for which this holds.
fn one<'m>(map: &'m Value, list: &str, holds: impl Fn(&Value) -> bool) -> Option<&'m Value> {
    map[list].as_array()?.iter().find(|item| holds(item))
}

#[test]
fn the_map_shows_who_is_linked_to_whom_and_what_passes_also_when_it_is_idle() {
    let [a, b] = support::cluster(&[Image::Busybox]);
    let serve = "head -c 100000 /dev/zero >/tmp/zeros; exec httpd -f -h /tmp";
    let run = [
        "run", "-d", "--name", "store", "--expose", "80", "busybox", "sh", "-c", serve,
    ];
    b.ok(&run[..]);
    a.ok("run -d --name web -p 8080:80 --link store:db busybox sleep 1000");
    a.ok("run -d --name cache --link web:front busybox sleep 1000");
    let link = |map: &Value| one(map, "links", |link| link["id"] == "link/store/80/tcp").cloned();
    // Before anything has passed the link is there.
    let idle = link(&map(&a, false)).expect("the link");
    assert_eq!(idle["carried"]["bytes_out"], 0, "{idle}");
    wait_until("a hundred kilobytes come", || {
        let get = "wget -q -O - http://db/zeros | wc -c";
        a.nuncio(["exec", "web", "sh", "-c", get]).stdout.trim() == "100000"
    });
    let seen = map(&a, false);
    let carried = link(&seen).expect("the link");
    assert!(
        carried["carried"]["bytes_out"].as_u64() >= Some(100_000),
        "{carried}"
    );
    assert!(
        carried["carried"]["connects"].as_u64() >= Some(1),
        "{carried}"
    );
    assert_eq!(
        (&carried["alias"], &carried["to"][0]),
        (&"db".into(), &"store".into())
    );
    let web = one(&seen, "containers", |one| one["name"] == "web").expect("web");
    assert_eq!(carried["from"], serde_json::json!([web["id"]]));
    let store = one(&seen, "containers", |one| one["name"] == "store").expect("store");
    let host = one(&seen, "hosts", |host| host["name"] == "host-2").expect("the other host");
    assert_eq!(
        (&store["host"], &host["alive"]),
        (&host["id"], &true.into())
    );
    let straight =
        one(&seen, "links", |link| link["way"] == "straight").expect("the link on this host");
    assert_eq!(
        (&straight["to"][0], &straight["carried"]),
        (&"web".into(), &Value::Null)
    );
    assert!(
        one(&seen, "links", |link| link["kind"] == "publish"
            && link["to"][0] == "web")
        .is_some(),
        "{seen}"
    );
    wait_until("the way to the other host is measured", || {
        one(&map(&a, false), "paths", |path| {
            path["round_trip"].as_f64() > Some(0.0)
        })
        .is_some()
    });

    // While something passes there is a rate; afterwards there is none, but the link stays, and so does what was.
    let get = "while true; do wget -q -O - http://db/zeros >/dev/null; sleep 0.1; done";
    a.ok([
        "run", "-d", "--name", "busy", "--link", "store:db", "busybox", "sh", "-c", get,
    ]);
    wait_until("a rate is seen", || {
        link(&map(&a, false))
            .is_some_and(|link| link["rate"]["bytes_out"].as_f64() > Some(10_000.0))
    });
    let text = a.ok("map");
    let parts = [
        "host-1",
        "this host",
        "  web  running",
        "-> store as db",
        "/s back",
        "host-2",
        "  store  running",
    ];
    let sorted = parts.iter().all(|part| text.contains(part));
    assert!(sorted, "{text}");
    // What passes there is seen from the other host, too, if all are asked.
    let carried = |words: &str| {
        let map: Value = serde_json::from_str(&b.ok(words)).unwrap_or_default();
        link(&map).map(|link| link["carried"]["bytes_out"].as_u64())
    };
    assert_eq!(carried("map --format json"), None);
    assert!(carried("map --format json --all-nodes").flatten() >= Some(100_000));
    assert!(b.ok("map --all-nodes").contains("-> store as db"));
    a.ok("rm -f busy");
    wait_until("the link is idle", || {
        link(&map(&a, false)).is_some_and(|link| link["rate"]["bytes_out"].as_f64() == Some(0.0))
    });
    wait_until("what was is remembered", || {
        let samples = link(&map(&a, true)).map(|link| link["samples"].clone());
        let samples = samples.as_ref().and_then(Value::as_array);
        samples.is_some_and(|samples| samples.len() >= 2)
    });

    b.ok("rm -f store");
    wait_until("a killed container is gone from the map", || {
        one(&map(&a, false), "containers", |one| one["name"] == "store").is_none()
    });
}
