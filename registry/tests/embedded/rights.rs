//! Hosts that are known: what each may write, and that nothing is left of one that may speak no more.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use ipnetwork::Ipv4Network;
use nuncio_registry::embedded::{Client, Connection, Server};
use nuncio_registry::{
    AckRecord, ConnectOptions, DesiredKind, DesiredRecord, EndpointRecord, LeaderRecord,
    LeaderWrite, NetworkRequest, NodeRecord, Presence, Registry, TaskRecord, TaskStatusRecord,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, loopback};

/// A server with a door for each host.
struct Known {
    connections: mpsc::Sender<Connection>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Known {
    fn start(dir: &Path) -> Result<Self> {
        let server = Server::open(dir)?;
        let (connections, incoming) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(loopback(), incoming, stop.clone()));
        Ok(Self {
            connections,
            stop,
            task,
        })
    }

    /// Where whoever connects is the host `node`, until it may speak no more.
    async fn door(&self, node: &str, unlimited: bool, ended: CancellationToken) -> Result<String> {
        let listener = TcpListener::bind(loopback()).await?;
        let address = listener.local_addr()?;
        let (connections, node) = (self.connections.clone(), node.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let client = Client {
                    node: node.clone(),
                    unlimited,
                    ended: ended.clone(),
                };
                let sent = connections.send(Connection::new(stream, client)).await;
                if sent.is_err() {
                    break;
                }
            }
        });
        Ok(address.to_string())
    }

    async fn host(&self, node: &str, unlimited: bool) -> Result<Registry> {
        let door = self.door(node, unlimited, CancellationToken::new()).await?;
        connect(door).await
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

async fn connect(door: String) -> Result<Registry> {
    let options = ConnectOptions {
        endpoints: vec![door],
        ..ConnectOptions::default()
    };
    Ok(Registry::connect(&options).await?)
}

fn record(node: &str, address: [u8; 4]) -> NodeRecord {
    NodeRecord {
        id: node.to_owned(),
        name: format!("host-{node}"),
        address: address.into(),
        mac: [2, 0, 0, 0, 0, address[3]],
        port: 4789,
        incarnation: 1,
        wireguard: None,
        fallback: None,
        links: None,
        peek: None,
        machine: None,
    }
}

fn endpoint(network: &str, id: &str, node: &str) -> EndpointRecord {
    EndpointRecord {
        network: network.to_owned(),
        id: id.to_owned(),
        name: id.to_owned(),
        node: node.to_owned(),
        node_name: String::new(),
        address: [10, 0, 0, 2].into(),
        address_v6: None,
        aliases: Vec::new(),
        ports: Vec::new(),
        labels: BTreeMap::new(),
        services: Vec::new(),
        health: nuncio_registry::EndpointHealth::Unchecked,
    }
}

async fn published(registry: &Registry, endpoint: EndpointRecord) -> Result<Presence> {
    let node = endpoint.node.clone();
    let presence = Presence::start(registry.clone(), &node, [endpoint]);
    tokio::time::timeout(PATIENCE, presence.settled()).await?;
    Ok(presence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_does_all_that_the_model_needs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let known = Known::start(dir.path())?;
    let (a, b) = (known.host("a", false).await?, known.host("b", false).await?);
    a.register_node(&record("a", [192, 0, 2, 2])).await?;
    b.register_node(&record("b", [192, 0, 2, 3])).await?;
    let subnet: Ipv4Network = "10.1.0.0/16".parse()?;
    let request = NetworkRequest {
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        subnet: Some(subnet),
        ..NetworkRequest::default()
    };
    let network = a.create_network(request).await?;
    // Who is late finds its claim taken, which is no offence, and makes another.
    let mut claiming = JoinSet::new();
    for (registry, node) in [(&a, "a"), (&b, "b")] {
        for _ in 0..10 {
            let (registry, network) = (registry.clone(), network.clone());
            claiming.spawn(async move {
                registry
                    .claim_block(&network, subnet.into(), node, 1, &[])
                    .await
            });
        }
    }
    while let Some(claimed) = claiming.join_next().await {
        claimed??;
    }
    let own = b
        .claim_block(&network, network.subnet.into(), "b", 1, &[])
        .await?;
    b.release_block(&own).await?;
    b.claim_block(&network, network.subnet.into(), "b", 1, &[])
        .await?;
    let presence = published(&b, endpoint(&network.id, "c1", "b")).await?;
    let answers = b.clone();
    let answering =
        tokio::spawn(async move { answers.answer("b", |ask| async move { ask + "!" }).await });
    assert_eq!(a.ask("b", "well", PATIENCE).await?, "well!");
    answering.abort();
    // Neither does another's container stop who removes a network, nor is that allowed.
    let in_use = a.remove_network(&network.id).await.unwrap_err();
    assert!(in_use.to_string().contains("active endpoints"), "{in_use}");
    presence.shutdown().await;
    a.remove_network(&network.id).await?;
    assert!(a.networks().await?.is_empty());
    known.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_writes_nothing_that_is_anothers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let known = Known::start(dir.path())?;
    let manager = known.host("manager", true).await?;
    let b = known.host("b", false).await?;
    b.register_node(&record("b", [192, 0, 2, 3])).await?;
    let request = NetworkRequest {
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![("10.1.0.0/16".parse()?, 24)],
        ..NetworkRequest::default()
    };
    let network = manager.create_network(request).await?;
    let block = b
        .claim_block(&network, network.subnet.into(), "b", 1, &[])
        .await?;
    let presence = published(&b, endpoint(&network.id, "c1", "b")).await?;
    let lease = presence.state().borrow().lease.context("b is alive")?;

    // By the protocol itself, for the model does nothing of this.
    let door = known.door("a", false, CancellationToken::new()).await?;
    let mut a = etcd_client::Client::connect([door], None).await?;
    let (mut kv, mut leases) = (a.kv_client(), a.lease_client());
    let block_key = format!("/nuncio/v1/blocks/{}/{}", network.id, block.cidr);
    let theirs = format!("/nuncio/v1/endpoints/{}/c1", network.id);
    let new = format!("/nuncio/v1/endpoints/{}/c2", network.id);
    let network_key = format!("/nuncio/v1/networks/{}", network.id);
    for (key, value) in [
        ("/nuncio/v1/nodes/b", "{}"),
        ("/nuncio/v1/alive/b", "{}"),
        (&theirs, r#"{"node":"a"}"#),
        (&new, r#"{"node":"b"}"#),
        (&new, "no JSON"),
        (&block_key, r#"{"node":"a"}"#),
        (&network_key, "{}"),
        ("/nuncio/v1/answers/1", "{}"),
        ("/nuncio/v1/asks/b/1", "without a lease"),
        ("/nuncio/v1/leader", "a"),
        ("/nuncio/v2/nodes/a", "{}"),
        ("elsewhere", ""),
    ] {
        let error = kv.put(key, value, None).await.unwrap_err().to_string();
        assert!(error.contains("node a may not write"), "{key}: {error}");
        // Nor hidden in a transaction within another one.
        let always = Compare::version("elsewhere", CompareOp::Equal, 0);
        let never = Compare::version("elsewhere", CompareOp::Greater, 0);
        let inner = Txn::new().when([never]);
        let inner = inner.or_else([TxnOp::put(key, value, None)]);
        let txn = Txn::new().when([always]).and_then([TxnOp::txn(inner)]);
        let error = kv.txn(txn).await.unwrap_err().to_string();
        assert!(error.contains("node a may not write"), "{key}: {error}");
    }
    let unchanged = PutOptions::new().with_ignore_value();
    assert!(kv.put(&*theirs, "", Some(unchanged)).await.is_err());
    for key in [
        "/nuncio/v1/nodes/b",
        "/nuncio/v1/alive/b",
        &theirs,
        &block_key,
        &network_key,
    ] {
        assert!(kv.delete(key, None).await.is_err(), "{key}");
    }
    let all = etcd_client::DeleteOptions::new().with_all_keys();
    assert!(kv.delete("", Some(all)).await.is_err());
    assert!(kv.compact(1, None).await.is_err());
    assert!(leases.revoke(lease).await.is_err());
    assert!(leases.keep_alive(lease).await.is_err());
    assert!(a.lock("l", None).await.is_err());
    assert!(a.leader("l").await.is_err());
    // What is its own it may write, and read everything.
    kv.put("/nuncio/v1/alive/a", "{}", None).await?;
    kv.put(&*new, r#"{"node":"a"}"#, None).await?;
    kv.delete(&*new, None).await?;
    assert_eq!(kv.get(&*theirs, None).await?.count(), 1);
    known.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_the_leaders_and_their_states_their_hosts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let known = Known::start(dir.path())?;
    let (a, b) = (known.host("a", false).await?, known.host("b", false).await?);
    let mut leases = Vec::new();
    let mut living = Vec::new();
    for (registry, node) in [(&a, "a"), (&b, "b")] {
        let presence = Presence::start(registry.clone(), node, []);
        let mut state = presence.state();
        let lease = state.wait_for(|state| state.lease.is_some()).await?.lease;
        leases.push(lease.context("it was waited for")?);
        living.push(presence);
    }
    let leader = |node: &str| LeaderRecord {
        node: node.to_owned(),
        since: String::new(),
    };
    let fence = a
        .lead(&leader("a"), leases[0])
        .await?
        .context("nobody led")?;
    let task = LeaderWrite::Task(Box::new(TaskRecord {
        id: "t".to_owned(),
        ..TaskRecord::default()
    }));
    a.write_as_leader(fence, std::slice::from_ref(&task))
        .await?;
    // Even who knows how the leader proves that it leads does not.
    assert!(b.write_as_leader(fence, &[task]).await.is_err());
    let said = |node: &str| TaskStatusRecord {
        task: "t".to_owned(),
        node: node.to_owned(),
        state: "running".to_owned(),
        ..TaskStatusRecord::default()
    };
    b.put_task_status(&said("b")).await?;
    assert!(b.put_task_status(&said("a")).await.is_err());
    let ack = |node: &str| AckRecord {
        node: node.to_owned(),
        ..AckRecord::default()
    };
    b.put_ack(&ack("b"), leases[1]).await?;
    assert!(b.put_ack(&ack("a"), leases[1]).await.is_err());
    // What is wanted anybody may say.
    let wanted = DesiredRecord {
        id: "s".to_owned(),
        name: "web".to_owned(),
        version: 1,
        ..DesiredRecord::default()
    };
    b.desire(DesiredKind::Service, &wanted).await?;
    assert!(
        a.undesire(DesiredKind::Service, "s", "web")
            .await?
            .is_some()
    );
    for presence in living {
        presence.shutdown().await;
    }
    known.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_removed_is_cut_off_and_forgotten() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let known = Known::start(dir.path())?;
    let manager = known.host("manager", true).await?;
    let ended = CancellationToken::new();
    let door = known.door("b", false, ended.clone()).await?;
    let b = connect(door.clone()).await?;
    b.register_node(&record("b", [192, 0, 2, 3])).await?;
    let request = NetworkRequest {
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![("10.1.0.0/16".parse()?, 24)],
        ..NetworkRequest::default()
    };
    let network = manager.create_network(request).await?;
    b.claim_block(&network, network.subnet.into(), "b", 1, &[])
        .await?;
    let _presence = published(&b, endpoint(&network.id, "c1", "b")).await?;
    let mut protocol = etcd_client::Client::connect([door], None).await?;
    let mut watch = protocol.watch("any", None).await?;
    watch.message().await?; // it stands
    ended.cancel();
    let rest = tokio::time::timeout(PATIENCE, watch.message()).await?;
    assert!(
        !matches!(rest, Ok(Some(_))),
        "the connection has ended: {rest:?}"
    );
    assert!(b.nodes().await.is_err());
    manager.remove_node("b").await?;
    manager.remove_node("b").await?;
    let door = known
        .door("manager", true, CancellationToken::new())
        .await?;
    let mut kv = etcd_client::Client::connect([door], None).await?;
    let left = etcd_client::GetOptions::new()
        .with_prefix()
        .with_keys_only();
    let left = kv.get("/nuncio/v1/", Some(left)).await?;
    let keys: Vec<_> = left
        .kvs()
        .iter()
        .filter_map(|kv| kv.key_str().ok())
        .collect();
    let of_b = |key: &&&str| {
        ["/nodes/", "/alive/", "/endpoints/", "/blocks/"]
            .iter()
            .any(|kind| key.contains(kind))
    };
    assert_eq!(keys.iter().filter(of_b).count(), 0, "{keys:?}");
    known.end().await
}
