//! Forwards that spare the processes of some cgroups the relay.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{
    Ambassador, ApplyError, Control, EndpointSet, Forward, Listen, Options, Protocol, Resolver,
    admin, spec,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[path = "support/scene.rs"]
mod scene;
use scene::*;

type Set = watch::Sender<Arc<EndpointSet>>;

fn known(endpoints: &[&str]) -> Arc<EndpointSet> {
    Arc::new(EndpointSet::known(
        endpoints.iter().map(|e| at(e)).collect(),
    ))
}

fn live(endpoints: &[&str]) -> Set {
    watch::channel(known(endpoints)).0
}

fn forward(protocol: Protocol, service: &str, set: &Set, cgroups: &[&Cgroup]) -> Forward {
    let address = at(service);
    let name = format!("{protocol}-{service}");
    let mut forward = Forward::new(
        name,
        Listen {
            protocol,
            address,
            only_v6: false,
        },
        set.subscribe(),
    );
    forward.direct = cgroups
        .iter()
        .map(|cgroup| cgroup.path().to_owned())
        .collect();
    forward
}

/// How often the relay has been in between.
fn relayed(ambassador: &Ambassador) -> usize {
    ambassador.flows().len()
}

#[test]
fn a_cgroup_goes_straight_and_the_others_through_the_relay() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let ambassador = Ambassador::new(Options::default());
        let (four, six) = (live(&[A]), live(&[B6]));
        let forwards = vec![
            forward(Protocol::Tcp, SERVICE, &four, &[&cgroup]),
            forward(Protocol::Udp, SERVICE, &four, &[&cgroup]),
            forward(Protocol::Tcp, SERVICE6, &six, &[&cgroup]),
        ];
        ambassador.apply(forwards).await?;
        let mut inside = scene.client(Some(&cgroup)).await?;
        let mut outside = scene.client(None).await?;
        inside.expect(&format!("hold {SERVICE}"), "a").await?;
        inside.expect(&format!("hold {SERVICE6}"), "b").await?;
        let udp = format!("udp {SERVICE}");
        inside
            .expect(&udp, &format!("a {SERVICE} {SERVICE}"))
            .await?;
        ensure!(relayed(&ambassador) == 0, "{:?}", ambassador.flows());
        outside.expect(&format!("hold {SERVICE}"), "a").await?;
        outside.expect(&format!("hold {SERVICE6}"), "b").await?;
        outside
            .expect(&udp, &format!("a {SERVICE} {SERVICE}"))
            .await?;
        ensure!(relayed(&ambassador) == 3, "{:?}", ambassador.flows());
        Ok(())
    })
}

#[test]
fn the_set_follows_the_watch_and_the_configuration() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let (one, two) = (scene.cgroup("1")?, scene.cgroup("2")?);
        let ambassador = Ambassador::new(Options::default());
        let set = live(&[A]);
        let to = |cgroups: &[&Cgroup]| vec![forward(Protocol::Tcp, SERVICE, &set, cgroups)];
        ambassador.apply(to(&[&one, &two])).await?;
        let (mut in_one, mut in_two) = (
            scene.client(Some(&one)).await?,
            scene.client(Some(&two)).await?,
        );
        let hold = format!("hold {SERVICE}");
        in_one.expect(&hold, "a").await?;
        in_two.expect(&hold, "a").await?;
        set.send_replace(known(&[B]));
        for client in [&mut in_one, &mut in_two] {
            client.until(&hold, "b", &["a"]).await?;
            client
                .expect(&format!("many 20 {SERVICE}"), &"b".repeat(20))
                .await?;
        }
        ensure!(relayed(&ambassador) == 0);
        // Applied is in force.
        ambassador.apply(to(&[&two])).await?;
        in_one.expect(&hold, "b").await?;
        ensure!(relayed(&ambassador) == 1);
        in_two.expect(&hold, "b").await?;
        ensure!(relayed(&ambassador) == 1);
        ambassador.apply(to(&[])).await?;
        in_two.expect(&hold, "b").await?;
        ensure!(relayed(&ambassador) == 2, "{:?}", ambassador.flows());
        ensure!(ambassador.direct().is_empty());
        // What nobody listens for is nobody's, although the cgroup is still there.
        ambassador.apply(to(&[&one])).await?;
        in_one.expect(&hold, "b").await?;
        ensure!(relayed(&ambassador) == 2);
        ambassador.drain(Duration::ZERO).await;
        while !in_one.ask(&hold).await?.contains("refused") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    })
}

