#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod balance;
mod edge;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{ProxyVersion, RelayMode};
use balance::{any_balance, bound};
use edge::any_edge;

fn env(pairs: &[(&str, &str)]) -> Result<FromEnv, EnvError> {
    from_env(
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string())),
    )
}

fn host(spec: &ForwardSpec) -> (&str, u16) {
    match &spec.target {
        Target::Host(hosts) => (&hosts[0].name, hosts[0].port),
        Target::Service(name, _) => panic!("service {name}"),
    }
}

#[test]
fn reads_the_environment_of_a_link() {
    let found = env(&[
        ("PATH", "/bin"),
        ("REDIS_NAME", "/amb/redis"),
        ("REDIS_PORT", "tcp://172.17.0.2:6379"),
        ("REDIS_PORT_6379_TCP", "tcp://172.17.0.2:6380"),
        ("REDIS_PORT_6379_TCP_ADDR", "172.17.0.2"),
        ("REDIS_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("REDIS_ENV_REDIS_PORT_6379_TCP", "tcp://10.1.1.1:6379"),
        ("DNS_PORT_53_UDP", "udp://ns.example.org:5353"),
        ("SIX_PORT_80_TCP", "tcp://[2001:db8::1]:8080"),
    ])
    .unwrap();
    assert!(found.warnings.is_empty());
    let all: Vec<_> = found
        .forwards
        .iter()
        .map(|f| (f.listen.to_string(), host(f)))
        .collect();
    assert_eq!(
        all,
        [
            ("tcp://[::]:6379".to_owned(), ("172.17.0.2", 6380)),
            ("udp://[::]:53".to_owned(), ("ns.example.org", 5353)),
            ("tcp://[::]:80".to_owned(), ("2001:db8::1", 8080)),
        ]
    );
}

#[test]
fn the_first_of_two_for_one_port_wins() {
    let found = env(&[
        ("A_PORT_80_TCP", "tcp://a:80"),
        ("B_PORT_80_TCP", "tcp://b:80"),
        ("B_PORT_80_UDP", "udp://b:80"),
    ])
    .unwrap();
    assert_eq!(found.forwards.len(), 2);
    assert_eq!(host(&found.forwards[0]).0, "a");
    assert_eq!(
        found.warnings,
        ["B_PORT_80_TCP is passed over, for A_PORT_80_TCP has port 80 already"]
    );
}

#[test]
fn malformed_variables_are_named_with_what_would_be_right() {
    for (name, value, wrong) in [
        ("A_PORT_80_TCP", "udp://a:80", "no known scheme"),
        ("A_PORT_80_TCP", "", "no known scheme"),
        ("A_PORT_80_TCP", "tcp://a", "has no port"),
        ("A_PORT_80_TCP", "tcp://a:http", "\"http\""),
        ("A_PORT_80_TCP", "tcp://:80", "host name"),
        ("A_PORT_80_TCP", "tcp://::1:80", "brackets"),
        ("A_PORT_80_UDP", "udp://a b:80", "host name"),
        ("A_PORT_0_TCP", "tcp://a:80", "1 to 65535"),
        ("A_PORT_70000_UDP", "udp://a:80", "1 to 65535"),
    ] {
        let error = env(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(wrong), "{error}");
        assert!(error.contains("write "), "{error}");
    }
    let nothing = env(&[("A_PORT", "tcp://a:80")]).unwrap_err().to_string();
    assert!(nothing.contains("REDIS_PORT_6379_TCP=tcp://"), "{nothing}");
}

#[test]
fn reads_urls() {
    let spec = from_urls("tcp://127.0.0.1:0", "tcp://a:1,b:2,[::1]:3").unwrap();
    let hosts = [("a", 1), ("b", 2), ("::1", 3)];
    assert_eq!(
        spec.target,
        Target::Host(hosts.map(|(h, p)| Host::new(h, p)).into())
    );
    let spec = from_urls("udp://*:53", "service://dns:5353").unwrap();
    assert_eq!(spec.listen.to_string(), "udp://[::]:53");
    assert_eq!(spec.target, Target::Service("dns".to_owned(), Some(5353)));
    for (listen, to, wrong) in [
        ("127.0.0.1:80", "tcp://a:1", "tcp://ADDRESS:PORT"),
        ("tcp://localhost:80", "tcp://a:1", "127.0.0.1"),
        ("tcp://127.0.0.1", "tcp://a:1", "has no port"),
        ("tcp://*:80", "udp://a:1", "both must speak"),
        ("tcp://*:80", "service://a,b:1", "stands alone"),
        ("tcp://*:80", "http://a:1", "no known scheme"),
        ("tcp://*:80", "", "no upstream"),
        ("tcp://*:80", "a:1 weight=0", "from 1 to 256"),
        ("tcp://*:80", "a:1 weight=257", "from 1 to 256"),
        ("tcp://*:80", "a:1 weigth=2", "write weight=N"),
        ("tcp://*:80", "a:1 weight=2 weight=3", "write weight=N"),
        ("tcp://*:80", "service://a weight=2", "only hosts"),
    ] {
        let error = from_urls(listen, to).unwrap_err().to_string();
        assert!(error.contains(wrong), "{listen} {to}: {error}");
    }
}

#[test]
fn reads_host_and_port() {
    let spec = from_host_port("redis.example", "6379").unwrap();
    assert_eq!(spec.listen.to_string(), "tcp://[::]:6379");
    assert_eq!(host(&spec), ("redis.example", 6379));
    assert!(from_host_port("redis", "0").is_err());
    assert!(from_host_port("re dis", "1").is_err());
}

const FILE: &str = r#"
[[forward]]
name = "redis"
listen = "tcp://127.0.0.1:6379"
to = ["tcp://a:6379", "b:6379 weight=3"]
mode = "splice"
connect_timeout = "250ms"
max_connections = 12
proxy_protocol = "v1"
accept_proxy = true
accept_proxy_from = ["10.0.0.0/8", "::1"]

[[forward]]
listen = "udp://*:53"
to = ["service://dns"]
idle = "5m"
"#;

#[test]
fn reads_a_file() {
    let specs = from_toml(Path::new("f.toml"), FILE).unwrap();
    assert_eq!(specs[0].name, "redis");
    let Target::Host(hosts) = &specs[0].target else {
        panic!("{:?}", specs[0].target);
    };
    let weights: Vec<_> = hosts.iter().map(|host| host.weight.get()).collect();
    assert_eq!(weights, [1, 3]);
    assert_eq!(specs[0].limits.mode, RelayMode::Splice);
    assert_eq!(specs[0].limits.connect_timeout, Duration::from_millis(250));
    assert_eq!(specs[0].limits.max_connections, 12);
    assert_eq!(specs[0].edge.send_proxy, Some(ProxyVersion::V1));
    let accept = specs[0].edge.accept_proxy.as_ref().unwrap();
    let networks: Vec<_> = accept.from.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(accept.timeout, Duration::from_secs(3));
    assert_eq!(specs[1].edge, EdgeSpec::default());
    assert_eq!(specs[1].name, "udp://[::]:53");
    assert_eq!(specs[1].limits.idle, Duration::from_secs(300));
}

#[test]
fn a_wrong_file_is_blamed_by_line_and_key() {
    let forward = "[[forward]]\nlisten = \"tcp://127.0.0.1:1\"\nto = [\"a:1\"]\n";
    let with = |line: &str| format!("{forward}{line}\n");
    for (text, begin, wrong) in [
        (with("colour = 1"), "f.toml:4: colour: ", "unknown field"),
        (with("mode = \"fast\""), "f.toml:4: mode: ", "`splice`"),
        (with("idle = \"5\""), "f.toml:4: idle: ", "10s"),
        (
            with("max_connections = 0"),
            "f.toml:4: max_connections: ",
            "nonzero",
        ),
        (
            "[[forward]]\nlisten = \"80\"\nto = []".into(),
            "f.toml:2: listen: ",
            "tcp://ADDRESS",
        ),
        (
            "[[forward]]\nto = [\"a:1\"]".into(),
            "f.toml:1: ",
            "missing field `listen`",
        ),
        (
            "[[forward]]\nlisten = \"tcp://*:1\"\nto = []".into(),
            "f.toml:1: ",
            "no upstream",
        ),
        (
            with("proxy_protocol = \"v3\""),
            "f.toml:4: proxy_protocol: ",
            "`v2`",
        ),
        (
            with("accept_proxy = true\naccept_proxy_from = [\"10/8\"]"),
            "f.toml:5: accept_proxy_from: ",
            "10.0.0.0/8",
        ),
        (
            with("accept_proxy = true\naccept_proxy_from = []"),
            "f.toml:1: ",
            "accept_proxy_from is empty",
        ),
        (with("sni = {}"), "f.toml:1: ", "sni is empty"),
        (
            with("[forward.sni]\n\"a_b!\" = [\"a:1\"]"),
            "f.toml:1: ",
            "\"a_b!\" is not a server name",
        ),
        (
            with("[forward.sni]\na = [\"a:1\"]\nA = [\"b:1\"]"),
            "f.toml:1: ",
            "sni has a twice",
        ),
        (with("[forward.sni]\na = []"), "f.toml:1: ", "no upstream"),
        (
            with(
                "tls = \"terminate\"\ntls_server_name = \"a.b\"\ntls_key = \"k\"\nallow = [\"spiffe://m/n/*\"]\n\
                 tls_certificate = \"c\"\ntls_bundle = \"b\"",
            ),
            "f.toml:1: ",
            "write tls = \"originate\"",
        ),
        (
            with("tls_server_name = \"a.b\""),
            "f.toml:1: ",
            "tls_server_name means nothing without tls =",
        ),
        (with("tls = \"on\""), "f.toml:4: tls: ", "`terminate`"),
        (
            with("tls = \"terminate\"\ntls_key = \"k\"\nallow = [\"spiffe://m/n/*\"]"),
            "f.toml:1: ",
            "tls needs tls_certificate too",
        ),
        (
            with("tls = \"originate\"\ntls_key = \"k\""),
            "f.toml:1: ",
            "tls needs allow too",
        ),
        (
            with("tls = \"terminate\"\nallow = []"),
            "f.toml:1: ",
            "allow is empty",
        ),
        (
            with("allow = [\"spiffe://m/n\"]"),
            "f.toml:4: allow: ",
            "spiffe://MESH/NETWORK/NAME",
        ),
        (
            with("tls_bundle = \"b\""),
            "f.toml:1: ",
            "tls_bundle means nothing without tls =",
        ),
        (
            with("accept_proxy_timeout = \"1s\""),
            "f.toml:1: ",
            "accept_proxy_timeout means nothing without accept_proxy = true",
        ),
        (
            "[[forward]]\nlisten = \"udp://*:1\"\nto = [\"a:1\"]\nproxy_protocol = \"v1\"".into(),
            "f.toml:1: ",
            "proxy_protocol is for TCP",
        ),
        ("[[forward]".into(), "f.toml:1: ", "]"),
        (
            "\n# nothing".into(),
            "f.toml has no [[forward]]",
            "write one",
        ),
    ] {
        let error = from_toml(Path::new("f.toml"), &text)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(begin) && error.contains(wrong), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let absent = from_file(Path::new("/absent/f.toml")).unwrap_err();
    assert!(absent.to_string().contains("/absent/f.toml"));
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,8}){0,3}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ]
}

