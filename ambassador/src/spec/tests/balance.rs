//! How to balance, check and bound.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use crate::{Check, CheckKind, Eject, OnRemove, Policy};

const BALANCED: &str = r#"
[[forward]]
listen = "tcp://127.0.0.1:6379"
to = ["tcp://a:6379", "b:6379 weight=3"]
balance = "round_robin"
on_remove = "drain:30s"
max_pending = 100
max_per_endpoint = 50
retries = 0
eject = { after = 3, panic = "75%" }

[forward.check]
kind = "send_expect"
send = 'PING\r\n\x00'
expect = "+PONG\r\n"
interval = "1s"
fall = 1
port = 6380

[[forward]]
listen = "tcp://127.0.0.1:80"
to = ["a:80"]
check = { kind = "http", path = "/health", host = "a.example", status = "200", timeout = "500ms" }
"#;

#[test]
fn reads_how_to_balance() {
    let specs = from_toml(Path::new("f.toml"), BALANCED).unwrap();
    let (limits, balance) = (&specs[0].limits, &specs[0].balance);
    assert_eq!(balance.policy, Policy::RoundRobin);
    assert_eq!(balance.on_remove, OnRemove::Drain(Duration::from_secs(30)));
    assert_eq!((limits.max_pending, limits.max_per_endpoint), (100, 50));
    assert_eq!((limits.retries, specs[1].limits.retries), (0, usize::MAX));
    assert_eq!((balance.eject.after.get(), balance.eject.panic), (3, 75));
    assert_eq!(balance.eject.longest, Duration::from_secs(60));
    let check = balance.check.as_ref().unwrap();
    let send_expect = CheckKind::SendExpect {
        send: b"PING\r\n\0".to_vec(),
        expect: b"+PONG\r\n".to_vec(),
    };
    assert_eq!(check.kind, send_expect);
    assert_eq!((check.rise.get(), check.fall.get()), (2, 1));
    assert_eq!(check.port.unwrap().get(), 6380);
    assert_eq!(check.interval, Duration::from_secs(1));
    let check = specs[1].balance.check.as_ref().unwrap();
    let http = CheckKind::Http {
        path: "/health".to_owned(),
        host: Some("a.example".to_owned()),
        status: 200..=200,
    };
    assert_eq!(
        (&check.kind, check.timeout),
        (&http, Duration::from_millis(500))
    );
    assert_eq!(specs[1].balance.policy, Policy::P2c);
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    let with = |line: &str| {
        format!("[[forward]]\nlisten = \"tcp://127.0.0.1:1\"\nto = [\"a:1\"]\n{line}\n")
    };
    for (text, begin, wrong) in [
        (
            with("balance = \"fastest\""),
            "f.toml:4: balance: ",
            "least_connections",
        ),
        (
            with("on_remove = \"drain\""),
            "f.toml:4: on_remove: ",
            "drain:30s",
        ),
        (
            with("on_remove = \"drain:x\""),
            "f.toml:4: on_remove: ",
            "10s",
        ),
        (
            with("max_pending = 0"),
            "f.toml:4: max_pending: ",
            "nonzero",
        ),
        (with("retries = -1"), "f.toml:4: retries: ", "u32"),
        (
            with("eject = { panic = \"101%\" }"),
            "f.toml:4: eject: ",
            "0% to 100%",
        ),
        (
            with("eject = { for = \"1s\" }"),
            "f.toml:4: eject: ",
            "`longest`",
        ),
        (
            with("check = { kind = \"ping\" }"),
            "f.toml:4: check: ",
            "`send_expect`",
        ),
        (
            with("[forward.check]\nkind = \"tcp\"\npath = \"/\""),
            "f.toml:4: ",
            "path is for checks of kind = \"http\"",
        ),
        (
            with("[forward.check]\nkind = \"http\"\npath = \"health\""),
            "f.toml:4: ",
            "/health",
        ),
        (
            with("[forward.check]\nkind = \"http\"\npath = \"/a b\""),
            "f.toml:6: path: ",
            "visible ASCII",
        ),
        (
            with("[forward.check]\nkind = \"http\"\nstatus = \"299-200\""),
            "f.toml:6: status: ",
            "200-399",
        ),
        (
            with("[forward.check]\nkind = \"send_expect\"\nsend = \"PING\""),
            "f.toml:4: ",
            "needs expect",
        ),
        (
            with("[forward.check]\nkind = \"send_expect\"\nexpect = '\\q'"),
            "f.toml:6: expect: ",
            r"\x00 to \xff",
        ),
    ] {
        let error = from_toml(Path::new("f.toml"), &text);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(begin) && error.contains(wrong), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A bound, or none.
pub(super) fn bound() -> impl Strategy<Value = usize> {
    prop_oneof![Just(usize::MAX), 1_usize..1_000_000]
}

fn any_span() -> impl Strategy<Value = Duration> {
    (1_u64..10_000_000).prop_map(Duration::from_millis)
}

fn any_check() -> impl Strategy<Value = Check> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    let kind = prop_oneof![
        Just(CheckKind::Tcp),
        (
            "/[!-~]{0,20}",
            prop::option::of("[!-~]{1,20}"),
            100_u16..300,
            300_u16..600
        )
            .prop_map(|(path, host, low, high)| CheckKind::Http {
                path,
                host,
                status: low..=high,
            }),
        (bytes(), bytes()).prop_map(|(send, expect)| CheckKind::SendExpect { send, expect }),
    ];
    let numbers = (
        any::<Option<NonZeroU16>>(),
        any::<NonZeroU32>(),
        any::<NonZeroU32>(),
    );
    (kind, numbers, any_span(), any_span()).prop_map(|(kind, numbers, interval, timeout)| {
        let (port, rise, fall) = numbers;
        Check {
            kind,
            port,
            interval,
            timeout,
            rise,
            fall,
        }
    })
}

pub(super) fn any_balance() -> impl Strategy<Value = Balance> {
    let on_remove = prop_oneof![
        Just(OnRemove::Keep),
        Just(OnRemove::Reset),
        any_span().prop_map(OnRemove::Drain),
    ];
    let eject = (any::<NonZeroU32>(), any_span(), any_span(), 0_u8..=100);
    let eject = eject.prop_map(|(after, first, longest, panic)| Eject {
        after,
        first,
        longest,
        panic,
    });
    let policy = prop::sample::select(Policy::ALL.to_vec());
    let check = prop::option::of(any_check());
    (policy, eject, on_remove, check).prop_map(|(policy, eject, on_remove, check)| Balance {
        policy,
        eject,
        on_remove,
        check,
    })
}
