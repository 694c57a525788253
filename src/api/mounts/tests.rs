use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::daemon::refusal::RefusalKind;

fn parse(body: Value) -> Result<Mounts, Refusal> {
    let host: bollard_stubs::models::HostConfig =
        serde_json::from_value(body).expect("a host configuration");
    mounts(host.binds, host.mounts, host.tmpfs, "")
}

#[test]
fn each_form_is_taken() {
    let all = parse(json!({
        "Binds": ["/srv:/data:ro,z", "db:/db/../var/db/:nocopy", "/only"],
        "Mounts": [
            {"Type": "bind", "Source": "/etc/x", "Target": "/x", "ReadOnly": true,
             "BindOptions": {"Propagation": "rslave", "NonRecursive": true}},
            {"Type": "volume", "Target": "/anonymous"},
            {"Source": "named", "Target": "/n", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}},
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
        ],
        "Tmpfs": {"/run": "size=64m"},
    }))
    .expect("valid");
    assert_eq!(
        binds_view(&all.points).expect("three"),
        ["/srv:/data:ro,z", "db:/db/../var/db/:nocopy", "/only"]
    );
    let views = serde_json::to_value(points(&all.points, Path::new("/v"))).expect("serialises");
    let row = |at: usize| {
        let of = |field: &str| views[at][field].clone();
        json!([
            of("Type"),
            of("Name"),
            of("Source"),
            of("Destination"),
            of("Mode"),
            of("RW"),
            of("Propagation")
        ])
    };
    assert_eq!(
        row(0),
        json!(["bind", null, "/srv", "/data", "ro,z", false, "rprivate"])
    );
    assert_eq!(
        row(1),
        json!(["volume", "db", "/v/db/_data", "/var/db", "nocopy", true, ""])
    );
    assert_eq!(
        row(3),
        json!(["bind", null, "/etc/x", "/x", "", false, "rslave"])
    );
    assert_eq!(
        row(5),
        json!(["volume", "named", "/v/named/_data", "/n", "z", true, ""])
    );
    assert_eq!(row(6), json!(["tmpfs", null, "", "/t", "", true, ""]));
    let shown = serde_json::to_value(mounts_view(&all.points)).expect("serialises");
    assert_eq!(
        shown[2],
        json!({"Target": "/n", "Source": "named", "Type": "volume", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}})
    );
    assert_eq!(all.tmpfs["/run"], "size=64m");
}

#[test]
fn what_is_wrong_is_told() {
    use RefusalKind::{Invalid, Unsupported};
    let mount = |mount: Value| json!({ "Mounts": [mount] });
    for (body, kind, words) in [
        (
            json!({"Binds": ["a:/data"]}),
            Invalid,
            "volume name is too short",
        ),
        (
            json!({"Binds": ["da/ta:/data"]}),
            Invalid,
            "includes invalid characters for a local volume name",
        ),
        (
            json!({"Binds": ["/a:b"]}),
            Invalid,
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
        ),
        (
            json!({"Binds": ["/a:/x/.."]}),
            Invalid,
            "destination can't be '/'",
        ),
        (
            json!({"Binds": ["/a:ro"]}),
            Invalid,
            "invalid volume specification: '/a:ro'",
        ),
        (
            json!({"Binds": [":/b"]}),
            Invalid,
            "invalid volume specification: ':/b'",
        ),
        (json!({"Binds": ["/a:/b:rx"]}), Invalid, "invalid mode: rx"),
        (
            json!({"Binds": ["/a:/b:ro,rw"]}),
            Invalid,
            "invalid mode: ro,rw",
        ),
        (
            json!({"Binds": ["/a:/b:rshared"]}),
            Unsupported,
            "mount propagation rshared",
        ),
        (
            json!({"Binds": ["db:/b:rslave"]}),
            Invalid,
            "field BindOptions must not be specified",
        ),
        (
            json!({"Binds": ["/a:/b:c:d"]}),
            Invalid,
            "invalid volume specification: '/a:/b:c:d'",
        ),
        (
            json!({"Binds": ["/a:/b", "/c:/b/"]}),
            Invalid,
            "Duplicate mount point: /b",
        ),
        (
            json!({"Binds": ["/a:/b"], "Tmpfs": {"/b": ""}}),
            Invalid,
            "Duplicate mount point: /b",
        ),
        (
            mount(json!({"Type": "image", "Target": "/b"})),
            Unsupported,
            "--mount type=image",
        ),
        (
            mount(json!({"Type": "volume", "Target": "/b", "ReadOnly": true})),
            Invalid,
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            mount(json!({"Type": "bind", "Target": "/b"})),
            Invalid,
            "field Source must not be empty",
        ),
        (
            mount(json!({"Type": "bind", "Source": "x", "Target": "/b"})),
            Invalid,
            "invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute",
        ),
        (
            mount(json!({"Type": "tmpfs", "Source": "x", "Target": "/b"})),
            Invalid,
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ),
        (
            mount(json!({"Type": "tmpfs", "Target": "/b", "BindOptions": {}})),
            Invalid,
            "field BindOptions must not be specified",
        ),
    ] {
        let error = parse(body).expect_err(words);
        assert_eq!(error.kind, kind, "{}", error.message);
        assert!(error.message.contains(words), "{}", error.message);
    }
}

#[test]
fn volumes_from_may_have_a_mode() {
    let from = volumes_from("db:ro").expect("valid");
    assert_eq!((from.container.as_str(), from.read_only), ("db", true));
    assert_eq!(
        volumes_from_view(&[from, volumes_from("x").expect("valid")]),
        Some(vec!["db:ro".to_owned(), "x".to_owned()])
    );
    for (text, words) in [
        ("", "invalid volumes from specification: ''"),
        (":ro", "invalid volumes from specification: ':ro'"),
        ("db:xx", "invalid mode: xx"),
    ] {
        assert_eq!(volumes_from(text).expect_err(text).message, words);
    }
}

proptest! {
    #[test]
    fn any_bind_is_parsed_or_refused(text in ".*") {
        if let Ok(point) = bind(&text, "") {
            prop_assert!(point.target.starts_with('/') && point.target.len() > 1);
            prop_assert!(point.target.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
            prop_assert_eq!(point.spelled.as_deref(), Some(text.as_str()));
        }
        let _ = volumes_from(&text);
    }
}