#[test]
fn a_listener_may_be_of_ipv6_alone() {
    let listen: Listen = "tcp6://[::]:80".parse().unwrap();
    assert!(listen.only_v6);
    assert_eq!(listen.to_string(), "tcp6://[::]:80");
    assert!("udp6://*:80".parse::<Listen>().unwrap().only_v6);
    assert!(!"tcp://[::]:80".parse::<Listen>().unwrap().only_v6);
    assert!("tcp6://0.0.0.0:80".parse::<Listen>().is_err());
}

prop_compose! {
    fn any_spec()(
        name in ".{1,20}",
        (udp, only_v6) in any::<(bool, bool)>(),
        address in any::<std::net::SocketAddr>(),
        hosts in prop::collection::vec((any_host(), 1_u16.., 1_u16..=256), 1..4),
        service in prop::option::of(prop::option::of(1_u16..)),
        mode in prop::sample::select(vec![RelayMode::Auto, RelayMode::Copy, RelayMode::Splice]),
        (connect_timeout, idle) in (1_u64..10_000_000, 1_u64..10_000_000),
        (max_connections, max_pending) in (1_usize..1_000_000, bound()),
        (max_per_endpoint, retries) in (bound(), bound()),
        balance in any_balance(),
        direct in prop::collection::vec("(/[a-z0-9. ]{1,8}){1,3}", 0..3),
        not_direct in prop::option::of("[a-z ]{0,20}"),
        edge in any_edge(),
    ) -> ForwardSpec {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        // Flow labels and scopes are not written.
        let address = (address.ip(), address.port()).into();
        ForwardSpec {
            name,
            listen: Listen {
                protocol,
                address,
                only_v6: only_v6 && address.is_ipv6(),
            },
            target: match service {
                Some(port) => Target::Service("some-service".to_owned(), port),
                None => {
                    let host = |(name, port, weight): (String, u16, u16)| Host {
                        name,
                        port,
                        weight: weight.try_into().unwrap(),
                    };
                    Target::Host(hosts.into_iter().map(host).collect())
                }
            },
            limits: Limits {
                mode,
                connect_timeout: Duration::from_millis(connect_timeout),
                idle: Duration::from_millis(idle),
                max_connections,
                max_pending,
                max_per_endpoint,
                retries,
            },
            edge: if udp { EdgeSpec::default() } else { edge },
            balance,
            direct: direct.into_iter().map(Into::into).collect(),
            not_direct,
        }
    }
}

