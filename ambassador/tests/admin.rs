//! The HTTP side, by way of a socket.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

mod support;
use support::admin::admin;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_put_shown_and_measured() -> Result<()> {
    let admin = admin().await?;
    ensure!(admin.ask("GET", "/ready", "").await?.0 == 503);
    let to = format!("tcp://{}", naming_server(b'a').await?);
    let config = json!([{ "name": "web", "listen": "tcp://127.0.0.1:0", "to": [to] }]);
    ensure!(admin.put(&config).await?.0 == 204);
    ensure!(admin.ask("GET", "/ready", "").await?.0 == 200);
    let shown: Value = serde_json::from_str(&admin.ask("GET", "/config", "").await?.1)?;
    ensure!(
        shown[0]["name"] == "web" && shown[0]["to"][0] == json!(to),
        "{shown}"
    );
    ensure!(
        admin.put(&shown).await?.0 == 204,
        "what is shown can be put"
    );

    let (_, mut stream) = who(local(admin.control.ambassador(), 0)).await?;
    stream.write_all(b"12345").await?;
    let ambassador = admin.control.ambassador();
    until("it is counted", || ambassador.flows()[0].bytes_in == 5).await?;
    let flows: Value = serde_json::from_str(&admin.ask("GET", "/flows", "").await?.1)?;
    let flow = &flows[0];
    ensure!(
        flow["forward"] == "web" && flow["datapath"] == "copy",
        "{flow}"
    );
    ensure!(flow["bytes_in"] == 5 && flow["bytes_out"] == 1, "{flow}");

    let endpoint = to.trim_start_matches("tcp://");
    let labels = format!("{{endpoint={endpoint:?},forward=\"web\"}}");
    let metrics = |live: f64| {
        let (ask, labels) = (admin.metrics(), &labels);
        async move {
            let samples = ask.await?;
            for (name, value) in [
                ("flows_open", live),
                ("flows_total", 1.0),
                ("received_bytes_total", 5.0),
                ("sent_bytes_total", 1.0),
                ("connect_failures_total", 0.0),
                ("connect_seconds_count", 1.0),
                ("flow_seconds_count", 1.0 - live),
            ] {
                let found = samples.get(&format!("nuncio_ambassador_{name}{labels}"));
                ensure!(found == Some(value), "{name}: {found:?} of {samples:#?}");
            }
            Ok(())
        }
    };
    metrics(1.0).await?;
    drop(stream);
    until("the flow has ended", || ambassador.flows().is_empty()).await?;
    metrics(0.0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_applied_changes_nothing() -> Result<()> {
    let admin = admin().await?;
    let upstream = format!("tcp://{}", naming_server(b'a').await?);
    let forward =
        |name: &str, listen: &str, to: &str| json!({ "name": name, "listen": listen, "to": [to] });
    let before = json!([forward("before", "tcp://127.0.0.1:0", &upstream)]);
    ensure!(admin.put(&before).await?.0 == 204);
    let shown = admin.ask("GET", "/config", "").await?;

    let held = TcpListener::bind("127.0.0.1:0").await?;
    let taken = format!("tcp://{}", held.local_addr()?);
    let wrong = [
        (
            409,
            "address-in-use",
            forward("late", &taken, &upstream),
            taken.as_str(),
        ),
        (
            409,
            "loop",
            forward("round", "tcp://*:7011", "tcp://127.0.0.1:7011"),
            "round -> round",
        ),
        (
            400,
            "unknown-service",
            forward("s", "tcp://*:7012", "service://odd"),
            "never been",
        ),
        (
            400,
            "malformed",
            forward("s", "tcp://*:7012", "udp://a:1"),
            "both must speak",
        ),
        (
            400,
            "malformed",
            json!({ "name": "no listener", "to": [] }),
            "listen",
        ),
        (400, "malformed", json!({ "colour": 1 }), "colour"),
    ];
    for (status, kind, forward, says) in wrong {
        let fine = json!({ "listen": "tcp://127.0.0.1:0", "to": [upstream] });
        let (answered, body) = admin.put(&json!([fine, forward])).await?;
        ensure!(
            (answered, &body["kind"]) == (status, &json!(kind)),
            "{answered} {body}"
        );
        ensure!(
            body["message"].as_str().is_some_and(|m| m.contains(says)),
            "{body}"
        );
        ensure!(admin.ask("GET", "/config", "").await? == shown);
    }
    let (status, body) = admin.ask("PUT", "/config", "[{").await?;
    ensure!(status == 400 && body.contains("line 1"), "{body}");
    let huge = " ".repeat(17 << 20);
    ensure!(
        admin
            .ask("PUT", "/config", &huge)
            .await
            .map_or(413, |(status, _)| status)
            == 413
    );
    let known = json!([forward("s", "tcp://127.0.0.1:0", "service://known")]);
    ensure!(admin.put(&known).await?.0 == 204);
    Ok(())
}
