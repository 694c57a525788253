use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::daemon::refusal::RefusalKind;

fn parse(host: Value) -> Result<HostOptions, Refusal> {
    host_options(serde_json::from_value(host).expect("a host configuration"))
}

#[test]
fn links_come_in_three_forms() {
    for (text, target, alias) in [
        ("db", "db", "db"),
        ("db:redis", "db", "redis"),
        ("/db:/web/redis", "db", "redis"),
        ("db:a/b", "db", "a/b"),
    ] {
        let expected = LinkRequest {
            target: target.to_owned(),
            alias: alias.to_owned(),
        };
        assert_eq!(link(text).expect(text), expected);
    }
    for text in ["", ":", "db:", ":redis", "a:b:c", "/:x", "a b", "db:x\ny"] {
        let error = link(text).expect_err(text);
        assert!(
            error.message.starts_with("invalid --link"),
            "{}",
            error.message
        );
    }
}

#[test]
fn network_modes_are_told_apart() {
    for (text, expected) in [
        ("", NetworkMode::Default),
        ("default", NetworkMode::Default),
        ("bridge", NetworkMode::Default),
        ("none", NetworkMode::None),
        ("host", NetworkMode::Host),
        ("container:db", NetworkMode::Container("db".to_owned())),
        ("mesh", NetworkMode::Named("mesh".to_owned())),
    ] {
        assert_eq!(network_mode(text).expect(text), expected);
    }
    assert!(network_mode("container:").is_err());
}

#[test]
fn limits_out_of_range_are_refused() {
    for (host, words) in [
        (
            json!({"Memory": 4 << 20}),
            "Minimum memory limit allowed is 6MB",
        ),
        (json!({"Memory": -5}), "Minimum memory limit allowed is 6MB"),
        (
            json!({"MemorySwap": 8 << 20}),
            "You should always set the Memory limit",
        ),
        (
            json!({"Memory": 16 << 20, "MemorySwap": 8 << 20}),
            "should be larger than memory limit",
        ),
        (json!({"NanoCpus": -1}), "range of CPUs is from 0.01"),
        (json!({"CpuShares": 1}), "invalid --cpu-shares 1"),
        (
            json!({"OomScoreAdj": 1001}),
            "range for oom score adj is [-1000, 1000]",
        ),
        (
            json!({"Ulimits": [{"Name": "files", "Soft": 1, "Hard": 1}]}),
            "invalid ulimit type: files",
        ),
        (
            json!({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}),
            "2 > 1",
        ),
        (json!({"Sysctls": {"../../x": "1"}}), "invalid --sysctl"),
        (
            json!({"Dns": ["dns.example"]}),
            "invalid --dns \"dns.example\"",
        ),
        (
            json!({"DnsSearch": ["a\nnameserver 1.2.3.4"]}),
            "invalid --dns-search",
        ),
        (
            json!({"ExtraHosts": ["db"]}),
            "invalid --add-host \"db\": expected NAME:ADDRESS",
        ),
    ] {
        let error = parse(host).expect_err(words);
        assert_eq!(error.kind, RefusalKind::Invalid);
        assert!(error.message.contains(words), "{}", error.message);
    }
    let options = parse(json!({"Memory": 6 << 20, "MemorySwap": -1})).expect("the least");
    assert_eq!((options.memory, options.memory_swap), (6 << 20, -1));
}

#[test]
fn logs_may_be_bounded() {
    let log = |config: Value| parse(json!({"LogConfig": {"Type": "json-file", "Config": config}}));
    let options = log(json!({"max-size": "10m", "max-file": "3"})).expect("valid");
    assert_eq!(
        (options.log_max_size, options.log_max_file),
        (Some(10 << 20), Some(3))
    );
    for (config, kind, words) in [
        (
            json!({"max-size": "-1"}),
            RefusalKind::Invalid,
            "max-size=-1: expected a positive number",
        ),
        (
            json!({"max-file": "2"}),
            RefusalKind::Invalid,
            "max-file cannot be set when max-size is not set",
        ),
        (
            json!({"tag": "x"}),
            RefusalKind::Unsupported,
            "--log-opt tag",
        ),
        (
            json!({"colour": "x"}),
            RefusalKind::Invalid,
            "unknown log opt 'colour'",
        ),
    ] {
        let error = log(config).expect_err(words);
        assert_eq!(error.kind, kind);
        assert!(error.message.contains(words), "{}", error.message);
    }
    let error = parse(json!({"LogConfig": {"Type": "syslog"}})).expect_err("not built");
    assert_eq!(
        error.message,
        "not built: --log-driver syslog; only json-file and none"
    );
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".*") {
        let _ = (link(&text), network_mode(&text), bytes(&text));
        let _ = (is_sysctl(&text), is_extra_host(&text));
    }
}
