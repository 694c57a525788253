//! The control traffic of a mesh of many hosts: what each host costs the registry, and what the registry's changes cost each
//! host. Containers and packets are left out.
//!
//! The registry is nuncio's own, in a process by itself. Each simulated host has what a real one has there: its records, a
//! lease that is kept alive, and a watch of everything. A hundred hosts share a connection, since ten thousand of them do not
//! fit one machine's ports and memory; one host is a real one, with its whole catalog.

mod registry;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use nuncio_registry::{Catalog, ConnectOptions, Mirror, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use registry::Server;

pub(crate) use registry::serve;

const MOST_HOSTS: u32 = 10_000;
const MOST_ENDPOINTS: u32 = 200_000;
const MOST_CHANGES: u32 = 1_000;
/// Hosts of one connection.
const SHARE: u32 = 100;
/// Seconds that a host's lease lives, and in which it is kept alive three times.
const LEASE: i64 = 10;
/// Records of one transaction.
const BATCH: usize = 100;
/// All that nuncio keeps in a registry.
const ROOT: &str = "/nuncio/v1/";
/// How long anything may take, before it is taken for never.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) hosts: u32,
    /// Containers of all of them.
    pub(crate) endpoints: u32,
    /// Containers that change, one after the other.
    pub(crate) changes: u32,
    /// How long nothing changes.
    pub(crate) quiet: Duration,
}

/// What one of the hosts has seen: a change, and when.
struct Seen {
    change: u32,
    bytes: usize,
    at: Instant,
}

/// Simulates it, and prints a line for each figure.
pub(crate) fn run(load: Load) -> Result<()> {
    let Load {
        hosts,
        endpoints,
        changes,
        ..
    } = load;
    ensure!(
        (1..=MOST_HOSTS).contains(&hosts),
        "{hosts} hosts: give 1 to {MOST_HOSTS}"
    );
    ensure!(
        endpoints <= MOST_ENDPOINTS,
        "{endpoints} endpoints: give {MOST_ENDPOINTS} at most"
    );
    ensure!(
        (1..=MOST_CHANGES).contains(&changes),
        "{changes} changes: give 1 to {MOST_CHANGES}"
    );
    tokio::runtime::Runtime::new()?.block_on(simulate(load))
}

async fn simulate(load: Load) -> Result<()> {
    let server = Server::start().await?;
    println!(
        "hosts {}\nendpoints {}\nchanges {}",
        load.hosts, load.endpoints, load.changes
    );
    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let mut keepers = JoinSet::new();
    let mut clients = Vec::new();
    for first in (0..load.hosts).step_by(SHARE as usize) {
        let hosts = first..load.hosts.min(first + SHARE);
        let mut client = Client::connect([server.url()], None).await?;
        let mut leases = Vec::new();
        for host in hosts {
            let lease = client.lease_grant(LEASE, None).await?.id();
            enter(&mut client, host, lease, load).await?;
            leases.push(lease);
        }
        keepers.spawn(keep_alive(client.clone(), leases, stopped.clone()));
        clients.push(client);
    }
    println!("enter_seconds {:.1}", began.elapsed().as_secs_f64());
    list(&server).await?;
    let (tell, seen) = mpsc::channel(4096);
    let mut followers = JoinSet::new();
    for (share, client) in clients.iter_mut().enumerate() {
        let first = share as u32 * SHARE;
        for _ in first..load.hosts.min(first + SHARE) {
            let options = WatchOptions::new().with_prefix().with_progress_notify();
            let stream = client.watch(ROOT, Some(options)).await?;
            followers.spawn(follow(stream, tell.clone()));
        }
    }
    drop(tell);
    let mirror = Mirror::start(connect(&server).await?, None);
    let mut catalog = mirror.catalog();
    let known =
        |catalog: &std::sync::Arc<Catalog>| catalog.endpoints.len() as u32 >= load.endpoints;
    timeout(PATIENCE, catalog.wait_for(known))
        .await
        .context("one host learns of all")??;
    quiet(&server, load).await?;
    change(&server, load, &mut clients[0], seen).await?;
    println!("registry_megabytes {:.0}", server.memory()?);
    stop.send_replace(true);
    let mut lost = 0;
    while let Some(kept) = keepers.join_next().await {
        lost += kept??;
    }
    println!("keepalives_lost {lost}");
    mirror.stop().await;
    Ok(())
}

