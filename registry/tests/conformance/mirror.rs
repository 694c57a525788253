//! The catalog through changes, outages and restarts.

use std::sync::Arc;

use anyhow::Result;
use etcd_client::CompactionOptions;
use nuncio_registry::{Catalog, Mirror, NetworkRequest, NodeRecord, Presence, Registry};
use tokio::sync::watch::Receiver;

use crate::backend::{Backend, soon};
use crate::presence::endpoint;

on_both!(
    follows,
    bad_values_are_set_aside,
    outlasts_a_restart,
    starts_from_its_snapshot,
    lists_again_after_compaction
);

async fn until(
    what: &str,
    catalog: &mut Receiver<Arc<Catalog>>,
    condition: impl Fn(&Catalog) -> bool,
) -> Result<Arc<Catalog>> {
    let seen = soon(what, catalog.wait_for(|catalog| condition(catalog))).await?;
    Ok(Arc::clone(&*seen?))
}

async fn follows(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let request = NetworkRequest {
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![("10.64.0.0/12".parse()?, 20)],
        ..NetworkRequest::default()
    };
    let network = registry.create_network(request).await?;
    let mirror = Mirror::start(registry.clone(), None);
    let mut catalog = mirror.catalog();
    let seen = until("the network", &mut catalog, |c| {
        c.network_named("mesh").is_some()
    })
    .await?;
    assert_eq!((seen.stale, seen.quarantined.len()), (None, 0));
    assert_eq!(**seen.network_named("mesh").unwrap(), network);

    let node = NodeRecord {
        id: "n1".to_owned(),
        name: "a".to_owned(),
        address: [10, 0, 0, 1].into(),
        mac: [2; 6],
        port: 4789,
        incarnation: 1,
        wireguard: None,
        fallback: None,
        links: None,
        peek: None,
        machine: None,
    };
    registry.register_node(&node).await?;
    let block = registry
        .claim_block(&network, network.subnet.into(), "n1", 1, &[])
        .await?;
    let mut published = endpoint("c1", "n1");
    published.network.clone_from(&network.id);
    let presence = Presence::start(registry.clone(), "n1", [published.clone()]);
    let all = |c: &Catalog| {
        c.alive.contains("n1") && c.endpoints.len() == 1 && c.blocks_of(&network.id).count() == 1
    };
    let seen = until("node, block and endpoint", &mut catalog, all).await?;
    assert_eq!(*seen.nodes["n1"], node);
    assert_eq!(**seen.blocks_of(&network.id).next().unwrap(), block);
    assert_eq!(**seen.endpoints_named("name-c1").next().unwrap(), published);
    assert_eq!(
        seen.upstreams("name-c1", None)[0].to_string(),
        "10.0.0.2:6379"
    );

    presence.shutdown().await;
    registry.remove_network(&network.id).await?;
    let empty = |c: &Catalog| c.alive.is_empty() && c.endpoints.is_empty() && c.networks.is_empty();
    let seen = until("all of it to go", &mut catalog, empty).await?;
    assert!(seen.blocks.is_empty() && seen.nodes.len() == 1);
    mirror.stop().await;
    Ok(())
}

async fn bad_values_are_set_aside(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    for (key, value) in [
        ("nodes/a", "{"),
        ("nodes/b", r#"{"v":9}"#),
        ("services/x/external", "7"),
    ] {
        client.put(format!("/nuncio/v1/{key}"), value, None).await?;
    }
    client.put("/nuncio/v1/alive/n1", "{}", None).await?;
    client
        .put(
            "/nuncio/v1/later/x",
            "unknown kinds are no business of ours",
            None,
        )
        .await?;
    let mirror = Mirror::start(backend.registry().await?, None);
    let mut catalog = mirror.catalog();
    let seen = until("the rest", &mut catalog, |c| c.alive.contains("n1")).await?;
    assert_eq!(seen.quarantined.len(), 3, "{:?}", seen.quarantined);
    client.delete("/nuncio/v1/nodes/a", None).await?;
    until("one to be gone", &mut catalog, |c| c.quarantined.len() == 2).await?;
    Ok(())
}

async fn outlasts_a_restart(mut backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let presence = Presence::start(registry.clone(), "n1", [endpoint("a", "n1")]);
    let mirror = Mirror::start(registry, None);
    let mut catalog = mirror.catalog();
    until("the endpoint", &mut catalog, |c| c.endpoints.len() == 1).await?;
    backend.down().await;
    let seen = until("notice of the outage", &mut catalog, |c| c.stale.is_some()).await?;
    assert_eq!(seen.endpoints.len(), 1, "what was known stays");
    presence.publish(endpoint("b", "n1"));
    backend.up().await?;
    let back = |c: &Catalog| c.stale.is_none() && c.endpoints.len() == 2;
    until("the registry and the new endpoint", &mut catalog, back).await?;
    presence.withdraw("net", "a");
    until("a change after the outage", &mut catalog, |c| {
        c.endpoints.len() == 1
    })
    .await?;
    presence.shutdown().await;
    Ok(())
}

async fn starts_from_its_snapshot(mut backend: Backend) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("mirror.json");
    let mut client = backend.client().await?;
    client.put("/nuncio/v1/alive/n1", "{}", None).await?;
    let mirror = Mirror::start(backend.registry().await?, Some(path.clone()));
    until("the node", &mut mirror.catalog(), |c| {
        c.alive.contains("n1")
    })
    .await?;
    mirror.stop().await;
    backend.down().await;

    let registry = Registry::connect_lazy(&backend.options()).await?;
    let mirror = Mirror::start(registry, Some(path));
    let mut catalog = mirror.catalog();
    let seen = until("the snapshot", &mut catalog, |c| c.alive.contains("n1")).await?;
    assert!(seen.stale.is_some());
    backend.up().await?;
    until("the registry", &mut catalog, |c| c.stale.is_none()).await?;
    let mut client = backend.client().await?;
    client.delete("/nuncio/v1/alive/n1", None).await?;
    until("the change", &mut catalog, |c| c.alive.is_empty()).await?;
    Ok(())
}

async fn lists_again_after_compaction(mut backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    client.put("/nuncio/v1/alive/old", "{}", None).await?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("mirror.json");
    let mirror = Mirror::start(backend.registry().await?, Some(path.clone()));
    until("the old node", &mut mirror.catalog(), |c| {
        c.alive.contains("old")
    })
    .await?;
    mirror.stop().await;
    // Deleted and compacted away while nobody looked: no watch can tell of it any more.
    client.delete("/nuncio/v1/alive/old", None).await?;
    let put = client.put("/nuncio/v1/alive/new", "{}", None).await?;
    let revision = put.header().unwrap().revision();
    client
        .compact(revision, Some(CompactionOptions::new().with_physical()))
        .await?;
    backend.down().await;
    backend.up().await?;
    let mirror = Mirror::start(backend.registry().await?, Some(path));
    let only_new = |c: &Catalog| c.stale.is_none() && c.alive.iter().eq(["new"]);
    until("only the new node", &mut mirror.catalog(), only_new).await?;
    Ok(())
}
