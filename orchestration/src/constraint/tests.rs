use proptest::prelude::*;

use super::*;

fn node() -> Node {
    let mut node = Node {
        id: "n1ID".into(),
        name: "Alpha".into(),
        address: Some("10.1.2.3".parse().expect("an address")),
        role_manager: true,
        os: "linux".into(),
        arch: "x86_64".into(),
        ..Node::default()
    };
    node.labels.insert("disk".into(), "SSD".into());
    node.engine_labels.insert("rack.row".into(), "7".into());
    node
}

fn met(text: &str) -> bool {
    Constraint::parse(text).expect(text).met_by(&node())
}

#[test]
fn each_key_is_compared() {
    for text in [
        "node.id==N1id",
        "node.id!=n2",
        "node.hostname == alpha",
        "NODE.HostName==ALPHA",
        "node.role==manager",
        "node.role!=worker",
        "node.platform.os==Linux",
        "node.platform.arch==x86_64",
        "node.platform.arch==amd64",
        "node.labels.disk==ssd",
        "node.labels.disk!=hdd",
        "node.labels.none!=x",
        "engine.labels.rack.row==7",
        "Engine.Labels.rack.row!=8",
    ] {
        assert!(met(text), "{text}");
    }
    for text in [
        "node.id!=n1id",
        "node.hostname==beta",
        "node.role==worker",
        "node.platform.arch!=amd64",
        "node.labels.Disk==ssd", // names of labels have their case
        "node.labels.none==x",
        "engine.labels.rack.row!=7",
        "node.what==x",
        "node.what!=x",
        "node.labels.==x",
    ] {
        assert!(!met(text), "{text}");
    }
}

#[test]
fn an_address_or_a_block_of_them() {
    for text in [
        "node.ip==10.1.2.3",
        "node.ip==10.1.0.0/16",
        "node.ip==0.0.0.0/0",
        "node.ip!=10.1.2.4",
        "node.ip!=10.2.0.0/16",
        "node.ip!=2001:db8::/32",
        "node.ip!=::/0",
    ] {
        assert!(met(text), "{text}");
    }
    for text in [
        "node.ip==10.1.2.4",
        "node.ip!=10.1.2.3",
        "node.ip==10.1.2.0/32",
        "node.ip==10.1.2.3/33",
        "node.ip!=10.1.2.3/33", // no address at all: no host meets it
        "node.ip!=somewhere",
    ] {
        assert!(!met(text), "{text}");
    }
    let nowhere = Node {
        address: None,
        ..node()
    };
    let here = Constraint::parse("node.ip==10.0.0.0/8").expect("a constraint");
    assert!(!here.met_by(&nowhere));
}

#[test]
fn what_docker_refuses_in_its_words() {
    for (text, words) in [
        ("node.id", "constraint expected one operator from ==, !="),
        ("node.id=1", "constraint expected one operator from ==, !="),
        ("", "constraint expected one operator from ==, !="),
        ("==a", "key '' is invalid"),
        ("n==a", "key 'n' is invalid"),
        ("1node==a", "key '1node' is invalid"),
        ("node id==a", "key 'node id' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a,b", "value 'a,b' is invalid"),
        ("node.id==a==b", "value 'a==b' is invalid"),
        ("node.id!=a==b", "key 'node.id!=a' is invalid"),
    ] {
        let error = Constraint::parse(text).expect_err(text);
        assert_eq!(error.to_string(), words, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(text in "\\PC{0,40}") {
        let _ = Constraint::parse(&text);
    }

    #[test]
    fn what_is_written_is_read_again(
        key in "[a-zA-Z_][a-zA-Z0-9_.-]{1,20}",
        equal in any::<bool>(),
        value in r"[a-zA-Z0-9:_.*()?+\[\]\\^$|/-]([a-zA-Z0-9 :._-]{0,10}[a-z])?",
    ) {
        let text = format!("{key}{}{value}", if equal { "==" } else { "!=" });
        let parsed = Constraint::parse(&text).expect("a constraint");
        prop_assert_eq!(parsed.to_string(), text.clone());
        let json = serde_json::to_string(&parsed).expect("json");
        prop_assert_eq!(serde_json::from_str::<Constraint>(&json).expect("a constraint"), parsed);
    }

    #[test]
    fn one_operator_is_the_other_ones_opposite(
        label in "[a-z]{1,8}",
        value in "[a-zA-Z0-9]{1,8}",
        has in proptest::option::of("[a-zA-Z0-9]{0,8}"),
    ) {
        let mut node = node();
        if let Some(has) = has {
            node.labels.insert(label.clone(), has);
        }
        let met = |operator| {
            let text = format!("node.labels.{label}{operator}{value}");
            Constraint::parse(&text).expect("a constraint").met_by(&node)
        };
        prop_assert_ne!(met("=="), met("!="));
    }

    #[test]
    fn a_block_has_what_shares_its_prefix(network in any::<u32>(), length in 0u32..=32, address in any::<u32>()) {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let text = format!("node.ip=={}/{length}", std::net::Ipv4Addr::from(network));
        let node = Node { address: Some(std::net::Ipv4Addr::from(address).into()), ..node() };
        let met = Constraint::parse(&text).expect("a constraint").met_by(&node);
        prop_assert_eq!(met, network & mask == address & mask);
    }
}
