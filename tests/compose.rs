//! docker-compose, the first in Python and the second in Go, on nuncio's socket.

mod support;

use std::collections::BTreeSet;

use support::{Image, NOTHING, Project, cluster, everything, plain_registry, single, wait_until};

/// What the shop answers on the host's port.
#[track_caller]
fn page(shop: Project<'_>) -> String {
    let page = shop.host.inside("curl", "-s http://127.0.0.1:8080/");
    page.stdout.trim_end().to_owned()
}

/// Three services come up in order, are worked with, changed, and leave nothing.
#[track_caller]
fn the_shop(program: &'static str) {
    let host = single(&[Image::Busybox, Image::Redis]);
    let shop = Project::new(&host, program, "shop.yml");
    let services = shop.ok("config --services");
    let services: BTreeSet<&str> = services.lines().collect();
    assert_eq!(services, BTreeSet::from(["api", "db", "web"]));
    assert!(shop.ok("config").contains("GREETING: hello"));

    shop.ok("up -d");
    let shown = shop.ok("ps");
    assert_eq!(shown.matches("healthy").count(), 2, "{shown}");
    let first = page(shop);
    assert!(first.starts_with("hello from "), "{first}");
    let [containers, networks, volumes] = everything(&host);
    assert_eq!(containers.len(), 3);
    assert_eq!(networks, ["shop_back", "shop_front"]);
    assert!(volumes.contains(&"shop_data".to_owned()) && volumes.len() == 2);
    let labels = "{{index .Labels \"part\"}} {{.Internal}}";
    assert_eq!(
        host.docker(["network", "inspect", "-f", labels, "shop_back"])
            .ok(),
        "back true"
    );
    working_with_it(shop);
    stopping_and_starting(shop);
    changing_it(shop);

    let without_web = Project {
        file: "shop-without-web.yml",
        greeting: "bye",
        ..shop
    };
    let warned = without_web.run("up -d");
    assert!(warned.stderr.contains("orphan containers"), "{warned:?}");
    assert_eq!(shop.ids("web").len(), 1);
    without_web.ok("up -d --remove-orphans");
    assert_eq!(everything(&host)[0].len(), 2);
    without_web.ok("down -v");
    // What was replaced or scaled away left its anonymous volumes, with Docker as well.
    host.ok("volume prune -f");
    assert_eq!(everything(&host), NOTHING);
}

#[track_caller]
fn working_with_it(shop: Project<'_>) {
    let logs = shop.ok("logs --no-color --tail 1 api");
    assert!(logs.contains("| api serves hello"), "{logs}");
    let mut following = shop.spawn("logs -f --no-color api");
    following.until("api serves hello");
    drop(following);
    assert_eq!(shop.ok("exec -T db redis-cli set kept yes"), "OK");
    assert_eq!(
        shop.run(["exec", "-T", "api", "sh", "-c", "exit 9"]).code,
        9
    );
    let ping = "echo $GREETING; printf 'PING\\r\\n' | nc -w 5 keeper 6379 | head -n 1";
    let answer = shop.run(["run", "--rm", "-T", "api", "sh", "-c", ping]);
    let answer = answer.ok();
    assert!(answer.contains("hello"), "{answer}");
    assert!(answer.contains("+PONG"), "{answer}");
    assert_eq!(shop.run("run --rm -T --no-deps api sh -c true").code, 0);
    let own = ["run", "--rm", "-T", "-e", "GREETING=own", "api", "sh", "-c"];
    let own = own.into_iter().chain(["echo $GREETING; exit 7"]);
    let own = shop.run(&own.collect::<Vec<_>>()[..]);
    assert_eq!((own.code, own.stdout.trim()), (7, "own"), "{}", own.stderr);
    assert_eq!(everything(shop.host)[0].len(), 3, "--rm leaves nothing");
    let unseen = shop.run("exec -T web nslookup store");
    assert_ne!(unseen.code, 0, "web is not on the back network");
    let port = shop.ok("port web 80");
    assert!(port.starts_with("127.0.0.1:8080"), "{port}");
    assert!(shop.ok("top api").contains("httpd"));
    assert!(shop.ok("images").contains("busybox"));
    shop.ok("pause api");
    assert!(shop.ok("ps").to_lowercase().contains("paused"));
    shop.ok("unpause api");
}

