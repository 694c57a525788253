#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use serde_json::json;

use super::*;

fn packet() -> Packet {
    Packet {
        hook: "forward",
        from: "nb-1".to_owned(),
        to: "nx-1".to_owned(),
        source: [10, 1, 1, 2].into(),
        target: [10, 1, 2, 2].into(),
        port: Some((Protocol::Tcp, 6379)),
    }
}

/// A table with a chain at the hook, and one to jump to.
fn table(policy: &str, rules: &[Value], other: &[Value]) -> Value {
    let mut list = vec![
        json!({"metainfo": {}}),
        json!({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": policy}}),
        json!({"chain": {"family": "ip", "table": "filter", "name": "more", "handle": 2}}),
    ];
    for (chain, rules) in [("FORWARD", rules), ("more", other)] {
        for (index, expr) in rules.iter().enumerate() {
            list.push(
                json!({"rule": {"family": "ip", "table": "filter", "chain": chain,
                "handle": 10 + index, "expr": expr}}),
            );
        }
    }
    json!({ "nftables": list })
}

fn is(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn port(right: Value) -> Value {
    is(
        json!({"payload": {"protocol": "tcp", "field": "dport"}}),
        right,
    )
}

fn drop_of(ruleset: &Value) -> Option<(bool, Option<u64>)> {
    dropped(ruleset, "inet nuncio", &packet()).map(|drop| (drop.surely, drop.handle))
}

#[test]
fn a_rule_drops_what_it_is_about_and_nothing_else() {
    let drop = json!({"drop": null});
    let meta = |key: &str| json!({"meta": {"key": key}});
    let address = |field: &str| json!({"payload": {"protocol": "ip", "field": field}});
    let prefix = |addr: &str| json!({"prefix": {"addr": addr, "len": 16}});
    for (condition, drops) in [
        (port(json!(6379)), true),
        (port(json!(22)), false),
        (port(json!({"set": [22, {"range": [6000, 7000]}]})), true),
        (
            is(
                json!({"payload": {"protocol": "udp", "field": "dport"}}),
                json!(6379),
            ),
            false,
        ),
        (is(meta("iifname"), json!("nb-*")), true),
        (is(meta("oifname"), json!({"set": ["eth0", "eth1"]})), false),
        (is(meta("l4proto"), json!("tcp")), true),
        (is(address("saddr"), prefix("10.1.0.0")), true),
        (is(address("daddr"), json!("10.1.2.3")), false),
        (
            is(
                json!({"ct": {"key": "state"}}),
                json!(["established", "related"]),
            ),
            false,
        ),
    ] {
        let ruleset = table("accept", &[json!([condition, {"counter": {}}, drop])], &[]);
        let expected = drops.then_some((true, Some(10)));
        assert_eq!(drop_of(&ruleset), expected, "{condition}");
    }
}

#[test]
fn rules_of_ipv4_are_not_about_ipv6_and_the_other_way_round() {
    let packet = Packet {
        source: "fd00:1::2".parse().unwrap(),
        target: "fd00:2::2".parse().unwrap(),
        ..packet()
    };
    let rule = |family: &str, condition: Value| {
        let mut ruleset = table("accept", &[json!([condition, {"drop": null}])], &[]);
        for item in ruleset["nftables"].as_array_mut().unwrap() {
            for kind in ["chain", "rule"] {
                if let Some(body) = item.get_mut(kind) {
                    body["family"] = json!(family);
                }
            }
        }
        dropped(&ruleset, "inet nuncio", &packet).map(|drop| drop.surely)
    };
    let field =
        |header: &str, field: &str| json!({"payload": {"protocol": header, "field": field}});
    let prefix = json!({"prefix": {"addr": "fd00:1::", "len": 32}});
    let proto = |name: &str| is(json!({"meta": {"key": "nfproto"}}), json!(name));
    for (family, condition, expected) in [
        ("ip6", is(field("ip6", "saddr"), prefix.clone()), Some(true)),
        (
            "inet",
            is(field("ip6", "saddr"), prefix.clone()),
            Some(true),
        ),
        ("ip", is(field("ip6", "saddr"), prefix), None),
        ("inet", is(field("ip6", "daddr"), json!("fd00:1::2")), None),
        (
            "inet",
            is(field("ip6", "nexthdr"), json!("tcp")),
            Some(true),
        ),
        ("inet", is(field("ip", "protocol"), json!("tcp")), None),
        ("inet", proto("ipv6"), Some(true)),
        ("inet", proto("ipv4"), None),
    ] {
        assert_eq!(
            rule(family, condition.clone()),
            expected,
            "{family} {condition}"
        );
    }
}

#[test]
fn chains_are_followed_and_policies_heeded() {
    let jump = json!([{"jump": {"target": "more"}}]);
    let (accept, drop) = (json!([{"accept": null}]), json!([{"drop": null}]));
    let through = json!([port(json!(22)), {"accept": null}]);
    let back = json!([{"return": null}]);
    for (policy, rules, other, expected) in [
        ("drop", vec![], vec![], Some((true, None))),
        ("drop", vec![accept.clone()], vec![], None),
        ("drop", vec![through], vec![], Some((true, None))),
        (
            "accept",
            vec![jump.clone()],
            vec![drop.clone()],
            Some((true, Some(10))),
        ),
        ("accept", vec![jump.clone()], vec![back, drop.clone()], None),
        ("drop", vec![jump.clone()], vec![accept.clone()], None),
        ("accept", vec![accept, drop], vec![], None),
        (
            "accept",
            vec![json!([{"jump": {"target": "FORWARD"}}])],
            vec![],
            None,
        ),
    ] {
        assert_eq!(
            drop_of(&table(policy, &rules, &other)),
            expected,
            "{rules:?} {other:?}"
        );
    }
}

#[test]
fn what_cannot_be_told_is_not_told_for_sure() {
    let unknown = json!({"xt": {"type": "match", "name": "string"}});
    let drop = json!([unknown, {"drop": null}]);
    assert_eq!(
        drop_of(&table("accept", &[drop], &[])),
        Some((false, Some(10)))
    );
    let accept = json!([unknown, {"accept": null}]);
    assert_eq!(drop_of(&table("drop", &[accept], &[])), Some((false, None)));
}

#[test]
fn our_own_table_and_other_hooks_are_left_out() {
    let mut ruleset = table("drop", &[], &[]);
    assert_eq!(dropped(&ruleset, "ip filter", &packet()), None);
    ruleset["nftables"][1]["chain"]["hook"] = json!("input");
    assert_eq!(drop_of(&ruleset), None);
    for odd in [
        json!(null),
        json!({"nftables": 1}),
        json!({"nftables": [1, {"chain": 2}]}),
    ] {
        assert_eq!(drop_of(&odd), None);
    }
}
