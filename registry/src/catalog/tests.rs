#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::PortRecord;
use crate::model::{CheckRecord, EndpointHealth, ImportRecord, ServiceHealthRecord, ServiceOffer};

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
        services: Vec::new(),
        health: EndpointHealth::Unchecked,
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
    let service = ServiceRecord::new("db", upstreams);
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

#[test]
fn services_are_found_by_what_endpoints_offer_and_only_who_is_well() {
    let offer = ServiceOffer {
        name: "web".to_owned(),
        tags: vec!["blue".to_owned()],
        ports: vec![PortRecord {
            port: 8080,
            protocol: Protocol::Tcp,
        }],
    };
    let mut catalog = Catalog::default();
    let mut put = |id: &str, last: u8, health| {
        let record = EndpointRecord {
            services: vec![offer.clone()],
            health,
            ..endpoint(id, "a", last)
        };
        let key = format!("/nuncio/v1/endpoints/{}/{id}", record.network);
        catalog.apply(&key, Some(&record.encode(None)));
        shown(&catalog.upstreams("web", None))
    };
    let starting = put("1", 2, EndpointHealth::Starting);
    assert_eq!(starting.len(), 1, "nobody else is there");
    assert!(starting[0].ends_with(".2:8080"), "{starting:?}");
    let well = put("2", 3, EndpointHealth::Healthy);
    assert!(well.len() == 1 && well[0].ends_with(".3:8080"), "{well:?}");
    assert_eq!(put("3", 4, EndpointHealth::Unchecked).len(), 2);
    assert_eq!(put("2", 3, EndpointHealth::Unhealthy).len(), 1);
    assert!(put("3", 4, EndpointHealth::Unhealthy)[0].ends_with(".2:8080"));
    assert_eq!(put("1", 2, EndpointHealth::Unhealthy), [""; 0]);
}

#[test]
fn what_does_not_answer_is_left_out_and_gateways_are_found() {
    let upstream = |host: &str| Upstream {
        host: host.to_owned(),
        port: 6379,
        weight: std::num::NonZeroU16::MIN,
    };
    let mut service = ServiceRecord::new("redis", vec![upstream("10.9.0.1"), upstream("10.9.0.2")]);
    service.check = Some(CheckRecord {
        http: None,
        interval: std::time::Duration::from_secs(5),
        timeout: std::time::Duration::from_secs(1),
    });
    let places = [
        ("10.9.0.1:6379", ""),
        ("10.9.0.2:6379", "connection refused"),
    ];
    let health = ServiceHealthRecord {
        name: "redis".to_owned(),
        node: "a".to_owned(),
        places: places
            .map(|(place, why)| (place.to_owned(), why.to_owned()))
            .into(),
    };
    let import = ImportRecord {
        node: "g".to_owned(),
        peer: "east".to_owned(),
        service: ServiceRecord::new("redis", vec![upstream("10.9.0.3")]),
    };
    let mut catalog = Catalog::default();
    catalog.apply(
        "/nuncio/v1/services/redis/external",
        Some(&service.encode(None)),
    );
    catalog.apply(
        "/nuncio/v1/services/redis/health",
        Some(&health.encode(None)),
    );
    assert_eq!(shown(&catalog.upstreams("redis", None)), ["10.9.0.1:6379"]);
    catalog.apply(
        "/nuncio/v1/services/redis/imported/g",
        Some(&import.encode(None)),
    );
    assert_eq!(
        shown(&catalog.upstreams("redis", Some(6379))),
        ["10.9.0.1:6379", "10.9.0.3:6379"]
    );
    catalog.apply(
        "/nuncio/v1/services/redis/imported/other",
        Some(&import.encode(None)),
    );
    assert_eq!(
        catalog.quarantined.len(),
        1,
        "one host's word is not another's"
    );
    catalog.apply("/nuncio/v1/services/redis/imported/g", None);
    catalog.apply("/nuncio/v1/services/redis/health", None);
    assert_eq!(
        catalog.upstreams("redis", None).len(),
        2,
        "nobody looks now"
    );
}
