use super::*;
use crate::spec::{BindOptions, Mount, MountKind, Resources};

fn written(change: impl FnOnce(&mut ContainerSpec)) -> (Value, Plan) {
    let root = tempfile::tempdir().expect("a directory");
    let mut spec = ContainerSpec::new("c1", root.path(), vec!["true".into()]);
    change(&mut spec);
    let run = root.path().join("run");
    write(&run, &spec).expect("written");
    let config = status::load(&run.join(CONFIG_FILE))
        .expect("readable")
        .expect("there");
    (config, Plan::load(&run).expect("readable"))
}

#[test]
fn limits_become_oci_resources() {
    let (config, _) = written(|spec| {
        spec.resources = Resources {
            nano_cpus: Some(500_000_000),
            pids_limit: Some(7),
            memory: Some(1 << 26),
            ..Default::default()
        };
    });
    let resources = &config["linux"]["resources"];
    assert_eq!(
        resources["cpu"],
        json!({ "period": 100_000, "quota": 50_000 })
    );
    assert_eq!(resources["pids"]["limit"], 7);
    assert_eq!(resources["memory"]["limit"], 1 << 26);
}

#[test]
fn libcontainer_can_read_it() {
    let (config, _) = written(|spec| {
        spec.netns = Some("/proc/self/ns/net".into());
        spec.ulimits = vec![Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: 2,
        }];
        spec.sysctls
            .insert("net.core.somaxconn".into(), "99".into());
    });
    serde_json::from_value::<oci_spec::runtime::Spec>(config).expect("an OCI configuration");
}

#[test]
fn variables_are_added_only_when_absent() {
    let (_, plan) = written(|spec| {
        spec.env = vec!["HOME=/mine".into(), "A=b=c".into()];
        spec.tty = true;
    });
    assert_eq!(
        plan.payload.env,
        [
            "HOME=/mine",
            "A=b=c",
            &format!("PATH={DEFAULT_PATH}"),
            "TERM=xterm",
            "HOSTNAME=c1"
        ]
    );
}

#[test]
fn a_callers_mount_replaces_a_default_and_parents_come_first() {
    let tmpfs = |target: &str| Mount {
        kind: MountKind::Tmpfs {
            size: None,
            mode: None,
        },
        target: target.into(),
        read_only: false,
    };
    let (config, _) =
        written(|spec| spec.mounts = vec![tmpfs("/a/b"), tmpfs("/dev/shm/"), tmpfs("/a")]);
    let targets: Vec<_> = config["mounts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|mount| mount["destination"].as_str())
        .collect();
    assert_eq!(
        targets
            .iter()
            .filter(|target| **target == "/dev/shm")
            .count(),
        1
    );
    let position = |wanted| targets.iter().position(|target| *target == wanted);
    assert!(position("/a") < position("/a/b"));
}

#[test]
fn wrong_input_is_named() {
    let root = tempfile::tempdir().expect("a directory");
    let refused = |change: fn(&mut ContainerSpec)| {
        let mut spec = ContainerSpec::new("c1", root.path(), vec!["true".into()]);
        change(&mut spec);
        write(&root.path().join("run"), &spec)
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        refused(|spec| spec.id = "../x".into()),
        "container id \"../x\" is not made of letters, digits, '_', '-' and '.'"
    );
    assert_eq!(
        refused(|spec| spec.cwd = "tmp".into()),
        "working directory \"tmp\" is not an absolute path"
    );
    assert_eq!(refused(|spec| spec.args.clear()), "no command specified");
    assert_eq!(
        refused(|spec| spec.user = "web".into()),
        "unable to find user web: no matching entries in passwd file"
    );
    let source = refused(|spec| {
        let kind = MountKind::Bind {
            source: "/no/such".into(),
            options: BindOptions::default(),
        };
        spec.mounts = vec![Mount {
            kind,
            target: "/x".into(),
            read_only: true,
        }];
    });
    assert_eq!(source, "bind source path does not exist: /no/such");
}
