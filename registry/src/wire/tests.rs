#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use std::net::Ipv6Addr;

use super::*;
use crate::model::{EndpointHealth, EndpointRecord, PortRecord, Protocol, ServiceRecord};

fn cidr() -> impl Strategy<Value = Ipv4Network> {
    (any::<u32>(), 0u8..=32).prop_map(|(bits, prefix)| {
        let loose = Ipv4Network::new(bits.into(), prefix).unwrap();
        Ipv4Network::new(loose.network(), prefix).unwrap()
    })
}

fn cidr_v6() -> impl Strategy<Value = Ipv6Network> {
    (any::<u128>(), 0u8..=128).prop_map(|(bits, prefix)| {
        let loose = Ipv6Network::new(bits.into(), prefix).unwrap();
        Ipv6Network::new(loose.network(), prefix).unwrap()
    })
}

fn strings() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4)
}

fn endpoint() -> impl Strategy<Value = EndpointRecord> {
    let port = (any::<u16>(), any::<bool>()).prop_map(|(port, tcp)| PortRecord {
        port,
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
    });
    let names = (
        "\\PC{1,8}",
        "\\PC{1,8}",
        "\\PC{1,8}",
        "\\PC{1,8}",
        "\\PC{0,8}",
    );
    (
        names,
        any::<(Ipv4Addr, Option<Ipv6Addr>)>(),
        vec("\\PC{0,8}", 0..3),
        vec(port, 0..4),
        strings(),
    )
        .prop_map(
            |((network, id, name, node, node_name), addresses, aliases, ports, labels)| {
                EndpointRecord {
                    network,
                    id,
                    name,
                    node,
                    node_name,
                    address: addresses.0,
                    address_v6: addresses.1,
                    aliases,
                    ports,
                    labels,
                    services: Vec::new(),
                    health: EndpointHealth::Unchecked,
                }
            },
        )
}

fn network() -> impl Strategy<Value = NetworkRecord> {
    let texts = ("\\PC{1,8}", "\\PC{1,8}", "\\PC{1,8}", "\\PC{0,8}");
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<Option<u16>>(),
        0u32..1 << 24,
    );
    let subnets = (cidr(), prop::option::of(cidr_v6()));
    (texts, subnets, flags, strings(), strings()).prop_map(
        |(
            (id, name, driver, created),
            (subnet, subnet_v6),
            (internal, attachable, mtu, vni),
            options,
            labels,
        )| {
            NetworkRecord {
                name,
                driver,
                vni,
                subnet,
                subnet_v6,
                range: internal.then_some(subnet),
                gateway: attachable.then(|| subnet.network()),
                reserved: BTreeMap::from([(id.clone(), subnet.broadcast())]),
                addressing_v6: AddressingV6 {
                    range: subnet_v6,
                    gateway: subnet_v6.map(|subnet| subnet.network()),
                    reserved: subnet_v6
                        .map(|subnet| (id.clone(), subnet.broadcast()))
                        .into_iter()
                        .collect(),
                },
                id,
                internal,
                attachable,
                mtu,
                options,
                labels,
                created,
            }
        },
    )
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(NodeRecord::decode(&bytes).is_err());
        prop_assert!(NetworkRecord::decode(&bytes).is_err());
        prop_assert!(BlockRecord::decode(&bytes).is_err());
        prop_assert!(EndpointRecord::decode(&bytes).is_err());
        prop_assert!(ServiceRecord::decode(&bytes).is_err());
    }

    #[test]
    fn a_damaged_value_never_panics(record in endpoint(), at: prop::sample::Index, byte: u8) {
        let mut value = record.encode(None);
        let at = at.index(value.len());
        value[at] = byte;
        let _ = EndpointRecord::decode(&value);
        let _ = NetworkRecord::decode(&value);
    }

    #[test]
    fn endpoints_come_back(record in endpoint()) {
        prop_assert_eq!(EndpointRecord::decode(&record.encode(None)).unwrap(), record);
    }

    #[test]
    fn networks_come_back(record in network()) {
        prop_assert_eq!(NetworkRecord::decode(&record.encode(None)).unwrap(), record);
    }

    #[test]
    fn blocks_come_back(v4 in cidr(), v6 in prop::option::of(cidr_v6()), network in "\\PC{1,8}", node in "\\PC{1,8}", incarnation: u64) {
        let cidr = v6.map_or(v4.into(), IpNetwork::from);
        let record = BlockRecord { network, cidr, node, incarnation };
        prop_assert_eq!(BlockRecord::decode(&record.encode(None)).unwrap(), record);
    }

    #[test]
    fn nodes_come_back(id in "\\PC{1,8}", name in "\\PC{1,8}", address: IpAddr, mac: [u8; 6], port: u16, incarnation: u64, keys: Option<(u16, Vec<String>)>, other: Option<(u16, String, Option<String>)>, links: Option<(u16, bool)>, peek: Option<(u16, bool)>) {
        let wireguard = keys.map(|(port, keys)| WireguardRecord { port, keys });
        let fallback = other.map(|(port, key, former)| FallbackRecord { port, key, former });
        let links = links.map(|(port, plain)| LinksRecord { port, plain });
        let peek = peek.map(|(port, plain)| PeekRecord { port, plain });
        let record = NodeRecord { id, name, address, mac, port, incarnation, wireguard, fallback, links, peek, machine: None };
        prop_assert_eq!(NodeRecord::decode(&record.encode(None)).unwrap(), record);
    }

    #[test]
    fn another_version_is_refused(record in endpoint(), v in 2u64..) {
        let mut value: Value = serde_json::from_slice(&record.encode(None)).unwrap();
        value["v"] = v.into();
        let refused = EndpointRecord::decode(value.to_string().as_bytes());
        let newer = matches!(refused, Err(DecodeError::Version { .. }));
        prop_assert!(newer);
    }
}

