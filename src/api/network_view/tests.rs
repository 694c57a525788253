use proptest::prelude::*;
use serde_json::{Value, json};

use std::net::Ipv4Addr;

use super::*;
use crate::daemon::networks::{NetworkEndpoint, Pool};
use crate::daemon::refusal::RefusalKind;

fn made(body: Value) -> Result<NetworkCreate, Refusal> {
    parse(serde_json::from_value(body).expect("a network"))
}

#[test]
fn what_the_client_sends_is_understood() {
    let create = made(json!({
        "Name": "mesh", "CheckDuplicate": true, "Driver": "overlay", "Scope": "", "Internal": false,
        "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {}, "Labels": {"a": "b"},
        "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.7.0.0/16"}]},
    }))
    .expect("valid");
    assert_eq!(
        (
            create.name.as_str(),
            create.driver.as_str(),
            create.attachable
        ),
        ("mesh", "overlay", true)
    );
    assert_eq!(
        create.subnet,
        Some("10.7.0.0/16".parse().expect("a subnet"))
    );
}

#[test]
fn addresses_can_be_kept_back() {
    let config = json!([{
        "Subnet": "10.7.0.0/24", "Gateway": "10.7.0.1", "IPRange": "10.7.0.128/25",
        "AuxiliaryAddresses": {"printer": "10.7.0.129"},
    }]);
    let create = made(json!({"Name": "x", "IPAM": {"Config": config}})).expect("valid");
    assert_eq!(create.gateway, Some(Ipv4Addr::new(10, 7, 0, 1)));
    assert_eq!(create.range, "10.7.0.128/25".parse().ok());
    assert_eq!(create.reserved["printer"], Ipv4Addr::new(10, 7, 0, 129));
}

#[test]
fn both_families_have_their_own_addresses() {
    let config = json!([
        {"Subnet": "fd00:7::/64", "Gateway": "fd00:7::1", "IPRange": "fd00:7:0:0:8::/80",
         "AuxiliaryAddresses": {"printer": "fd00:7:0:0:8::9"}},
        {"Subnet": "10.7.0.0/24"},
    ]);
    let create = made(json!({"Name": "x", "EnableIPv6": true, "IPAM": {"Config": config}}));
    let create = create.expect("valid");
    assert_eq!(create.subnet, "10.7.0.0/24".parse().ok());
    let v6 = create.v6.expect("it is asked for");
    assert_eq!(v6.subnet, "fd00:7::/64".parse().ok());
    assert_eq!(v6.gateway, "fd00:7::1".parse().ok());
    assert_eq!(v6.range, "fd00:7:0:0:8::/80".parse().ok());
    assert_eq!(v6.reserved["printer"].to_string(), "fd00:7::8:0:0:9");
    let create = made(json!({"Name": "x", "EnableIPv6": true})).expect("from a pool");
    assert_eq!(
        (create.subnet, create.v6),
        (None, Some(CreateV6::default()))
    );
}

#[test]
fn what_is_wrong_is_told() {
    let with = |subnet: &str, gateway: &str| json!([{"Subnet": subnet, "Gateway": gateway}]);
    for (config, kind, words) in [
        (
            with("10.7.0.0", ""),
            RefusalKind::Invalid,
            "invalid CIDR block notation",
        ),
        (
            with("10.7.0.0/40", ""),
            RefusalKind::Invalid,
            "invalid CIDR block notation",
        ),
        (
            with("10.7.0.1/16", ""),
            RefusalKind::Invalid,
            "it should be 10.7.0.0/16",
        ),
        (
            with("fd00::/64", ""),
            RefusalKind::Invalid,
            "an IPv6 subnet is given, but not --ipv6",
        ),
        (
            with("fd00::1/64", ""),
            RefusalKind::Invalid,
            "it should be fd00::/64",
        ),
        (
            with("10.7.0.0/16", "fd00::1"),
            RefusalKind::Invalid,
            "no matching subnet for gateway fd00::1",
        ),
        (
            with("10.7.0.0/16", "10.8.0.1"),
            RefusalKind::Invalid,
            "no matching subnet for gateway 10.8.0.1",
        ),
        (
            json!([{}, {}]),
            RefusalKind::Unsupported,
            "more than one --subnet of IPv4",
        ),
        (
            json!([{"Subnet": "10.7.0.0/16", "IPRange": "10.0.0.0/8"}]),
            RefusalKind::Invalid,
            "no matching subnet for range 10.0.0.0/8",
        ),
    ] {
        let error = made(json!({"Name": "x", "IPAM": {"Config": config}})).expect_err(words);
        assert_eq!(error.kind, kind, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
    assert!(made(json!({"Name": "a b"})).is_err() && made(json!({"Name": ""})).is_err());
    assert!(made(json!({"Name": "x", "Options": {"encrypted": ""}})).is_ok());
    assert!(made(json!({"Name": "x", "Options": {"other": ""}})).is_err());
}

#[test]
fn containers_of_all_hosts_are_shown() {
    let view = NetworkView {
        id: "n".to_owned(),
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        scope: "swarm",
        pools: vec![Pool {
            subnet: "10.7.0.0/16".parse().expect("a subnet"),
            gateway: Some(IpAddr::from([10, 7, 0, 1])),
            range: None,
            reserved: [].into(),
        }],
        internal: false,
        attachable: true,
        vni: Some(4097),
        options: [].into(),
        labels: [].into(),
        created: "2026-01-02T03:04:05Z".to_owned(),
        endpoints: vec![NetworkEndpoint {
            container_id: "c".to_owned(),
            name: "db".to_owned(),
            mac: [2, 0, 10, 7, 0, 2],
            address: Ipv4Addr::new(10, 7, 0, 2),
            prefix: 24,
            v6: Some(("fd00:7::2".parse().expect("an address"), 80)),
        }],
        peers: vec![("b".to_owned(), Ipv4Addr::LOCALHOST.into())],
    };
    let shown = serde_json::to_value(network(view.clone(), true)).expect("serialises");
    assert_eq!(shown["Containers"]["c"]["IPv4Address"], "10.7.0.2/24");
    assert_eq!(shown["Containers"]["c"]["IPv6Address"], "fd00:7::2/80");
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{"Subnet": "10.7.0.0/16", "Gateway": "10.7.0.1"}])
    );
    assert_eq!(
        shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"],
        "4097"
    );
    let listed = serde_json::to_value(network(view, false)).expect("serialises");
    assert_eq!(listed["Containers"], json!({}));
}

proptest! {
    #[test]
    fn any_subnet_is_parsed_or_refused(text in "[0-9a-f./:]{0,20}") {
        let _ = subnet(&text);
    }
}
