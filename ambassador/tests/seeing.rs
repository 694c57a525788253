//! Lists, ends, taps and explains flows, by way of the HTTP side.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::admin::{Admin, admin};
use support::*;

/// Forwards `a` and `b`, both to the same server.
async fn two() -> Result<(Admin, TcpListener)> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let to = [server.local_addr()?];
    let admin = admin().await?;
    admin
        .ambassador()
        .apply(vec![tcp("a", &to), tcp("b", &to)])
        .await?;
    Ok((admin, server))
}

async fn flow(admin: &Admin, server: &TcpListener, at: usize) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(local(admin.ambassador(), at)).await?;
    let before = admin.ambassador().flows().len();
    let (stream, _) = soon(server.accept()).await??;
    let address = client.local_addr()?;
    let listed = || {
        admin
            .ambassador()
            .flows()
            .iter()
            .any(|flow| flow.client == address)
    };
    until(&format!("the flow is open, besides {before}"), listed).await?;
    Ok((client, stream))
}

fn is_reset(read: std::io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_are_listed_and_ended_as_asked() -> Result<()> {
    let (admin, server) = two().await?;
    let (mut first, mut first_there) = flow(&admin, &server, 0).await?;
    let (mut second, mut second_there) = flow(&admin, &server, 1).await?;
    let (_, all) = admin.json("GET", "/flows").await?;
    let [one, _] = &all.as_array().context("a list")?[..] else {
        anyhow::bail!("two flows, not {all}");
    };
    for (key, value) in [
        ("forward", json!("a")),
        ("protocol", json!("tcp")),
        ("client", json!(first.local_addr()?)),
        ("local", json!(local(admin.ambassador(), 0))),
        ("endpoint", json!(server.local_addr()?)),
        ("upstream", json!(server.local_addr()?)),
        ("datapath", json!("copy")),
        ("reason", json!("not bulk")),
    ] {
        ensure!(one[key] == value, "{key} of {one}");
    }
    ensure!(one["duration"].as_f64() > Some(0.0) && one["connect_time"].as_f64() > Some(0.0));

    let client = second.local_addr()?;
    let names = async |query: &str| -> Result<Vec<Value>> {
        let (status, found) = admin.json("GET", &format!("/flows?{query}")).await?;
        ensure!(status == 200, "{found}");
        let found = found.as_array().context("a list")?.clone();
        Ok(found
            .into_iter()
            .map(|flow| flow["forward"].clone())
            .collect())
    };
    ensure!(names("forward=b").await? == ["b"]);
    ensure!(names(&format!("client={client}")).await? == ["b"]);
    ensure!(names(&format!("endpoint={}", server.local_addr()?)).await? == ["a", "b"]);
    ensure!(names("endpoint=127.0.0.9").await?.is_empty());
    ensure!(names(&format!("id={}", one["id"])).await? == ["a"]);

    ensure!(admin.json("DELETE", "/flows?forward=none").await?.1 == json!({ "ended": 0 }));
    ensure!(admin.json("DELETE", "/flows?forward=a").await?.1 == json!({ "ended": 1 }));
    let mut byte = [0];
    ensure!(
        is_reset(soon(first.read(&mut byte)).await?),
        "the client sees a reset"
    );
    ensure!(
        is_reset(soon(first_there.read(&mut byte)).await?),
        "the server sees a reset"
    );
    second.write_all(b"x").await?;
    soon(second_there.read_exact(&mut byte)).await??;
    ensure!(byte == *b"x", "the other goes on");
    until("it is gone", || admin.ambassador().flows().len() == 1).await
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_and_ends_nothing() -> Result<()> {
    let (admin, server) = two().await?;
    let _flow = flow(&admin, &server, 0).await?;
    for (method, path, says) in [
        ("DELETE", "/flows", "say which flows to end"),
        ("DELETE", "/flows?", "say which flows to end"),
        ("DELETE", "/flows?colour=red", "colour"),
        ("DELETE", "/flows?endpoint=redis:6379", "expected ADDR:PORT"),
        ("DELETE", "/flows?id=x", "id"),
        ("GET", "/flows?client=", "expected ADDR:PORT"),
        ("GET", "/tap?colour=red", "colour"),
        ("GET", "/explain?colour=red", "colour"),
    ] {
        let (status, body) = admin.json(method, path).await?;
        ensure!(status == 400, "{method} {path}: {status} {body}");
        let message = body["message"].as_str().context("a message")?;
        ensure!(message.contains(says), "{method} {path}: {message}");
    }
    ensure!(admin.ambassador().flows().len() == 1);
    Ok(())
}

/// Who reads `/tap`, its head being read.
async fn tap(admin: &Admin, query: &str) -> Result<Lines<BufReader<OwnedReadHalf>>> {
    let (stream, sending) = admin
        .send("GET", &format!("/tap{query}"), "")
        .await?
        .into_split();
    // Closing this half would mean that the answer is not wanted.
    sending.forget();
    let mut lines = BufReader::new(stream).lines();
    while !soon(lines.next_line())
        .await??
        .context("a head")?
        .is_empty()
    {}
    Ok(lines)
}

/// The next event, past the lengths of chunks.
async fn event(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> Result<Value> {
    loop {
        let line = soon(lines.next_line()).await??.context("an event")?;
        if line.starts_with('{') {
            return Ok(serde_json::from_str(&line)?);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_shows_flows_as_they_come() -> Result<()> {
    let (admin, server) = two().await?;
    let mut all = tap(&admin, "").await?;
    let mut only_b = tap(&admin, "?forward=b").await?;
    let (client, _there) = flow(&admin, &server, 0).await?;
    let begin = event(&mut all).await?;
    ensure!(
        begin["event"] == "begin" && begin["forward"] == "a",
        "{begin}"
    );
    ensure!(
        begin["client"] == json!(client.local_addr()?) && begin["end"].is_null(),
        "{begin}"
    );
    reset(client)?;
    let end = event(&mut all).await?;
    ensure!(end["event"] == "end" && end["id"] == begin["id"], "{end}");
    ensure!(end["end"] == "reset" && end["side"] == "client", "{end}");
    ensure!(end["errno"] == nix::libc::ECONNRESET, "{end}");
    let _b = flow(&admin, &server, 1).await?;
    let begin = event(&mut only_b).await?;
    ensure!(
        begin["event"] == "begin" && begin["forward"] == "b",
        "{begin}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_is_refused_is_told_as_an_end() -> Result<()> {
    let (_held, dead) = refusing("127.0.0.1:0")?;
    let admin = admin().await?;
    admin.ambassador().apply(vec![tcp("dead", &[dead])]).await?;
    let mut events = tap(&admin, "").await?;
    // The reset may come before connecting returns.
    let _ = TcpStream::connect(local(admin.ambassador(), 0)).await;
    let end = event(&mut events).await?;
    ensure!(end["event"] == "end" && end["end"] == "refused", "{end}");
    ensure!(
        end["side"] == "upstream" && end["endpoint"] == json!(dead),
        "{end}"
    );
    ensure!(end["errno"] == nix::libc::ECONNREFUSED, "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_is_explained() -> Result<()> {
    let (_held, dead) = refusing("127.0.0.1:0")?;
    let alive = naming_server(b'a').await?;
    let admin = admin().await?;
    let to = [format!("tcp://{dead}"), format!("tcp://{alive}")];
    let config = json!([
        { "name": "link/redis/6379", "listen": "tcp://127.0.0.1:0", "to": to },
        { "name": "other", "listen": "tcp://127.0.0.1:0", "to": ["service://known"] },
        { "name": "lost", "listen": "tcp://127.0.0.1:0", "to": ["tcp://nothing.invalid:1"] },
    ]);
    ensure!(admin.put(&config).await?.0 == 204);
    let at = local(admin.ambassador(), 0);
    let failed = || {
        let endpoints = &admin.ambassador().endpoints()[0].1;
        endpoints.iter().any(|view| view.last_failure.is_some())
    };
    let mut tries = 0;
    while !failed() {
        who(at).await?;
        tries += 1;
        ensure!(tries < 1000, "the dead one is never tried");
    }
    for asked in [
        "link/redis/6379",
        "redis",
        &at.port().to_string(),
        &dead.ip().to_string(),
    ] {
        let (status, told) = admin
            .json("GET", &format!("/explain?forward={asked}"))
            .await?;
        ensure!(status == 200 && told[1].is_null(), "{asked}: {told}");
        let told = &told[0];
        ensure!(
            told["forward"] == "link/redis/6379" && told["target"] == json!(to),
            "{told}"
        );
        ensure!(told["next"]["endpoint"] == json!(alive), "{told}");
        ensure!(
            told["known"]["answered"].is_null() && told["resolved"] == true,
            "{told}"
        );
        let endpoints = told["endpoints"].as_array().context("a list")?;
        let of = |address| endpoints.iter().find(|e| e["address"] == json!(address));
        let (dead, alive) = (of(dead).context("dead")?, of(alive).context("alive")?);
        ensure!(
            alive["state"] == "up" && dead["state"] == "ejected",
            "{told}"
        );
        let error = dead["last_failure"]["error"]
            .as_str()
            .context("a failure")?;
        ensure!(error.contains("os error 111"), "{error}");
    }
    let (_, told) = admin.json("GET", "/explain?forward=known").await?;
    ensure!(
        told[0]["forward"] == "other",
        "a service names it too: {told}"
    );
    let lost = async || anyhow::Ok(admin.json("GET", "/explain?forward=lost").await?.1[0].take());
    let mut told = lost().await?;
    while told["known"]["failure"].is_null() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        told = lost().await?;
    }
    ensure!(
        told["resolved"] == false && told["next"]["endpoint"].is_null(),
        "{told}"
    );
    let error = told["known"]["failure"]["error"]
        .as_str()
        .context("an error")?;
    ensure!(error.contains("nothing.invalid"), "{error}");
    let (status, body) = admin.json("GET", "/explain?forward=nobody").await?;
    let message = body["message"].as_str().context("a message")?;
    ensure!(
        status == 404 && message.contains("link/redis/6379"),
        "{status} {body}"
    );
    ensure!(
        admin
            .json("GET", "/explain")
            .await?
            .1
            .as_array()
            .map(Vec::len)
            == Some(3)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_names_are_explained() -> Result<()> {
    let (one, two) = (naming_server(b'a').await?, naming_server(b'b').await?);
    let admin = admin().await?;
    let config = json!([{
        "name": "web", "listen": "tcp://127.0.0.1:0", "sni": {
            "*.example.org": [format!("tcp://{one}")],
            "db.example.org": [format!("tcp://{two}")],
            "lost.example.net": ["tcp://nothing.invalid:1"],
        },
    }]);
    ensure!(admin.put(&config).await?.0 == 204);
    for asked in [
        "web",
        "a.example.org",
        "*.example.org",
        "lost.example.net",
        &two.ip().to_string(),
    ] {
        let (status, told) = admin
            .json("GET", &format!("/explain?forward={asked}"))
            .await?;
        ensure!(status == 200, "{asked}: {told}");
        let told = &told[0];
        let why = told["next"]["why"].as_str().context("why")?;
        ensure!(
            told["next"]["endpoint"].is_null() && why.contains("refused"),
            "who asks for no name: {told}"
        );
        let of = |name: &str| {
            let mut names = told["names"].as_array().into_iter().flatten();
            names.find(|told| told["name"] == name)
        };
        for (name, to) in [("*.example.org", one), ("db.example.org", two)] {
            let told = of(name).with_context(|| format!("no {name} in {told}"))?;
            ensure!(told["next"]["endpoint"] == json!(to), "{told}");
            ensure!(told["endpoints"][0]["address"] == json!(to), "{told}");
            ensure!(told["target"] == json!([format!("tcp://{to}")]), "{told}");
        }
        let lost = of("lost.example.net").context("the one that is lost")?;
        ensure!(lost["resolved"] == false, "{lost}");
    }
    ensure!(admin.json("GET", "/explain?forward=example.com").await?.0 == 404);
    Ok(())
}
