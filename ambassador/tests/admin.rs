//! The HTTP side, by way of a socket.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Control, EndpointSet, Options, Resolver, admin};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

struct Admin {
    control: Arc<Control>,
    address: SocketAddr,
}

async fn admin() -> Result<Admin> {
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let resolver = Resolver::new().with_services(|name, _port| match name {
        "known" => Ok(EndpointSet::fixed(vec![([127, 0, 0, 1], 9).into()])),
        other => Err(format!("{other} has never been announced").into()),
    });
    let control = Arc::new(Control::new(ambassador, resolver));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = admin::router(control.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(Admin { control, address })
}

impl Admin {
    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        soon(stream.read_to_string(&mut response)).await??;
        let (head, body) = response.split_once("\r\n\r\n").context("a head")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    async fn put(&self, config: &Value) -> Result<(u16, Value)> {
        let (status, body) = self.ask("PUT", "/config", &config.to_string()).await?;
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&body)?
        };
        Ok((status, body))
    }
}

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

    let metrics = |live: u8| {
        let ask = admin.ask("GET", "/metrics", "");
        async move {
            let (status, text) = ask.await?;
            ensure!(status == 200 && text.ends_with("# EOF\n"), "{text}");
            for line in [
                format!("nuncio_ambassador_flows_open{{forward=\"web\"}} {live}"),
                "nuncio_ambassador_flows_total{forward=\"web\"} 1".to_owned(),
                "nuncio_ambassador_received_bytes_total{forward=\"web\"} 5".to_owned(),
                "nuncio_ambassador_sent_bytes_total{forward=\"web\"} 1".to_owned(),
                "nuncio_ambassador_connect_failures_total{forward=\"web\"} 0".to_owned(),
            ] {
                ensure!(
                    text.lines().any(|found| found == line),
                    "{line} is not in\n{text}"
                );
            }
            Ok(())
        }
    };
    metrics(1).await?;
    drop(stream);
    until("the flow has ended", || ambassador.flows().is_empty()).await?;
    metrics(0).await
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
    let huge = " ".repeat(5 << 20);
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
