//! A client that measures a registry, etcd or the embedded one, for `bench/registry.sh`; and serves the embedded one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etcd_client::{Client, WatchOptions};
use nuncio_registry::{ConnectOptions, Mirror, Registry, ServiceRecord, embedded};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const USAGE: &str = "registry_load serve DIR ADDRESS | puts URL CLIENTS SECONDS | fanout URL WATCHERS PUTS | fill URL KEYS | \
                     seen URL NODES CHANGES | storm URL CLIENTS";

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", dir, address] => {
            let bound = embedded::Server::open(Path::new(dir))?
                .bind(address.parse()?)
                .await?;
            bound.serve(CancellationToken::new()).await;
            Ok(())
        }
        ["puts", url, clients, seconds] => puts(url, clients.parse()?, seconds.parse()?).await,
        ["fanout", url, watchers, puts] => fanout(url, watchers.parse()?, puts.parse()?).await,
        ["fill", url, keys] => fill(url, keys.parse()?).await,
        ["seen", url, nodes, changes] => seen(url, nodes.parse()?, changes.parse()?).await,
        ["storm", url, clients] => storm(url, clients.parse()?).await,
        _ => bail!("usage: {USAGE}"),
    }
}

/// The value below which a share of `sorted` lies.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len().saturating_sub(1)) as f64 * share;
    sorted
        .get(place.round() as usize)
        .copied()
        .unwrap_or_default()
}

fn tell(what: &str, mut times: Vec<Duration>, elapsed: Duration) {
    times.sort_unstable();
    println!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        times.len() as f64 / elapsed.as_secs_f64(),
        quantile(&times, 0.5).as_secs_f64() * 1e3,
        quantile(&times, 0.99).as_secs_f64() * 1e3,
        quantile(&times, 1.0).as_secs_f64() * 1e3,
    );
}

/// Each client has a connection, and one put under way at a time, of 256 bytes to one of a hundred keys of its own.
async fn puts(url: &str, clients: usize, seconds: u64) -> Result<()> {
    let begin = Arc::new(Barrier::new(clients + 1));
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::connect([url], None).await?;
        client.get("warm", None).await?;
        let begin = Arc::clone(&begin);
        tasks.spawn(async move {
            begin.wait().await;
            let (started, mut times) = (Instant::now(), Vec::new());
            while started.elapsed() < Duration::from_secs(seconds) {
                let asked = Instant::now();
                let key = format!("bench/{number}/{}", times.len() % 100);
                client.put(key, vec![b'x'; 256], None).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    begin.wait().await;
    let started = Instant::now();
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    tell(&format!("puts of {clients}"), all, started.elapsed());
    Ok(())
}

/// Watchers, ten to a connection, are told of each of `puts` puts; the next one is made when all have been.
async fn fanout(url: &str, watchers: usize, puts: usize) -> Result<()> {
    const SHARED: usize = 10;
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let mut client = Client::connect([url], None).await?;
    for number in 0..watchers {
        if number % SHARED == 0 {
            client = Client::connect([url], None).await?;
        }
        let options = WatchOptions::new().with_prefix();
        let mut watch = client.watch("fanout/", Some(options)).await?;
        watch.message().await?.context("created")?;
        let heard = heard.clone();
        tasks.spawn(async move {
            while let Some(told) = watch.message().await? {
                for _ in told.events() {
                    heard.send(()).context("nobody counts")?;
                }
            }
            anyhow::Ok(())
        });
    }
    let (started, mut times) = (Instant::now(), Vec::new());
    for number in 0..puts {
        let put = Instant::now();
        client
            .put(format!("fanout/{number}"), vec![b'x'; 256], None)
            .await?;
        for _ in 0..watchers {
            hears.recv().await.context("watchers")?;
        }
        times.push(put.elapsed());
    }
    let elapsed = started.elapsed();
    println!(
        "events told: {:.0}/s",
        (watchers * puts) as f64 / elapsed.as_secs_f64()
    );
    tell(
        &format!("puts until all of {watchers} know"),
        times,
        elapsed,
    );
    Ok(())
}

async fn fill(url: &str, keys: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for part in 0..64 {
        let mut client = Client::connect([url], None).await?;
        tasks.spawn(async move {
            for key in (part..keys).step_by(64) {
                client
                    .put(format!("fill/{key:08}"), vec![b'x'; 256], None)
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn service(number: usize) -> ServiceRecord {
    ServiceRecord::new(format!("bench-{number}"), Vec::new())
}

async fn connect(url: &str) -> Result<Registry> {
    let options = ConnectOptions {
        endpoints: vec![url.to_owned()],
        timeout: Duration::from_secs(30),
        ..ConnectOptions::default()
    };
    Ok(Registry::connect(&options).await?)
}

/// How long a change takes until the catalogs of all nodes show it; twenty changes a second.
async fn seen(url: &str, nodes: usize, changes: usize) -> Result<()> {
    let mut mirrors = Vec::new();
    for _ in 0..nodes {
        mirrors.push(Mirror::start(connect(url).await?, None));
    }
    let registry = connect(url).await?;
    let (started, mut times) = (Instant::now(), Vec::new());
    for number in 0..changes {
        let service = service(number);
        let put = Instant::now();
        registry.put_service(&service).await?;
        for mirror in &mirrors {
            let mut catalog = mirror.catalog();
            catalog
                .wait_for(|it| it.services.contains_key(&service.name))
                .await?;
        }
        times.push(put.elapsed());
        registry.remove_service(&service.name).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tell(
        &format!("changes until all of {nodes} nodes show them"),
        times,
        started.elapsed(),
    );
    Ok(())
}

/// Clients whose connections are all lost at once, by a server that is killed and started by `bench/registry.sh` while this
/// waits for a line; how long until all know what is there again.
async fn storm(url: &str, clients: usize) -> Result<()> {
    let mut mirrors = Vec::new();
    for _ in 0..clients {
        mirrors.push(Mirror::start(connect(url).await?, None));
    }
    for mirror in &mirrors {
        mirror
            .catalog()
            .wait_for(|it| it.revision > 0 && it.stale.is_none())
            .await?;
    }
    println!("connected");
    for mirror in &mirrors {
        mirror.catalog().wait_for(|it| it.stale.is_some()).await?;
    }
    println!("lost");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let (back, mut times) = (Instant::now(), Vec::new());
    for mirror in &mirrors {
        mirror.catalog().wait_for(|it| it.stale.is_none()).await?;
        times.push(back.elapsed());
    }
    tell(&format!("{clients} clients back"), times, back.elapsed());
    Ok(())
}