#[test]
fn what_a_daemon_without_ipv6_wrote_is_read() {
    let network = json!({"v": 1, "id": "n", "name": "n", "driver": "overlay", "vni": 5, "subnet": "10.0.0.0/16"});
    let network = NetworkRecord::decode(network.to_string().as_bytes()).unwrap();
    assert_eq!(network.subnet_v6, None);
    let endpoint =
        json!({"v": 1, "network": "n", "id": "c", "name": "c", "node": "a", "address": "10.0.0.2"});
    let endpoint = EndpointRecord::decode(endpoint.to_string().as_bytes()).unwrap();
    assert_eq!(endpoint.address_v6, None);
}

#[test]
fn unknown_fields_survive_a_rewrite_and_known_ones_do_not() {
    let newer = json!({
        "v": 1, "name": "old", "upstreams": [], "protocol": "tcp", "tags": [], "check": null,
        "weight": 3, "tls": {"sni": "x"},
    });
    let record = ServiceRecord::new("new", Vec::new());
    let value = record.encode(Some(newer.to_string().as_bytes()));
    let value: Value = serde_json::from_slice(&value).unwrap();
    let expected = json!({
        "v": 1, "name": "new", "upstreams": [], "protocol": "tcp", "tags": [], "check": null,
        "weight": 3, "tls": {"sni": "x"},
    });
    assert_eq!(value, expected);
}

#[test]
fn a_subnet_with_host_bits_and_a_wide_vni_are_named() {
    let block =
        json!({"v": 1, "network": "n", "cidr": "10.0.0.1/24", "node": "a", "incarnation": 1});
    let error = BlockRecord::decode(block.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field cidr has the value \"10.0.0.1/24\""
    );

    let network = json!({
        "v": 1, "id": "n", "name": "n", "driver": "overlay", "vni": 1 << 24, "subnet": "10.0.0.0/24",
    });
    let error = NetworkRecord::decode(network.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "field vni has the value \"16777216\"");
}
