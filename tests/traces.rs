//! What a daemon tells a collector of OpenTelemetry: requests to the API, and flows that have ended.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Collector, Host, Image, Underlay, attribute, single, wait_until};

const METRICS: &str = "127.0.0.1:9323";

/// A host that sends traces to `url`, and serves figures.
#[track_caller]
fn traced(url: &str, underlay: &Underlay) -> Host {
    let host = underlay.host();
    host.start(&["--otlp-endpoint", url, "--metrics-addr", METRICS]);
    host.load(Image::Busybox);
    host
}

/// The figure of this name and labels, as the text has it.
#[track_caller]
fn figure(host: &Host, name: &str) -> f64 {
    let text = host.inside("curl", ["-sSf", &format!("http://{METRICS}/metrics")]);
    let text = text.ok();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(f64::NAN, |value| value.trim().parse().expect("a number"))
}

/// A host, and a collector that listens on it, which must be known before the daemon starts.
#[track_caller]
fn collected() -> (Host, Collector) {
    let underlay = Underlay::new();
    let host = underlay.host();
    let collector = Collector::listen(&host, 0);
    let url = collector.url();
    host.start(&["--otlp-endpoint", &url, "--metrics-addr", METRICS]);
    host.load(Image::Busybox);
    (host, collector)
}

#[test]
fn a_run_is_told_as_the_requests_it_is_made_of() {
    let (host, collector) = collected();
    for client in Client::ALL {
        let name = format!("box-{}", format!("{client:?}").to_lowercase());
        client.ok(&host, ["run", "--name", &name, "busybox", "true"]);
    }
    let routes = [
        ("POST /containers/create", "201"),
        ("POST /containers/{id}/start", "204"),
        ("POST /containers/{id}/wait", "200"),
        ("POST /containers/{id}/attach", "101"),
    ];
    for (name, status) in routes {
        wait_until(&format!("both clients' {name} is told"), || {
            collector.spans(name).len() >= 2
        });
        for span in collector.spans(name) {
            let value = |key: &str| attribute(&span.attributes, key);
            assert_eq!(value("http.response.status_code"), status, "{name}");
            assert_eq!(
                format!("{} {}", value("http.request.method"), value("http.route")),
                name
            );
            assert!(value("url.path").starts_with("/containers/"), "{span:?}");
            assert_eq!(value("user.id"), "0", "who it was");
            assert_eq!(span.kind, 2, "of a server");
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        }
    }
    let start = &collector.spans("POST /containers/{id}/start")[0];
    let wait = &collector.spans("POST /containers/{id}/wait")[0];
    assert!(
        wait.end_time_unix_nano >= start.end_time_unix_nano,
        "an answer has ended when all of it is sent"
    );
    let of = collector.resource();
    assert_eq!(attribute(&of, "service.name"), "nuncio");
    assert_eq!(attribute(&of, "host.name"), "host-1");

    // What is not there is no fault of the daemon's, and has a route all the same.
    host.docker("inspect --type container nosuch").refused(1);
    wait_until("what is not there is told", || {
        let spans = collector.spans("GET /containers/{id}/json");
        let missing = |code: &str| code == "404";
        let code = "http.response.status_code";
        spans
            .iter()
            .any(|span| missing(&attribute(&span.attributes, code)) && span.status.is_none())
    });
    // A client that traces itself is the beginning.
    let socket = host.url();
    let socket = socket.trim_start_matches("unix://");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let ask = |flags: &str| {
        let header = format!("traceparent: 00-{trace}-b7ad6b7169203331-{flags}");
        let words = [
            "-sSf",
            "--unix-socket",
            socket,
            "-H",
            &header,
            "http://x/version",
        ];
        host.inside("curl", words).ok();
    };
    ask("00");
    ask("01");
    wait_until("a request within a trace is told", || {
        collector.spans("GET /version").iter().any(|span| {
            span.trace_id.starts_with(&[0x0a, 0xf7]) && span.parent_span_id.ends_with(&[0x31])
        })
    });
    let within = collector.spans("GET /version").into_iter();
    let within = within.filter(|span| !span.parent_span_id.is_empty());
    assert_eq!(within.count(), 1, "one of the two was not to be recorded");
    wait_until("it is counted what was sent", || {
        figure(&host, "nuncio_spans_exported_total ") >= 8.0
    });
    let full = "nuncio_spans_dropped_total{reason=\"queue_full\"} ";
    assert!(figure(&host, full) == 0.0);
}

