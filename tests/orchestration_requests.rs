//! What nuncio and the docker client ask a daemon for the same command line: the same.

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Asked, Client, Finished, Recorder};

/// A service that has something of all that can be changed.
fn service() -> Value {
    json!({
        "ID": "s1",
        "Version": {"Index": 42},
        "Spec": {
            "Name": "web",
            "Labels": {"old": "1", "kept": "2"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "nginx:1@sha256:1111111111111111111111111111111111111111111111111111111111111111",
                    "Args": ["a"],
                    "Env": ["A=1", "B=2"],
                    "Labels": {"inner": "1"},
                    "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
                    "Hosts": ["1.2.3.4 a", "1.2.3.5 b"],
                    "DNSConfig": {"Nameservers": ["9.9.9.9"], "Search": ["lan"], "Options": ["ndots:1"]},
                    "Groups": ["5"],
                    "Sysctls": {"net.a": "1"},
                    "CapabilityAdd": ["CAP_NET_ADMIN"],
                    "CapabilityDrop": ["CAP_CHOWN"],
                    "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64},
                    "Secrets": [{"File": {"Name": "one", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "id-one", "SecretName": "one"}],
                    "Configs": [{"File": {"Name": "c", "UID": "0", "GID": "0", "Mode": 292}, "ConfigID": "id-c", "ConfigName": "c"}],
                    "Init": false,
                    "Isolation": "default",
                },
                "Networks": [{"Target": "id-back"}],
                "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.a"}}]},
                "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 1_048_576}},
                "ForceUpdate": 3,
                "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 2}},
            "EndpointSpec": {"Mode": "vip", "Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"},
            ]},
        },
        "PreviousSpec": {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:0"}}},
    })
}

/// Services that are as they are to be, so that who waits need not.
fn set_up(api: &Recorder) {
    let digest = format!("sha256:{}", "2".repeat(64));
    let known = json!({
        "Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": 1},
        "Platforms": [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux", "variant": "v8"}],
    });
    api.set("GET /distribution/nginx:1.29/json", 200, known);
    let mut global = service();
    global["ID"] = json!("s2");
    global["Spec"]["Mode"] = json!({"Global": {}});
    let mut job = service();
    job["ID"] = json!("s3");
    job["Spec"]["Mode"] = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}});
    for (names, service) in [
        (["s1", "web"], service()),
        (["s2", "agent"], global),
        (["s3", "job"], job),
    ] {
        for name in names {
            api.set(&format!("GET /services/{name}"), 200, service.clone());
        }
    }
    std::fs::write(api.scratch().join("vars"), "FILE=1\nA=file\n").expect("write a file");
    std::fs::write(api.scratch().join("password"), "hunter2\n").expect("write a file");
}

/// What changes something, and what was only looked at, once: Docker's client keeps files' services in maps.
fn sorted(asked: Vec<Asked>) -> (Vec<Asked>, BTreeSet<Asked>) {
    let (looks, changes) = asked
        .into_iter()
        .partition(|asked| asked.what.starts_with("GET "));
    let changes: Vec<Asked> = changes;
    let changes = changes.into_iter().map(|asked| Asked {
        body: any_order(&asked.body, asked.what.ends_with("/update")),
        ..asked
    });
    let looks: Vec<Asked> = looks;
    let mut changes: Vec<Asked> = changes.collect();
    changes.sort();
    (changes, looks.into_iter().collect())
}

/// Docker's client keeps these in maps, of an update the environment too, and sends them in whatever order comes out.
fn any_order(body: &str, updates: bool) -> String {
    let Ok(mut body) = serde_json::from_str::<Value>(body) else {
        return body.to_owned();
    };
    let environment = updates.then_some("Env");
    for list in ["Secrets", "Configs", "Mounts"]
        .into_iter()
        .chain(environment)
    {
        let at = format!("/TaskTemplate/ContainerSpec/{list}");
        if let Some(Value::Array(items)) = body.pointer_mut(&at) {
            items.sort_by_key(Value::to_string);
        }
    }
    body.to_string()
}