const SERVICE_TOO: &str = "10.90.0.1:8081";

#[test]
fn two_hundred_cgroups_are_told_together() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let named = |number: usize| scene.cgroup(&number.to_string());
        let cgroups = (0..200).map(named).collect::<Result<Vec<_>>>()?;
        let all: Vec<&Cgroup> = cgroups.iter().collect();
        let ambassador = Ambassador::new(Options::default());
        let set = live(&[A]);
        let services =
            [SERVICE, SERVICE_TOO].map(|service| forward(Protocol::Tcp, service, &set, &all));
        ambassador.apply(services.to_vec()).await?;
        let mut first = scene.client(Some(all[0])).await?;
        let mut last = scene.client(Some(all[199])).await?;
        for client in [&mut first, &mut last] {
            client.expect(&format!("hold {SERVICE}"), "a").await?;
        }
        set.send_replace(known(&[B]));
        for client in [&mut first, &mut last] {
            client
                .until(&format!("hold {SERVICE_TOO}"), "b", &["a"])
                .await?;
        }
        // The last one sees less than the others from now on, which go on as before.
        let [mut one, two] = services;
        one.direct.pop();
        ambassador.apply(vec![one, two]).await?;
        first.expect(&format!("hold {SERVICE}"), "b").await?;
        last.expect(&format!("hold {SERVICE_TOO}"), "b").await?;
        ensure!(relayed(&ambassador) == 0, "{:?}", ambassador.flows());
        last.expect(&format!("hold {SERVICE}"), "b").await?;
        ensure!(relayed(&ambassador) == 1, "{:?}", ambassador.flows());
        let counts = ambassador.direct();
        let connects = |report: usize| {
            counts[report]
                .connects
                .iter()
                .map(|count| count.1)
                .sum::<u64>()
        };
        ensure!(connects(0) == 1 && connects(1) >= 3, "{counts:?}");
        Ok(())
    })
}

#[test]
fn an_ejected_endpoint_is_left_out() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let ambassador = Ambassador::new(Options::default());
        // Nobody listens at the first.
        let set = live(&["10.90.2.2:99", A]);
        ambassador
            .apply(vec![forward(Protocol::Tcp, SERVICE, &set, &[&cgroup])])
            .await?;
        let mut inside = scene.client(Some(&cgroup)).await?;
        let mut outside = scene.client(None).await?;
        let many = format!("many 30 {SERVICE}");
        // By chance once in a thousand million times.
        while inside.ask(&many).await? != "a".repeat(30) {
            // Whoever is relayed finds it out, and ejects it for ever longer.
            outside
                .expect(&format!("many 10 {SERVICE}"), &"a".repeat(10))
                .await?;
        }
        Ok(())
    })
}

#[test]
fn a_cgroup_may_come_late_and_come_again() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let ambassador = Ambassador::new(Options::default());
        let forward = forward(Protocol::Tcp, SERVICE, &live(&[A]), &[&cgroup]);
        drop(cgroup);
        ambassador.apply(vec![forward]).await?;
        let report = ambassador.direct().pop().context("a report")?;
        let reason = report.reason().to_owned();
        ensure!(
            reason.contains("nuncio-nt-") && reason.contains("os error 2"),
            "{reason}"
        );
        for _ in 0..2 {
            let cgroup = scene.cgroup("x")?;
            let mut client = scene.client(Some(&cgroup)).await?;
            // Relayed at first, which is no failure.
            until("it is direct", || is_direct(&ambassador)).await?;
            let before = relayed(&ambassador);
            client.expect(&format!("hold {SERVICE}"), "a").await?;
            ensure!(relayed(&ambassador) == before);
            client.kill().await?;
            drop(cgroup);
            until("it is relayed", || !is_direct(&ambassador)).await?;
        }
        Ok(())
    })
}