proptest! {
    #[test]
    fn json_goes_round(specs in prop::collection::vec(any_spec(), 0..4)) {
        let json = to_json(&specs).to_string();
        prop_assert_eq!(from_json(json.as_bytes()).unwrap(), specs);
    }

    #[test]
    fn the_environment_goes_round(host in any_host(), to in 1_u16.., port in 1_u16.., udp: bool) {
        let (upper, lower) = if udp { ("UDP", "udp") } else { ("TCP", "tcp") };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let variable = (format!("X_PORT_{port}_{upper}"), format!("{lower}://{bracketed}:{to}"));
        let found = from_env([variable]).unwrap();
        prop_assert_eq!(found.forwards[0].listen.address.port(), port);
        prop_assert_eq!(&found.forwards[0].target, &Target::Host(vec![Host::new(host, to)]));
    }

    #[test]
    fn no_environment_panics(
        name in "([A-Z]{0,3}(_ENV)?_PORT_[0-9]{0,6}_(TCP|UDP)|.{0,20})",
        value in r"((tcp|udp)://)?[\[\]a-z0-9:.]{0,12}|.{0,30}",
    ) {
        let _ = from_env([(name, value)]);
    }

    #[test]
    fn no_text_panics(listen in ".{0,30}", to in "(service://|tcp://)?.{0,30}", toml in ".{0,200}", bytes in r"(\\|.){0,9}") {
        let _ = from_urls(&listen, &to);
        let _ = from_toml(Path::new("f"), &toml);
        let _ = from_json(toml.as_bytes());
        let _ = from_urls("tcp://*:1", &format!("a:1 {to}"));
        let check = format!("kind = 'send_expect'\nexpect = '''{bytes}'''");
        let forward = "[[forward]]\nlisten = 'tcp://*:1'\nto = ['a:1']\n[forward.check]";
        let _ = from_toml(Path::new("f"), &format!("{forward}\n{check}"));
    }
}