/// How the clients differ for a line, if they do.
fn difference(api: &Recorder, line: &str) -> Option<String> {
    let words = shlex::split(line).expect("words");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [docker, nuncio] = Client::ALL.map(|client| {
        let (done, asked) = api.run(client, &words);
        (done, sorted(asked))
    });
    let said = |done: &Finished| {
        let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let is_same = docker.0.code.min(1) == nuncio.0.code.min(1)
        && said(&docker.0) == said(&nuncio.0)
        && docker.1 == nuncio.1;
    (!is_same).then(|| format!("{line}\n{docker:#?}\n{nuncio:#?}"))
}

#[track_caller]
fn same<'a>(api: &Recorder, lines: impl IntoIterator<Item = &'a str>) {
    let lines = lines.into_iter();
    let different: Vec<String> = lines.filter_map(|line| difference(api, line)).collect();
    let count = different.len();
    assert!(
        different.is_empty(),
        "{count} lines: {}",
        different.join("\n")
    );
}

#[test]
fn service_create() {
    let api = Recorder::new();
    set_up(&api);
    let create = [
        "",
        "--name web --replicas 3 --label a=b --label c --container-label d=e",
        "--mode global",
        "--mode replicated-job --replicas 5 --max-concurrent 2",
        "--mode replicated-job",
        "--mode global-job",
        "-e A=1 -e A=2 -e B=3 --env-file vars",
        "--network back --network name=front,alias=x,alias=y,driver-opt=k=v",
        "-p 80 -p 8080:80 -p 53:53/udp -p 9000-9002:80 -p mode=host,target=81,published=81,protocol=udp",
        "-p published=82,target=82 --endpoint-mode dnsrr",
        "--constraint node.role==worker --constraint 'node.labels.a != b' --placement-pref spread=node.labels.zone",
        "--replicas-max-per-node 2 --replicas 4",
        "--limit-cpu 0.5 --limit-memory 512m --limit-pids 100 --reserve-cpu 0.25 --reserve-memory 64m",
        "--generic-resource gpu=2",
        "--restart-condition on-failure",
        "--restart-delay 10s --restart-max-attempts 3 --restart-window 2m",
        "--update-parallelism 2",
        "--update-delay 10s --update-monitor 1m --update-failure-action rollback --update-max-failure-ratio 0.25 --update-order start-first",
        "--rollback-parallelism 0 --rollback-delay 1s --rollback-monitor 1s --rollback-failure-action continue --rollback-max-failure-ratio 1 --rollback-order start-first",
        "--health-cmd 'curl localhost' --health-interval 5s --health-timeout 1s --health-retries 4 --health-start-period 30s --health-start-interval 2s",
        "--no-healthcheck",
        "--secret one --secret source=two,target=/t,uid=5,gid=6,mode=0400 --config c --config source=d,target=/etc/d",
        "--stop-signal SIGINT --stop-grace-period 1m",
        "--user me:us --workdir /srv --entrypoint \"sh -c 'a b'\" --init --tty --read-only --hostname h",
        "--cap-add net_admin --cap-add SYS_TIME --cap-drop ALL",
        "--sysctl net.core.somaxconn=1024 --ulimit nofile=10:20 --group 5 --group staff",
        "--host a:1.2.3.4 --host b:fd00::1 --dns 9.9.9.9 --dns-search lan --dns-option ndots:1",
        "--log-driver json-file --log-opt max-size=1m --oom-score-adj -5",
        "--mount type=volume,src=data,dst=/data --mount type=bind,src=/srv,dst=/srv,ro --mount type=tmpfs,dst=/t,tmpfs-size=1m",
        "--isolation default --with-registry-auth --no-resolve-image -q",
    ]
    .map(|flags| format!("service create -d {flags} nginx:1.29 serve -x --name inner"));
    let others = [
        "service create -d --no-resolve-image nginx",
        // What no registry knows is told, and made all the same.
        "service create -d localhost:1/unknown",
        "service create -d --mode global --replicas 2 nginx:1.29",
        "service create -d --secret a --secret source=b,target=a nginx:1.29",
    ];
    same(&api, create.iter().map(String::as_str).chain(others));
}

