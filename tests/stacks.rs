//! Services and stacks over two hosts, by nuncio's own client and docker's.

mod support;

use support::{Client, Host, Image, cluster, wait_until};

const FILE: &str = "
services:
  web:
    image: busybox
    command: sh -c 'hostname >/tmp/index.html; exec httpd -f -p 80 -h /tmp'
    environment: {LEVEL: \"${LEVEL:-1}\"}
    deploy:
      replicas: 2
      update_config: {order: start-first, monitor: 100ms}
      restart_policy: {condition: any, delay: 100ms}
";

/// Deploys the file, with what the variable in it is.
#[track_caller]
fn deploy(client: Client, host: &Host, level: &str) {
    let directory = host.scratch().join("stack");
    std::fs::create_dir_all(&directory).expect("make a directory");
    std::fs::write(directory.join("shop.yml"), FILE).expect("write the file");
    let line = format!(
        "LEVEL={level} docker stack deploy --detach=true --resolve-image never -c shop.yml shop"
    );
    client.shell(host, &directory, &line).ok();
}

#[track_caller]
fn until_running(client: Client, host: &Host, number: usize) {
    wait_until(&format!("{client:?} sees {number} tasks that run"), || {
        let words = "stack ps --filter desired-state=running --format {{.CurrentState}} shop";
        let states = client.run(host, words).stdout;
        states
            .lines()
            .filter(|state| state.starts_with("Running "))
            .count()
            == number
    });
}

#[test]
fn a_stack_of_either_client_is_the_others_too() {
    let [a, b] = cluster::<2>(&[Image::Busybox]);
    deploy(Client::Nuncio, &a, "1");
    for client in Client::ALL {
        until_running(client, &b, 2);
        assert_eq!(
            client.ok(&b, "stack ls --format {{.Name}}:{{.Services}}"),
            "shop:1"
        );
        let format = "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}";
        let shown = client.ok(&a, ["stack", "services", "--format", format, "shop"]);
        assert_eq!(shown, "shop_web replicated 2/2 busybox:latest");
        let pretty = client.ok(&b, "service inspect --pretty shop_web");
        assert!(pretty.contains(" Replicas:\t2"), "{pretty}");
    }
    // Who waits is told how it goes, and when it is there.
    let scaled = a.ok("service scale shop_web=3");
    assert!(scaled.starts_with("shop_web scaled to 3\n"), "{scaled}");
    assert!(
        scaled.contains("\noverall progress: 3 out of 3 tasks\n"),
        "{scaled}"
    );
    assert!(
        scaled.ends_with("verify: Service shop_web converged"),
        "{scaled}"
    );
    // The other client's file takes it back, and changes the tasks.
    deploy(Client::Docker, &b, "2");
    until_running(Client::Nuncio, &a, 2);
    let format = "{{json .Spec.TaskTemplate.ContainerSpec.Env}}";
    assert_eq!(
        a.ok(["service", "inspect", "-f", format, "shop_web"]),
        r#"["LEVEL=2"]"#
    );
    let updated = a.ok("service update --env-add LEVEL=3 shop_web");
    assert!(
        updated.ends_with("verify: Service shop_web converged"),
        "{updated}"
    );
    assert!(a.ok("service rollback -q shop_web").contains("shop_web"));
    wait_until("the other host knows", || {
        b.ok(["service", "inspect", "-f", format, "shop_web"]) == r#"["LEVEL=2"]"#
    });
    a.ok("service update --detach --rebalance shop_web");
    let removed = b.ok("stack rm --detach=false shop");
    assert!(removed.contains("Removing service shop_web"), "{removed}");
    wait_until("no container is left", || {
        [&a, &b].iter().all(|host| host.ok("ps -aq").is_empty())
    });
}

#[test]
fn a_task_that_fits_nowhere_says_why() {
    let [a, _b] = cluster::<2>(&[Image::Busybox]);
    a.ok("node update --label-add disk=ssd host-1");
    a.ok("service create -d --no-resolve-image --name far --constraint node.labels.disk==tape busybox sleep 1000");
    let mut task = String::new();
    wait_until("there is a task", || {
        task = a.ok("service ps -q --no-trunc far");
        !task.is_empty()
    });
    wait_until("the task is told to wait, and why", || {
        let told = a.nuncio(["task", "why-pending", &task]);
        told.code == 0 && told.stdout.contains("host-1") && told.stdout.contains("host-2")
    });
    a.ok("node update --label-add disk=tape host-2");
    wait_until("it runs on the host with the label", || {
        let words =
            "service ps --filter desired-state=running --format {{.Node}}|{{.CurrentState}} far";
        a.ok(words).starts_with("host-2|Running ")
    });
    a.ok("node update --availability drain host-2");
    wait_until("it waits again", || {
        a.ok("service ps --format {{.CurrentState}} far")
            .contains("Pending ")
    });
    assert!(a.ok("node inspect --pretty host-2").contains("drain"));
    a.ok("service rm far");
}
