#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::PortRecord;

pub(crate) fn endpoint(id: &str, node: &str, last: u8) -> EndpointRecord {
    EndpointRecord {
        network: "net".to_owned(),
        id: id.to_owned(),
        name: format!("name-{id}"),
        node: node.to_owned(),
        node_name: node.to_owned(),
        address: [10, 0, 0, last].into(),
        address_v6: None,
        aliases: vec!["web".to_owned()],
        ports: vec![
            PortRecord {
                port: 53,
                protocol: Protocol::Udp,
            },
            PortRecord {
                port: 8080,
                protocol: Protocol::Tcp,
            },
            PortRecord {
                port: 80,
                protocol: Protocol::Tcp,
            },
        ],
        labels: BTreeMap::new(),
    }
}

fn with(endpoints: &[EndpointRecord]) -> Catalog {
    let mut catalog = Catalog::default();
    for endpoint in endpoints {
        let key = format!("/nuncio/v1/endpoints/{}/{}", endpoint.network, endpoint.id);
        catalog.apply(&key, Some(&endpoint.encode(None)));
    }
    catalog
}

fn shown(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(ToString::to_string).collect()
}

#[test]
fn names_and_aliases_lead_to_endpoints() {
    let catalog = with(&[endpoint("a", "n1", 1), endpoint("b", "n2", 2)]);
    assert_eq!(catalog.endpoints_named("name-a").count(), 1);
    assert_eq!(catalog.endpoints_named("web").count(), 2);
    assert_eq!(catalog.endpoints_in("net").count(), 2);
    assert_eq!(
        shown(&catalog.upstreams("web", None)),
        ["10.0.0.1:80", "10.0.0.2:80"]
    );
    assert_eq!(
        shown(&catalog.upstreams("name-b", Some(53))),
        ["10.0.0.2:53"]
    );
    assert!(catalog.upstreams("absent", None).is_empty());
}

#[test]
fn services_entered_by_hand_are_selected_by_port() {
    let upstream = |host: &str, port| Upstream {
        host: host.to_owned(),
        port,
        weight: NonZeroU16::MIN,
    };
    let upstreams = vec![upstream("db.lan", 5432), upstream("fd00::1", 5433)];
    let service = ServiceRecord {
        name: "db".to_owned(),
        upstreams,
    };
    let mut catalog = Catalog::default();
    catalog.apply(
        "/nuncio/v1/services/db/external",
        Some(&service.encode(None)),
    );
    assert_eq!(
        shown(&catalog.upstreams("db", None)),
        ["db.lan:5432", "[fd00::1]:5433"]
    );
    assert_eq!(
        shown(&catalog.upstreams("db", Some(5433))),
        ["[fd00::1]:5433"]
    );
}

#[test]
fn weights_come_from_labels_and_by_hand() {
    let labelled = |id, host, label: &str| {
        let mut endpoint = endpoint(id, "n1", host);
        let label = ("nuncio.weight".to_owned(), label.to_owned());
        endpoint.labels.extend([label]);
        endpoint
    };
    let mut catalog = with(&[
        labelled("a", 1, "3"),
        endpoint("b", "n1", 2),
        labelled("c", 3, "0"),
        labelled("d", 4, "257"),
        labelled("e", 5, "many"),
    ]);
    let by_hand = json!({"v": 1, "name": "web", "upstreams": [
        {"host": "db.lan", "port": 80, "weight": 256}, {"host": "10.0.0.1", "port": 80},
    ]});
    let key = "/nuncio/v1/services/web/external";
    catalog.apply(key, Some(by_hand.to_string().as_bytes()));
    let weights = |catalog: &Catalog| -> Vec<_> {
        let upstreams = catalog.upstreams("web", Some(80)).into_iter();
        upstreams.map(|u| (u.host, u.weight.get())).collect()
    };
    let expected = [
        ("10.0.0.1", 1),
        ("10.0.0.2", 1),
        ("10.0.0.3", 1),
        ("10.0.0.4", 1),
        ("10.0.0.5", 1),
        ("db.lan", 256),
    ];
    let expected = expected.map(|(host, weight)| (host.to_owned(), weight));
    assert_eq!(weights(&catalog), expected);
    catalog.apply(key, None);
    assert_eq!(weights(&catalog)[0], ("10.0.0.1".to_owned(), 3));
    for wrong in ["0", "257", "-1"] {
        let by_hand = by_hand.to_string().replace("256", wrong);
        catalog.apply(key, Some(by_hand.as_bytes()));
        assert!(catalog.quarantined.contains_key(key), "{wrong}");
    }
}

#[test]
fn an_unreadable_value_is_set_aside_until_it_is_mended() {
    let key = "/nuncio/v1/endpoints/net/a";
    let good = endpoint("a", "n1", 1);
    let mut catalog = with(std::slice::from_ref(&good));
    catalog.apply(key, Some(br#"{"v":2,"later":true}"#));
    assert!(catalog.endpoints.is_empty());
    assert!(catalog.quarantined[key].contains("version 2"));
    catalog.apply(key, Some(&endpoint("other", "n1", 1).encode(None)));
    assert!(catalog.quarantined[key].contains("field id"));
    catalog.apply(key, Some(&good.encode(None)));
    assert!(catalog.quarantined.is_empty());
    assert_eq!(catalog.endpoints.len(), 1);
    catalog.apply(key, Some(b"{}"));
    catalog.apply(key, None);
    assert_eq!(catalog, Catalog::default());
}

proptest! {
    #[test]
    fn whatever_is_put_and_deleted_leaves_nothing(
        keys in prop::collection::vec("(nodes|alive|networks|blocks/n|endpoints/n|services|vni)/[a-z0-9/.]{0,12}", 0..20),
        value in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut catalog = Catalog::default();
        for key in &keys {
            catalog.apply(&format!("/nuncio/v1/{key}"), Some(&value));
        }
        for key in &keys {
            catalog.apply(&format!("/nuncio/v1/{key}"), None);
        }
        prop_assert_eq!(catalog, Catalog::default());
    }
}