#[test]
fn service_update() {
    let api = Recorder::new();
    set_up(&api);
    let update = [
        "",
        "--force",
        "--image nginx:1.29",
        "--image nginx:1.29 --no-resolve-image",
        "--args 'x \"y z\"' --entrypoint ''",
        "--replicas 5",
        "--env-add C=3 --env-rm A --env-add B=9",
        "--label-add new=1 --label-rm old --container-label-add x=y --container-label-rm inner",
        "--mount-add type=tmpfs,dst=/t --mount-rm /data",
        "--mount-add type=bind,src=/srv,dst=/data",
        "--network-add front --network-rm back",
        "--publish-add 9090:90 --publish-rm 80",
        "--publish-rm target=53,protocol=udp,mode=host",
        "--constraint-add a==b --constraint-rm node.role==worker",
        "--placement-pref-add spread=node.labels.b --placement-pref-rm spread=node.labels.a",
        "--secret-add two --secret-rm one --config-add d --config-rm c",
        "--group-add 6 --group-rm 5 --sysctl-add net.b=2 --sysctl-rm net.a",
        "--cap-add CHOWN --cap-drop NET_ADMIN",
        "--cap-add SYS_TIME --cap-drop KILL",
        "--ulimit-add nproc=5 --ulimit-rm nofile",
        "--host-add c:1.2.3.6 --host-rm a",
        "--dns-add 8.8.8.8 --dns-rm 9.9.9.9 --dns-search-add b --dns-search-rm lan --dns-option-add x --dns-option-rm ndots:1",
        "--limit-cpu 1 --reserve-memory 1g --limit-pids 5",
        "--restart-condition none --restart-max-attempts 2",
        "--update-order start-first --rollback-delay 2s",
        "--health-interval 1s",
        "--health-cmd false --health-retries 2",
        "--no-healthcheck",
        "--tty --read-only=false --init=false --hostname h --user u --workdir /w",
        "--stop-signal INT --stop-grace-period 3s --replicas-max-per-node 3 --endpoint-mode dnsrr",
        "--log-driver none --generic-resource-add gpu=1",
        "--with-registry-auth",
        "--rollback",
    ]
    .map(|flags| format!("service update -d {flags} web"));
    let others = [
        "service update -d --replicas 3 agent",
        "service update -d --network-add back web",
        "service update -d --rollback --replicas 3 web",
        "service update -d nosuch",
        "service rollback -d web",
        "service scale -d web=5",
        "service scale -d job=5",
        "service scale -d agent=5",
        "service rm web agent",
    ];
    same(&api, update.iter().map(String::as_str).chain(others));
}

#[test]
fn secrets_and_configs() {
    let api = Recorder::new();
    set_up(&api);
    same(
        &api,
        [
            "secret create --label a=b --label c db password",
            "secret create --template-driver golang db password",
            "secret create -d vault db",
            "config create --label a=b db password",
            "config create db nosuch",
            "secret inspect db",
            "config inspect db other",
            "secret rm db other",
            "config rm db",
            "secret ls -q -f name=a -f label=x=y",
            "config ls -q",
        ],
    );
    for client in Client::ALL {
        let piped = api.spawn(
            client,
            &["secret", "create", "piped", "-"],
            Some(b"from a pipe"),
        );
        assert_eq!(piped.finish().ok(), "made");
    }
    let asked = api.asked();
    assert_eq!(asked[0], asked[1]);
    assert!(asked[0].body.contains("ZnJvbSBhIHBpcGU="), "{asked:?}");
}

/// Files that both clients take, from simple to all that a stack can have.
const STACKS: [(&str, &str); 5] = [
    (
        "voting",
        include_str!("../corpus/compose/valid-stack-voting.yml"),
    ),
    (
        "redis",
        include_str!("../corpus/compose/valid-stack-redis.yml"),
    ),
    (
        "wordpress",
        include_str!("../corpus/compose/valid-stack-wordpress.yml"),
    ),
    (
        "traefik",
        include_str!("../corpus/compose/valid-stack-traefik.yml"),
    ),
    (
        "prometheus",
        include_str!("../corpus/compose/valid-stack-prometheus.yml"),
    ),
];

