use axum::http::StatusCode;
use bollard_stubs::models::HostConfig;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::host_view::host_view;
use crate::daemon::config::Port;

fn refused(body: Value) -> ApiError {
    parse(body.clone())
        .err()
        .unwrap_or_else(|| panic!("{body} was taken"))
}

#[test]
fn what_the_client_sends_for_run_is_understood() {
    let config = parse(json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        "ExposedPorts": {"6379/tcp": {}, "53/udp": null}, "Tty": false, "OpenStdin": true, "StdinOnce": true,
        "Env": ["A=b", "C"], "Cmd": ["redis-cli", "ping"], "Image": "redis", "Volumes": {}, "WorkingDir": "",
        "Entrypoint": null, "OnBuild": null, "Labels": {"x": "y"}, "Healthcheck": null,
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
            "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": true,
            "ConsoleSize": [0, 0], "Links": ["redis-server:redis"], "MemorySwappiness": -1, "CapAdd": null,
        },
        "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": null, "Aliases": null}}},
    }))
    .expect("valid");
    let ports: Vec<String> = config.exposed.iter().map(Port::to_string).collect();
    assert_eq!(ports, ["53/udp", "6379/tcp"]);
    assert_eq!(
        config.cmd.as_deref(),
        Some(&["redis-cli".to_owned(), "ping".to_owned()][..])
    );
    assert_eq!((config.entrypoint, config.open_stdin), (None, true));
    assert_eq!(config.host.links[0].alias, "redis");
    assert!(config.host.auto_remove && config.endpoints.is_empty());
}

#[test]
fn commands_may_be_strings_and_the_entrypoint_taken_away() {
    let config = parse(json!({"Image": "x", "Cmd": "top", "Entrypoint": [""]})).expect("valid");
    assert_eq!(
        (config.cmd, config.entrypoint),
        (Some(vec!["top".to_owned()]), Some(Vec::new()))
    );
}