#[track_caller]
fn stopping_and_starting(shop: Project<'_>) {
    shop.ok("restart -t 5 db");
    wait_until("what was kept is there again", || {
        shop.run("exec -T db redis-cli get kept").stdout.trim() == "yes"
    });
    shop.ok("stop -t 5 web");
    assert_eq!(page(shop), "");
    shop.ok("start web");
    wait_until("it serves again", || page(shop).starts_with("hello"));
    shop.ok("kill web");
    shop.ok("rm -f web");
    assert_eq!(everything(shop.host)[0].len(), 2);
    shop.ok("up -d");
    wait_until("it serves again", || page(shop).starts_with("hello"));
}

#[track_caller]
fn changing_it(shop: Project<'_>) {
    shop.ok("up -d --scale api=2");
    let two = shop.ids("api");
    assert_eq!(two.len(), 2);
    let mut answers = BTreeSet::new();
    wait_until("both answer by their alias", || {
        answers.insert(page(shop));
        answers.len() == 2
    });
    shop.ok("up -d --scale api=1");
    assert_eq!(shop.ids("api").len(), 1);

    shop.ok("exec -T api touch /cache/kept");
    let (api, db) = (shop.ids("api"), shop.ids("db"));
    shop.ok("up -d");
    assert_eq!((shop.ids("api"), shop.ids("db")), (api.clone(), db.clone()));
    let changed = Project {
        greeting: "bye",
        ..shop
    };
    changed.ok("up -d");
    assert_ne!(shop.ids("api"), api, "what changed is made anew");
    assert_eq!(shop.ids("db"), db, "what did not stays");
    shop.ok("exec -T api ls /cache/kept");
    wait_until("it says the new words", || page(changed).starts_with("bye"));
    assert_eq!(everything(shop.host)[0].len(), 3);
}

#[test]
fn the_first_compose_runs_a_shop() {
    the_shop("docker-compose-1");
}

#[test]
fn the_second_compose_runs_a_shop() {
    the_shop("docker-compose-2");
}

/// A service gets what it asks for; others share its network, know it by a link, or wait for a job.
#[track_caller]
fn options(program: &'static str) {
    let host = single(&[Image::Busybox]);
    host.ok("network create outside");
    host.ok("volume create kept");
    let project = Project::new(&host, program, "options.yml");
    project.ok("up -d");
    let expected = [
        "user=7:8 pwd=/tmp",
        "env=1,2,a b",
        "host=1",
        "dns=1",
        "bind=content ro=yes",
        "tmpfs=1 shm=8192",
        "root=read-only",
        "nofile=99",
        "somaxconn=77",
        "address=1",
        "secret=pw",
    ];
    wait_until("it has told what it got", || {
        host.ok("logs all-options").lines().count() == expected.len()
    });
    let told = host.ok("logs all-options");
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let shown = host.ok([
        "inspect",
        "-f",
        "{{.Config.Hostname}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} \
         {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.OomScoreAdj}}",
        "all-options",
    ]);
    assert_eq!(shown, "the-host 67108864 500000000 50 unless-stopped 500");
    assert_eq!(project.ok("exec -T beside hostname"), "the-host");
    assert_eq!(project.ok("exec -T beside hostname -i"), "10.98.7.9");
    project.ok("exec -T linked nslookup alias");
    let ended = host.ok("ps -a -f name=job --format {{.Status}}");
    assert!(ended.starts_with("Exited (0)"), "{ended}");
    assert_eq!(host.ok("ps -q -f name=after").lines().count(), 1);
    project.ok("stop all");
    assert!(host.ok("logs all-options").ends_with("stopped by INT"));
    assert_eq!(host.ok("inspect -f {{.State.ExitCode}} all-options"), "7");
    project.ok("down -v");
    let left = everything(&host);
    assert_eq!(
        left,
        [vec![], vec!["outside".to_owned()], vec!["kept".to_owned()]]
    );
}