#[test]
fn stack_deploy() {
    let api = Recorder::new();
    set_up(&api);
    let missing = json!({"message": "not found"});
    for name in [
        "secrets/shop_db_root",
        "configs/shop_dynamic",
        "configs/shared_plain",
    ] {
        api.set(&format!("GET /{name}"), 404, missing.clone());
    }
    let lines = STACKS.map(|(name, text)| {
        std::fs::write(api.scratch().join(format!("{name}.yml")), text).expect("write a file");
        format!("stack deploy --detach=true -c {name}.yml shop")
    });
    std::fs::write(
        api.scratch().join("over.yml"),
        "version: '3.8'\nservices:\n  vote:\n    image: nginx:1.29\n    environment: {A: '1'}\n    deploy: {replicas: 5}\n",
    )
    .expect("write a file");
    let others = [
        "stack deploy --detach=true -c voting.yml -c over.yml shop",
        "stack deploy --detach=true --resolve-image never --with-registry-auth -c redis.yml shop",
        "stack deploy --detach=true -c nosuch.yml shop",
    ];
    same(&api, lines.iter().map(String::as_str).chain(others));
    // The same where much of it is there already, and something that is not in the file any more.
    let label = json!({"com.docker.stack.namespace": "shop"});
    let running = |id: &str, name: &str, image: &str| {
        let mut labels = label.clone();
        labels["com.docker.stack.image"] = json!(image);
        json!({"ID": id, "Version": {"Index": 9}, "Spec": {
            "Name": name, "Labels": labels, "Mode": {"Replicated": {"Replicas": 1}},
            "TaskTemplate": {"ForceUpdate": 4, "ContainerSpec": {"Image": format!("{image}@sha256:{}", "3".repeat(64))}},
        }})
    };
    let services = json!([
        running("id-web", "shop_web", "nginx:1.29"),
        running("id-redis", "shop_redis", "redis:6"),
        running("id-old", "shop_old", "nginx:1.29"),
    ]);
    api.set("GET /services", 200, services);
    let networks = json!([{"Id": "id-net", "Name": "shop_default", "Labels": label, "Scope": "swarm", "Driver": "overlay"}]);
    api.set("GET /networks", 200, networks);
    same(
        &api,
        [
            "stack deploy --detach=true -c redis.yml shop",
            "stack deploy --detach=true --prune -c redis.yml shop",
            "stack deploy --detach=true --resolve-image changed -c redis.yml shop",
            "stack deploy --detach=true --resolve-image never -c redis.yml shop",
            "stack rm shop",
            "stack ls",
        ],
    );
}

#[test]
fn nodes_and_tasks() {
    let api = Recorder::new();
    let node = json!({
        "ID": "n1", "Version": {"Index": 5},
        "Spec": {"Role": "manager", "Availability": "active", "Labels": {"old": "1"}},
        "Description": {"Hostname": "host-1"}, "Status": {"State": "ready"},
    });
    for name in ["n1", "host-1"] {
        api.set(&format!("GET /nodes/{name}"), 200, node.clone());
    }
    same(
        &api,
        [
            "node update --availability drain host-1",
            "node update --availability pause --label-add a=b --label-add c --label-rm old host-1",
            "node update --label-rm nosuch host-1",
            "node inspect -f {{.Spec.Role}} host-1",
            "node inspect nosuch",
        ],
    );
    // What only nuncio has, and what it refuses.
    let why = json!({"Task": "t1", "State": "pending", "Reason": "no suitable node", "Nodes": [{"Node": "host-1", "Why": "is drained"}]});
    api.set("GET /nuncio/v1/tasks/t1/why-pending", 200, why);
    let told = api
        .run(Client::Nuncio, &["task", "why-pending", "t1"])
        .0
        .ok();
    assert!(
        told.starts_with("task t1 is pending: no suitable node"),
        "{told}"
    );
    assert!(told.ends_with("host-1    is drained"), "{told}");
    for (words, expected) in [
        ("node promote host-1", "promote host-1: not built: "),
        ("node update --role manager host-1", "--role: not built: "),
        ("swarm unlock", "swarm unlock: not built: nothing is locked"),
        ("swarm ca --rotate", "swarm ca: not built: "),
        (
            "swarm join-token manager",
            "there are no tokens for managers",
        ),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let message = api.run(Client::Nuncio, &words).0.refused(1);
        assert!(message.contains(expected), "{message}");
    }
}
