//! What hosts tell of services, nodes, secrets and configs.

use crate::docker;
use crate::support::{Image, cluster, wait_until};

#[test]
fn each_host_tells_of_services_nodes_secrets_and_configs() {
    let hosts = cluster::<2>(&[Image::Busybox]);
    let [a, b] = &hosts;
    wait_until("both are known", || {
        docker(b, "node ls -q").lines().count() == 2
    });
    let format = "{{.Type}} {{.Action}} {{.Scope}} {{json .Actor.Attributes}}";
    let words = ["events", "--filter", "scope=swarm", "--format", format];
    let mut told = b.spawn_docker(words);
    let mut services = b.spawn_docker("events --filter type=service --filter service=web");
    let file = a.scratch().join("file");
    std::fs::write(&file, "x").expect("write it");
    let file = file.display();
    // Until it listens, nothing is missed that comes later.
    wait_until("it is told of", || {
        docker(a, "node update --label-add x=y host-2");
        docker(a, "node update --label-rm x host-2");
        told.output().contains("node update swarm")
    });
    for (words, is_told) in [
        (format!("secret create s {file}"), r#"secret create swarm {"name":"s"}"#),
        (format!("config create c {file}"), r#"config create swarm {"name":"c"}"#),
        ("secret rm s".to_owned(), r#"secret remove swarm {"name":"s"}"#),
        ("config rm c".to_owned(), r#"config remove swarm {"name":"c"}"#),
        (
            "node update --availability pause host-2".to_owned(),
            r#"node update swarm {"availability.new":"pause","availability.old":"active","name":"host-2"}"#,
        ),
        (
            "service create -q -d --name web --update-monitor 100ms --stop-grace-period 1s busybox sleep 1000".to_owned(),
            r#"service create swarm {"name":"web"}"#,
        ),
        (
            "service scale -d web=2".to_owned(),
            r#"service update swarm {"name":"web","replicas.new":"2","replicas.old":"1"}"#,
        ),
        (
            "service update -q -d --force web".to_owned(),
            r#""updatestate.new":"completed","updatestate.old":"updating"}"#,
        ),
        ("service rm web".to_owned(), r#"service remove swarm {"name":"web"}"#),
    ] {
        docker(a, &words);
        told.until(is_told);
    }
    services.until("service remove");
    b.kill_daemon();
    let mut told = a.spawn_docker("events --filter node=host-2 --filter type=node --since 5m");
    told.until("state.new=down, state.old=ready");
}
