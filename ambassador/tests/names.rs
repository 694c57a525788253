//! Names become endpoints, from a hosts file and from a name server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{EndpointSet, ForwardSpec, Host, Resolver, spec};
use tokio::net::UdpSocket;
use tokio::sync::watch;

mod support;
use support::*;

type Watch = watch::Receiver<Arc<EndpointSet>>;

async fn becomes(watch: &mut Watch, expected: &[&str]) -> Result<()> {
    let expected: Vec<SocketAddr> = expected
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?;
    let same = |set: &Arc<EndpointSet>| set.resolved && set.endpoints == expected;
    soon(watch.wait_for(same))
        .await
        .with_context(|| format!("{expected:?}"))??;
    Ok(())
}

fn hosts(resolver: &Resolver, hosts: &[(&str, u16)]) -> Watch {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|(host, port)| Host::new(*host, *port))
        .collect();
    resolver.hosts(&hosts)
}

#[tokio::test]
async fn addresses_are_known_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let absent = directory.path().join("absent");
    let resolver = Resolver::with_files(&absent, &absent);
    let set = hosts(&resolver, &[("::1", 2), ("127.0.0.1", 1)])
        .borrow()
        .clone();
    ensure!(set.resolved && set.endpoints == ["127.0.0.1:1".parse()?, "[::1]:2".parse()?]);
    let mut localhost = hosts(&resolver, &[("localhost", 1)]);
    becomes(&mut localhost, &["127.0.0.1:1"]).await
}

#[tokio::test]
async fn the_hosts_file_is_enough_and_is_read_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (file, absent) = (
        directory.path().join("hosts"),
        directory.path().join("absent"),
    );
    let resolver = Resolver::with_files(&file, &absent);
    // Docker writes the file before or after: both must do.
    let mut watch = hosts(&resolver, &[("redis", 6379), ("10.0.0.9", 1)]);
    ensure!(
        watch.borrow().endpoints == ["10.0.0.9:1".parse()?],
        "the address is used meanwhile"
    );
    fs::write(&file, "10.0.0.1 redis db\n")?;
    becomes(&mut watch, &["10.0.0.1:6379", "10.0.0.9:1"]).await?;
    fs::write(&file, "10.0.0.23 redis db\n")?;
    becomes(&mut watch, &["10.0.0.9:1", "10.0.0.23:6379"]).await?;
    // A name that is lost keeps its addresses.
    fs::write(&file, "10.0.0.5 other\n")?;
    let mut other = hosts(&resolver, &[("other", 1)]);
    becomes(&mut other, &["10.0.0.5:1"]).await?;
    becomes(&mut watch, &["10.0.0.9:1", "10.0.0.23:6379"]).await
}

#[tokio::test]
async fn those_who_want_the_same_share_a_watch() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let resolver = Resolver::with_files(directory.path(), directory.path());
    let first = hosts(&resolver, &[("redis", 1)]);
    ensure!(first.same_channel(&hosts(&resolver, &[("redis", 1)])));
    ensure!(!first.same_channel(&hosts(&resolver, &[("redis", 2)])));
    Ok(())
}

#[tokio::test]
async fn a_service_needs_a_registry() -> Result<()> {
    let spec = spec::from_urls("tcp://127.0.0.1:0", "service://redis")?;
    let error = Resolver::new()
        .forward(&spec)
        .err()
        .context("no registry")?
        .to_string();
    ensure!(
        error.contains("\"redis\"") && error.contains("--registry"),
        "{error}"
    );
    let fixed = EndpointSet::fixed(vec!["10.0.0.1:6379".parse()?]);
    let handed = fixed.clone();
    let resolver = Resolver::new().with_services(move |_, _| Ok(handed.clone()));
    ensure!(resolver.forward(&spec)?.upstreams.same_channel(&fixed));
    let spec = ForwardSpec {
        target: nuncio_ambassador::Target::Host(Vec::new()),
        ..spec
    };
    ensure!(
        resolver
            .forward(&spec)?
            .upstreams
            .borrow()
            .endpoints
            .is_empty()
    );
    Ok(())
}

/// A name server on a port of its own cannot be named in resolv.conf, so this one has an address
/// of its own within 127.0.0.0/8 and port 53. It answers each A query with 10.0.0.`last`.
async fn name_server(last: Arc<AtomicU8>) -> Result<IpAddr> {
    let unique = std::process::id().to_le_bytes();
    let address: IpAddr = [127, 53, unique[0], unique[1].max(1)].into();
    let socket = UdpSocket::bind((address, 53))
        .await
        .context("bind port 53 (needs root)")?;
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..bytes], last.load(Ordering::Relaxed)) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    Ok(address)
}

/// RFC 1035 §4: a header, the question as it came, and for type A one record of TTL 0.
fn answer(query: &[u8], last: u8) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let is_a = query.get(end - 4..end - 2)? == [0, 1];
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, last]);
    }
    Some(answer)
}

#[tokio::test]
async fn a_name_server_is_asked_again_and_may_change() -> Result<()> {
    let last = Arc::new(AtomicU8::new(1));
    let server = name_server(last.clone()).await?;
    let directory = tempfile::tempdir()?;
    let (file, conf) = (
        directory.path().join("hosts"),
        directory.path().join("resolv.conf"),
    );
    fs::write(&conf, "# none yet\n")?;
    let resolver = Resolver::with_files(&file, &conf);
    let mut watch = hosts(&resolver, &[("redis.example.org", 6379)]);
    ensure!(!watch.borrow().resolved);
    fs::write(
        &conf,
        format!("nameserver {server}\noptions timeout:1 attempts:2\n"),
    )?;
    becomes(&mut watch, &["10.0.0.1:6379"]).await?;
    last.store(2, Ordering::Relaxed);
    becomes(&mut watch, &["10.0.0.2:6379"]).await
}