/// What a host writes when it comes: its record and its life, a block, and its containers.
async fn enter(client: &mut Client, host: u32, lease: i64, load: Load) -> Result<()> {
    let share = load.endpoints / load.hosts + u32::from(host < load.endpoints % load.hosts);
    let [_, _, high, low] = host.to_be_bytes();
    let node = format!("{host:032x}");
    let mut records = vec![
        (
            format!("{ROOT}nodes/{node}"),
            format!(
                r#"{{"v":1,"id":"{node}","name":"host-{host}","address":"198.18.{high}.{low}","mac":"02:00:01:00:{high:02x}:{low:02x}","port":4789,"incarnation":1,"wireguard":null,"fallback":null}}"#
            ),
            false,
        ),
        (
            format!("{ROOT}blocks/{:064x}/{}", 1, block(host)),
            format!(
                r#"{{"v":1,"network":"{:064x}","cidr":"{}","node":"{node}","incarnation":1}}"#,
                1,
                block(host)
            ),
            false,
        ),
    ];
    records.extend((0..share).map(|number| {
        let (key, value) = endpoint(host, number, 0);
        (key, value, true)
    }));
    records.push((format!("{ROOT}alive/{node}"), r#"{"v":1}"#.to_owned(), true));
    for batch in records.chunks(BATCH) {
        let puts = batch.iter().map(|(key, value, leased)| {
            let options = leased.then(|| PutOptions::new().with_lease(lease));
            TxnOp::put(key.as_str(), value.as_str(), options)
        });
        client
            .txn(Txn::new().and_then(puts.collect::<Vec<_>>()))
            .await?;
    }
    Ok(())
}

/// A /24 of 10.0.0.0/8 for each host.
fn block(host: u32) -> String {
    let [_, _, high, low] = host.to_be_bytes();
    format!("10.{high}.{low}.0/24")
}

/// A container as its host publishes it; the `change` is what tells one of its records from the next.
fn endpoint(host: u32, number: u32, change: u32) -> (String, String) {
    let [_, _, high, low] = host.to_be_bytes();
    let last = 2 + number % 250;
    let id = format!("{host:08x}{number:056x}");
    let key = format!("{ROOT}endpoints/{:064x}/{id}", 1);
    let value = format!(
        r#"{{"v":1,"network":"{:064x}","id":"{id}","name":"c{host}-{number}","node":"{host:032x}","node_name":"host-{host}","address":"10.{high}.{low}.{last}","address_v6":null,"aliases":[],"ports":[{{"port":80,"protocol":"tcp"}}],"labels":{{"change":"{change}"}},"services":[],"health":null}}"#,
        1
    );
    (key, value)
}

/// Keeps leases alive as a daemon does; how many were lost.
async fn keep_alive(
    mut client: Client,
    leases: Vec<i64>,
    mut stopped: watch::Receiver<bool>,
) -> Result<usize> {
    let mut kept = Vec::new();
    for lease in &leases {
        kept.push(client.lease_keep_alive(*lease).await?);
    }
    let mut lost = 0;
    let beat = Duration::from_secs(LEASE as u64) / 3;
    loop {
        tokio::select! {
            _ = stopped.changed() => return Ok(lost),
            () = sleep(beat) => {}
        }
        for (keeper, answers) in &mut kept {
            keeper.keep_alive().await?;
            let answer = answers.message().await?;
            lost += usize::from(answer.is_none_or(|answer| answer.ttl() <= 0));
        }
    }
}

/// Tells of each change that comes, until its watch ends.
async fn follow(mut stream: WatchStream, tell: mpsc::Sender<Seen>) -> Result<()> {
    while let Some(response) = stream.message().await? {
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let text = std::str::from_utf8(kv.value()).unwrap_or_default();
            let number = text
                .split_once(r#""change":""#)
                .and_then(|(_, rest)| rest.split('"').next());
            let Some(change) = number.and_then(|number| number.parse().ok()) else {
                continue;
            };
            let seen = Seen {
                change,
                bytes: kv.key().len() + kv.value().len(),
                at: Instant::now(),
            };
            if tell.send(seen).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn connect(server: &Server) -> Result<Registry> {
    let options = ConnectOptions {
        endpoints: vec![server.url()],
        timeout: PATIENCE,
        ..ConnectOptions::default()
    };
    Ok(Registry::connect(&options).await?)
}

/// What one host gets when it comes, or lists everything again.
async fn list(server: &Server) -> Result<()> {
    let mut client = Client::connect([server.url()], None).await?;
    let began = Instant::now();
    let (mut from, mut keys, mut bytes) = (ROOT.to_owned(), 0, 0);
    loop {
        let options = etcd_client::GetOptions::new()
            .with_range("/nuncio/v2/")
            .with_limit(1000);
        let page = client.get(from.as_str(), Some(options)).await?;
        keys += page.kvs().len();
        bytes += page
            .kvs()
            .iter()
            .map(|kv| kv.key().len() + kv.value().len())
            .sum::<usize>();
        match page.kvs().last() {
            Some(last) if page.more() => from = format!("{}\0", last.key_str()?),
            _ => break,
        }
    }
    println!(
        "list_keys {keys}\nlist_megabytes {:.2}\nlist_seconds {:.2}",
        bytes as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Lets nothing happen but what happens always: leases are kept alive.
async fn quiet(server: &Server, load: Load) -> Result<()> {
    sleep(Duration::from_secs(2)).await; // what the watches cost as they begin is not this
    let before = server.cpu()?;
    sleep(load.quiet).await;
    let used = server.cpu()? - before;
    let keepalives = f64::from(load.hosts) * 3.0 / LEASE as f64;
    println!(
        "keepalives_per_second {keepalives:.0}\nquiet_registry_cpu_percent {:.1}",
        100.0 * used / load.quiet.as_secs_f64()
    );
    Ok(())
}

/// Changes containers, one after the other, each once all hosts have seen the last one.
async fn change(
    server: &Server,
    load: Load,
    client: &mut Client,
    mut seen: mpsc::Receiver<Seen>,
) -> Result<()> {
    let (mut last, mut bytes) = (Vec::new(), 0);
    let before = server.cpu()?;
    for change in 1..=load.changes {
        let (key, value) = endpoint(0, 0, change);
        let began = Instant::now();
        client.put(key, value, None).await?;
        let mut all = 0;
        let mut latest = began;
        while all < load.hosts {
            let one = timeout(PATIENCE, seen.recv())
                .await
                .context("all see a change")?;
            let one = one.context("the watches have ended")?;
            if one.change == change {
                (all, bytes) = (all + 1, bytes + one.bytes);
                latest = latest.max(one.at);
            }
        }
        last.push(latest.duration_since(began).as_secs_f64() * 1e3);
    }
    let used = server.cpu()? - before;
    last.sort_by(f64::total_cmp);
    let at = |part: f64| last[((last.len() - 1) as f64 * part).round() as usize];
    let changes = f64::from(load.changes);
    println!(
        "change_seen_by_all_p50_ms {:.1}\nchange_seen_by_all_p99_ms {:.1}\nchange_registry_cpu_ms {:.2}\nchange_bytes_per_host {:.0}",
        at(0.5),
        at(0.99),
        used * 1e3 / changes,
        bytes as f64 / changes / f64::from(load.hosts)
    );
    Ok(())
}

/// Where a registry was told to listen.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.trim().parse().ok()
}