fn is_direct(ambassador: &Ambassador) -> bool {
    ambassador.direct()[0].cgroups[0].unavailable.is_none()
}

#[test]
fn what_cannot_be_direct_is_relayed_and_says_why() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let ambassador = Ambassador::new(Options::default());
        // An IPv4 socket cannot go to IPv6, but the relay can.
        let set = live(&[A6]);
        ambassador
            .apply(vec![forward(Protocol::Tcp, SERVICE, &set, &[&cgroup])])
            .await?;
        let mut client = scene.client(Some(&cgroup)).await?;
        client.expect(&format!("hold {SERVICE}"), "a").await?;
        ensure!(relayed(&ambassador) == 1);
        let report = ambassador.direct().pop().context("a report")?;
        ensure!(report.reason().contains("same IP version"), "{report:?}");
        let everywhere = forward(Protocol::Tcp, "0.0.0.0:8080", &set, &[&cgroup]);
        let refused = ambassador.apply(vec![everywhere]).await;
        let refused = refused.err().context("it is every address")?;
        ensure!(matches!(refused, ApplyError::Direct { .. }), "{refused:?}");
        ensure!(
            refused.kind() == "direct-address" && refused.forward() == Some("tcp-0.0.0.0:8080")
        );
        Ok(())
    })
}

#[test]
fn without_capabilities_everything_is_relayed() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let mut ambassador = scene.client(None).await?;
        let order = format!("ambassador {} {SERVICE} {A}", cgroup.path().display());
        let reason = ambassador.ask(&order).await?;
        ensure!(reason.contains("CAP_BPF"), "{reason}");
        let mut client = scene.client(Some(&cgroup)).await?;
        client.expect(&format!("hold {SERVICE}"), "a").await?;
        ambassador.expect("flows", "1").await
    })
}

async fn get(address: std::net::SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok(body.to_owned())
}

#[test]
fn it_is_configured_shown_and_counted() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let (cgroup, other) = (scene.cgroup("x")?, scene.cgroup("y")?);
        let path = cgroup.path().display().to_string();
        let missing = other.path().join("missing").display().to_string();
        let toml = format!(
            "[[forward]]\nname = \"redis\"\nlisten = \"tcp://{SERVICE}\"\nto = [\"tcp://{A}\"]\n\
             direct = [\"{path}\", \"{missing}\"]\n"
        );
        let ambassador = Arc::new(Ambassador::new(Options::default()));
        let control = Arc::new(Control::new(ambassador.clone(), Resolver::new()));
        control
            .put(spec::from_toml("test".as_ref(), &toml)?)
            .await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = admin::router(control.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });

        let config: Value = serde_json::from_str(&get(address, "/config").await?)?;
        ensure!(config[0]["direct"][0] == path.as_str(), "{config}");
        let mut inside = scene.client(Some(&cgroup)).await?;
        let mut outside = scene.client(Some(&other)).await?;
        inside
            .expect(&format!("many 7 {SERVICE}"), "aaaaaaa")
            .await?;
        outside.expect(&format!("hold {SERVICE}"), "a").await?;
        let flows: Value = serde_json::from_str(&get(address, "/flows").await?)?;
        let reason = flows[0]["not_direct"].as_str().unwrap_or_default();
        ensure!(reason.contains("missing"), "{flows}");
        let count = format!(
            "nuncio_ambassador_direct_connects_total{{forward=\"redis\",endpoint=\"{A}\"}} 7"
        );
        while !get(address, "/metrics").await?.contains(&count) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let direct: Value = serde_json::from_str(&get(address, "/direct").await?)?;
        let redis = &direct[0];
        ensure!(
            redis["service"] == format!("tcp://{SERVICE}") && redis["unavailable"].is_null(),
            "{direct}"
        );
        ensure!(redis["connects"][0]["connects"] == 7, "{direct}");
        ensure!(redis["cgroups"][0]["unavailable"].is_null(), "{direct}");
        ensure!(redis["cgroups"][1]["unavailable"].is_string(), "{direct}");
        Ok(())
    })
}