#[test]
fn what_is_wrong_is_told() {
    for (body, words) in [
        (Value::Null, "config cannot be empty"),
        (json!({}), "no image specified"),
        (json!({"Image": 1}), "invalid JSON"),
        (
            json!({"Image": "x", "Env": ["=b"]}),
            "invalid environment variable: \"=b\"",
        ),
        (
            json!({"Image": "x", "Hostname": "a b"}),
            "invalid hostname format: a b",
        ),
        (
            json!({"Image": "x", "WorkingDir": "tmp"}),
            "the working directory 'tmp' is invalid",
        ),
        (
            json!({"Image": "x", "ExposedPorts": {"http": {}}}),
            "invalid containerPort: http",
        ),
        (
            json!({"Image": "x", "HostConfig": {"NetworkMode": "host", "Links": ["db"]}}),
            "conflicting options: host type networking can't be used with links",
        ),
        (
            json!({"Image": "x", "Hostname": "y", "HostConfig": {"NetworkMode": "container:db"}}),
            "conflicting options: hostname and the network mode",
        ),
        (
            json!({"Image": "x", "MacAddress": "02:00:00:00:00:01", "HostConfig": {"NetworkMode": "container:db"}}),
            "conflicting options: mac-address and the network mode",
        ),
        (
            json!({"Image": "x", "ExposedPorts": {"80/tcp": {}}, "HostConfig": {"NetworkMode": "container:db"}}),
            "conflicting options: port exposing and the container type network mode",
        ),
    ] {
        let error = refused(body);
        assert_eq!(error.status, StatusCode::BAD_REQUEST, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[test]
fn a_namespace_of_another_has_what_it_has() {
    for (field, value, words) in [
        (
            "Links",
            json!(["db"]),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        ("Dns", json!(["192.0.2.1"]), "dns and the network mode"),
        (
            "ExtraHosts",
            json!(["a:192.0.2.1"]),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            "PortBindings",
            json!({"80/tcp": [{"HostPort": "80"}]}),
            "port publishing and the container type network mode",
        ),
        (
            "PublishAllPorts",
            json!(true),
            "port publishing and the container type network mode",
        ),
    ] {
        let error = refused(
            json!({"Image": "x", "HostConfig": {"NetworkMode": "container:db", field: value}}),
        );
        assert_eq!(error.status, StatusCode::BAD_REQUEST, "{}", error.message);
        assert_eq!(error.message, format!("conflicting options: {words}"));
        // Without networks of one's own there is nothing to conflict with.
        let alone = json!({"Image": "x", "HostConfig": {"NetworkMode": "none", field: value}});
        assert!(field == "Links" || parse(alone).is_ok(), "{field}");
    }
}

#[test]
fn what_is_not_built_is_refused() {
    for (body, words) in [
        (
            json!({"Image": "x", "NetworkDisabled": true}),
            "not built: NetworkDisabled",
        ),
        (
            json!({"Image": "x", "HostConfig": {"StorageOpt": {"size": "1G"}}}),
            "not built: --storage-opt",
        ),
    ] {
        let error = refused(body);
        assert_eq!(
            error.status,
            StatusCode::NOT_IMPLEMENTED,
            "{}",
            error.message
        );
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[test]
fn names_have_at_least_two_plain_characters() {
    for text in ["web", "/web", "a1", "9x", "a.b-c_d"] {
        assert!(name(text).is_ok(), "{text}");
    }
    for text in ["", "/", "a", "-a", "a b", "web/1", "wéb"] {
        let message = name(text).expect_err(text).message;
        assert_eq!(
            message,
            format!("Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 12] = [
    "Image",
    "Cmd",
    "Entrypoint",
    "ExposedPorts",
    "Volumes",
    "Env",
    "Labels",
    "StopTimeout",
    "HostConfig",
    "NetworkingConfig",
    "Healthcheck",
    "Hostname",
];
const HOST_FIELDS: [&str; 18] = [
    "Binds",
    "Mounts",
    "Tmpfs",
    "PortBindings",
    "Links",
    "NetworkMode",
    "LogConfig",
    "Ulimits",
    "Sysctls",
    "Dns",
    "SecurityOpt",
    "Memory",
    "RestartPolicy",
    "Devices",
    "DeviceCgroupRules",
    "IpcMode",
    "PidMode",
    "CpusetCpus",
];

proptest! {
    #[test]
    fn any_body_is_parsed_or_refused(
        fields in prop::collection::vec((prop::sample::select(&FIELDS[..]), any_json()), 0..6),
        host in prop::collection::vec((prop::sample::select(&HOST_FIELDS[..]), any_json()), 0..3),
    ) {
        let mut body: Map<String, Value> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if !host.is_empty() {
            let host: Map<String, Value> = host.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            body.insert("HostConfig".to_owned(), host.into());
        }
        let _ = parse(body.into());
    }

    #[test]
    fn what_inspect_shows_makes_the_same_container(
        links in prop::collection::vec(("[a-z]{1,6}", "[a-z]{1,6}"), 0..3),
        memory in prop::option::of(6_i64 << 20..1 << 40),
        flags in any::<[bool; 5]>(),
        network in prop::sample::select(&["default", "none", "mesh"][..]),
        caps in prop::collection::vec("[A-Z]{3,8}", 0..3),
    ) {
        let links = if network == "none" { Vec::new() } else { links };
        let host = json!({
            "Links": links.iter().map(|(target, alias)| format!("{target}:{alias}")).collect::<Vec<_>>(),
            "Memory": memory, "AutoRemove": flags[0], "Privileged": flags[1], "ReadonlyRootfs": flags[2],
            "Init": flags[3], "PublishAllPorts": flags[4], "NetworkMode": network, "CapAdd": caps,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}, "Tmpfs": {"/run": "size=1m"},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Sysctls": {"net.core.somaxconn": "1"},
            "IpcMode": "shareable", "PidMode": "container:db", "UTSMode": "host", "CgroupnsMode": "host",
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "r"}],
            "DeviceCgroupRules": ["c 10:* rw"], "GroupAdd": ["tty"], "CpusetCpus": "0-1", "CpuPeriod": 5000,
            "MemorySwappiness": 7, "OomKillDisable": flags[0], "SecurityOpt": ["no-new-privileges"],
            "MaskedPaths": [], "RestartPolicy": {"Name": if flags[0] { "no" } else { "always" }},
        });
        let first = parse(json!({"Image": "x", "HostConfig": host})).expect("valid");
        let shown: HostConfig = host_view(&first.host, "web");
        let again = parse(json!({"Image": "x", "HostConfig": serde_json::to_value(shown).expect("serialises")}));
        let again = again.expect("our own view is valid");
        let plain = |config: &ContainerConfig| serde_json::to_value(config).expect("serialises");
        prop_assert_eq!(plain(&again), plain(&first));
    }
}