#[test]
fn a_flow_of_a_link_is_told_at_its_end() {
    let underlay = Underlay::new();
    let [a, b] = [underlay.host(), underlay.host()];
    let collector = Collector::listen(&a, 0);
    let url = collector.url();
    a.start(&["--otlp-endpoint", &url, "--metrics-addr", METRICS]);
    b.start(&["--registry", &a.registry_url()]);
    for host in [&a, &b] {
        host.load(Image::Busybox);
    }
    let serve = "mkdir -p /www; head -c 100000 /dev/zero >/www/x; exec httpd -f -p 80 -h /www";
    b.ok([
        "run", "-d", "--name", "store", "--expose", "80", "busybox", "sh", "-c", serve,
    ]);
    a.ok("run -d --name client --link store:store busybox sleep 1000");
    let get = "wget -qO- http://store/x | wc -c";
    wait_until("the link carries", || {
        a.nuncio(["exec", "client", "sh", "-c", get]).stdout.trim() == "100000"
    });
    let name = "link/store/80/tcp";
    wait_until("the flow is told", || {
        collector.spans(name).iter().any(|span| {
            let sent = attribute(&span.attributes, "nuncio.flow.bytes_out");
            sent.parse::<u64>().is_ok_and(|bytes| bytes > 100_000)
        })
    });
    let spans = collector.spans(name);
    let whole = |key: &str, value: &str| {
        spans
            .iter()
            .any(|span| attribute(&span.attributes, key) == value)
    };
    assert!(whole("nuncio.flow.end", "finished"), "{spans:?}");
    assert!(whole("nuncio.link.target", "store"));
    assert!(whole("network.transport", "tcp"));
    assert!(whole("network.local.port", "80"));
    assert!(spans.iter().any(
        |span| !attribute(&span.attributes, "server.address").is_empty()
            && !attribute(&span.attributes, "client.address").is_empty()
    ));
    // The ambassador goes on while the daemon is away, and the next one listens to it again.
    a.kill_daemon();
    a.start_again();
    let before = collector.spans(name).len();
    wait_until("later flows are told", || {
        a.nuncio(["exec", "client", "sh", "-c", get]);
        collector.spans(name).len() > before
    });
}

#[test]
fn a_collector_that_is_away_keeps_nobody_waiting() {
    let underlay = Underlay::new();
    let host = traced("http://127.0.0.1:4318", &underlay);
    host.ok("run --name first busybox true");
    wait_until("the daemon has noticed", || {
        host.log().contains("the collector does not take traces")
    });
    // More than may wait: the rest is dropped, and all is answered.
    let socket = host.url();
    let socket = socket.trim_start_matches("unix://").to_owned();
    let many = "http://x/version?n=[1-3000]";
    let began = Instant::now();
    host.inside(
        "curl",
        ["-sSf", "-o", "/dev/null", "--unix-socket", &socket, many],
    )
    .ok();
    assert!(began.elapsed() < Duration::from_secs(60));
    let dropped = "nuncio_spans_dropped_total{reason=\"queue_full\"} ";
    wait_until("what is dropped is counted", || {
        figure(&host, dropped) > 0.0
    });

    // It comes, refuses a few times more, and has then what waited.
    let collector = Collector::listen(&host, 4318);
    collector.refuse(1);
    wait_until("it is asked again", || collector.has_refused());
    wait_until("what was first comes first", || {
        collector
            .names()
            .iter()
            .any(|name| name == "POST /containers/create")
    });
    wait_until("the daemon tells of it", || {
        host.log().contains("the collector takes traces again")
    });
}

#[test]
fn nothing_is_told_unless_asked_for_and_a_wrong_address_is_refused() {
    let host = single(&[Image::Busybox]);
    let collector = Collector::listen(&host, 4318);
    host.ok("run --name box busybox true");
    assert!(!host.log().contains("traces"), "{}", host.log());
    assert_eq!(collector.names(), Vec::<String>::new());
    for (wrong, why) in [
        ("127.0.0.1:4318", "neither http:// nor https://"),
        ("grpc://127.0.0.1:4317", "OTLP over gRPC is not spoken"),
        ("http://user:secret@host:4318", "a name or password"),
        ("http://", "no URL"),
    ] {
        let refused = host.nuncio(["daemon", "--otlp-endpoint", wrong]);
        let refused = refused.refused(125);
        assert!(
            refused.contains(&format!(
                "invalid argument \"{wrong}\" for \"--otlp-endpoint\" flag"
            )) && refused.contains(why)
                && refused.contains("http://127.0.0.1:4318"),
            "{refused}"
        );
    }
}
