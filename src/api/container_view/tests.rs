use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::daemon::config::{EndpointRequest, Port, Protocol};
use crate::daemon::record::{PublishedPort, StartFailure};

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().expect("a valid time")
}

/// A container on the default network with a published port.
pub(crate) fn record(phase: Phase) -> Record {
    let web = Port {
        number: 80,
        protocol: Protocol::Tcp,
    };
    let endpoint = Endpoint {
        network_id: "ab".repeat(32),
        address: Ipv4Addr::new(172, 17, 0, 2),
        block: "172.17.0.0/24".parse().expect("a valid block"),
        gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
        v6: None,
        mac: [2, 0x42, 172, 17, 0, 2],
        aliases: Vec::new(),
        gateway_priority: 0,
        index: 0,
    };
    Record {
        v: 1,
        id: "0123456789abcdef".repeat(4),
        name: "web".to_owned(),
        created: time("2026-01-02T03:04:05.678Z"),
        image_id: "sha256:1234".to_owned(),
        config: ContainerConfig {
            image: "nginx".to_owned(),
            entrypoint: Some(vec!["/entry".to_owned()]),
            cmd: Some(vec!["nginx".to_owned(), "-g".to_owned()]),
            exposed: vec![web],
            ..ContainerConfig::default()
        },
        phase,
        endpoints: BTreeMap::from([("bridge".to_owned(), endpoint)]),
        published: vec![PublishedPort {
            port: web,
            host_address: None,
            host_port: 8080,
        }],
        links: Vec::new(),
        mounts: Vec::new(),
        unprepared: false,
        restarts: 0,
        stopped: false,
        removing: false,
        failure: None,
        health: None,
    }
}

fn shown(record: &Record) -> Value {
    serde_json::to_value(inspected(record)).expect("serialises")
}

fn inspected(record: &Record) -> ContainerInspectResponse {
    let directory = PathBuf::from("/data/containers/x");
    let around = Surroundings {
        log: &directory.join("x-json.log"),
        directory: &directory,
        netns: "/run/x".as_ref(),
        volumes: "/data/volumes".as_ref(),
        health: None,
    };
    inspect(record, &around)
}

#[test]
fn what_clients_reach_into_is_never_null() {
    let running = Phase::Running {
        pid: 7,
        started: time("2026-01-02T03:04:06Z"),
        paused: false,
    };
    for phase in [Phase::Created, running] {
        let shown = shown(&record(phase));
        for field in ["Config", "State", "HostConfig", "NetworkSettings"] {
            assert!(shown[field].is_object(), "{field}");
        }
        assert!(
            shown["NetworkSettings"]["Networks"].is_object()
                && shown["NetworkSettings"]["Ports"].is_object()
        );
    }
}

#[test]
fn a_running_container_shows_its_addresses_also_in_their_old_place() {
    let shown = shown(&record(Phase::Running {
        pid: 7,
        started: time("2026-01-02T03:04:06Z"),
        paused: false,
    }));
    let network = &shown["NetworkSettings"];
    assert_eq!(network["IPAddress"], "172.17.0.2");
    assert_eq!(network["MacAddress"], "02:42:ac:11:00:02");
    assert_eq!(network["Networks"]["bridge"]["Gateway"], "172.17.0.1");
    assert_eq!(
        network["Ports"],
        json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]})
    );
    assert_eq!(shown["State"]["Status"], "running");
    assert_eq!(
        (&shown["Path"], &shown["Args"]),
        (&json!("/entry"), &json!(["nginx", "-g"]))
    );
    assert_eq!(shown["Config"]["Hostname"], "0123456789ab");
    assert_eq!(shown["LogPath"], "/data/containers/x/x-json.log");
}

#[test]
fn an_ended_container_has_no_address_but_its_networks() {
    let finished = time("2026-01-02T03:05:00Z");
    let phase = Phase::Exited {
        code: 3,
        started: Some(finished),
        finished,
        oom: true,
        error: String::new(),
    };
    let shown = shown(&record(phase));
    assert_eq!(
        shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        ""
    );
    assert_eq!(shown["NetworkSettings"]["Ports"], json!({}));
    assert_eq!(shown["State"]["ExitCode"], 3);
    assert_eq!(shown["State"]["OOMKilled"], true);
}

#[test]
fn a_failed_start_is_told_and_leaves_it_created() {
    let mut record = record(Phase::Created);
    record.failure = Some(StartFailure {
        code: 128,
        error: "port is already allocated".to_owned(),
    });
    let shown = shown(&record);
    assert_eq!(shown["State"]["ExitCode"], 128);
    assert_eq!(shown["State"]["Status"], "created");
    assert_eq!(shown["State"]["StartedAt"], NEVER);
    assert_eq!(shown["State"]["Error"], "port is already allocated");
}

#[test]
fn networks_asked_for_are_shown_before_the_first_start() {
    let mut record = record(Phase::Created);
    record.endpoints.clear();
    assert_eq!(
        networks(&record).into_keys().collect::<Vec<_>>(),
        ["bridge"]
    );
    record
        .config
        .endpoints
        .insert("mesh".to_owned(), EndpointRequest::default());
    assert_eq!(networks(&record).into_keys().collect::<Vec<_>>(), ["mesh"]);
}

#[test]
fn to_older_clients_the_short_id_and_the_hosts_name_are_aliases_too() {
    let mut record = record(Phase::Created);
    let mut own = record.endpoints["bridge"].clone();
    own.aliases = vec!["db".to_owned(), "0123456789ab".to_owned()];
    record.endpoints.insert("own".to_owned(), own);
    record.config.hostname = "back".to_owned();
    let mut shown = inspected(&record);
    add_old_aliases(&mut shown);
    let networks = &json!(shown)["NetworkSettings"]["Networks"];
    assert_eq!(
        networks["own"]["Aliases"],
        json!(["db", "0123456789ab", "back"])
    );
    assert_eq!(networks["bridge"]["Aliases"], Value::Null);
}