#[test]
fn the_first_compose_passes_options_on() {
    options("docker-compose-1");
}

#[test]
fn the_second_compose_passes_options_on() {
    options("docker-compose-2");
}

/// `up` in the foreground shows what the services say, and ends with the one that is waited for.
#[track_caller]
fn foreground(program: &'static str) {
    let host = single(&[Image::Busybox]);
    let project = Project::new(&host, program, "foreground.yml");
    let ended = project.run("up --no-color --exit-code-from job");
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.stdout.contains("| the job is done"), "{ended:?}");
    assert!(ended.stdout.contains("| the server serves"), "{ended:?}");
    project.ok("down");
    assert_eq!(everything(&host), NOTHING);
}

#[test]
fn the_first_compose_stays_in_front() {
    foreground("docker-compose-1");
}

#[test]
fn the_second_compose_stays_in_front() {
    foreground("docker-compose-2");
}

#[test]
fn a_project_spans_hosts() {
    let [a, b] = cluster(&[Image::Busybox]);
    let here = Project::new(&a, "docker-compose-2", "overlay.yml");
    let there = Project::new(&b, "docker-compose-1", "overlay.yml");
    here.ok("up -d server");
    wait_until("the other host's client is answered", || {
        let client = there.run("run --rm -T --no-deps client");
        client.stdout.trim() == "hello"
    });
    here.ok("down -t 0");
    assert_eq!(everything(&a), NOTHING);
    assert_eq!(everything(&b), NOTHING);
}

/// An image that is not here is pulled, and looked for again by `pull`.
#[track_caller]
fn fetching(program: &'static str) {
    let host = single(&[Image::Busybox]);
    let _registry = plain_registry(&host);
    let name = "127.0.0.1:5000/team/box:1";
    host.ok(&format!("tag busybox {name}"));
    host.ok(&format!("push {name}"));
    host.ok("image prune -af");
    let project = Project::new(&host, program, "fetched.yml");
    project.ok("up -d");
    assert_eq!(project.ids("box").len(), 1);
    project.ok("pull");
    project.ok("down --rmi all");
    assert_eq!(host.ok("images -q"), "");
    assert_eq!(everything(&host), NOTHING);
}

#[test]
fn the_first_compose_fetches_images() {
    fetching("docker-compose-1");
}

#[test]
fn the_second_compose_fetches_images() {
    fetching("docker-compose-2");
}

#[test]
fn what_only_the_second_compose_knows() {
    let host = single(&[Image::Busybox]);
    let project = Project::new(&host, "docker-compose-2", "second.yml");
    project.ok("up -d --wait");
    assert_eq!(project.ids("api").len(), 2);
    assert_eq!(host.ok("ps -q -f health=healthy").lines().count(), 2);
    assert_eq!(project.ok("exec -T api cat /etc/settings"), "colour=green");
    let limit = host.ok("inspect -f {{.HostConfig.Memory}} shop-api-1");
    assert_eq!(limit, "33554432");
    project.ok("--profile more up -d");
    assert_eq!(project.ids("extra").len(), 1);
    project.ok("scale api=3");
    assert_eq!(project.ids("api").len(), 3);
    let listed = project.ok("ps --format json");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let file = host.scratch().join("file");
    std::fs::write(&file, "copied").expect("write");
    let file = file.to_str().expect("a path in UTF-8");
    project.ok(["cp", file, "api:/file"]);
    assert_eq!(project.ok("exec -T --index 3 api cat /file"), "copied");
    project.ok(["cp", "api:/etc/settings", file]);
    let copied = std::fs::read_to_string(file).expect("read");
    assert_eq!(copied, "colour=green\n");
    assert!(project.ok("ls").contains("running(4)"));
    assert!(project.ok("volumes").starts_with("DRIVER"));
    let task = project.run("--profile task up --no-color --no-deps --exit-code-from task task");
    assert_eq!(task.code, 3, "{task:?}");
    assert!(task.stdout.contains("| working"), "{task:?}");
    project.ok("restart -t 0 extra");
    project.ok("--profile * down -v -t 0");
    assert_eq!(everything(&host), NOTHING);
}
