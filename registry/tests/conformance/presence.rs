//! A host's lease and endpoints through outages.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use etcd_client::{Client, GetOptions};
use nuncio_registry::{EndpointRecord, PortRecord, Presence, Protocol};

use crate::backend::{Backend, soon};

on_both!(
    publishes_and_withdraws,
    outlasts_an_outage,
    renews_a_lost_lease,
    who_has_lost_its_lease_removes_nothing,
    clears_what_a_former_daemon_left
);

pub(crate) fn endpoint(id: &str, node: &str) -> EndpointRecord {
    EndpointRecord {
        network: "net".to_owned(),
        id: id.to_owned(),
        name: format!("name-{id}"),
        node: node.to_owned(),
        node_name: node.to_owned(),
        address: [10, 0, 0, 2].into(),
        address_v6: None,
        aliases: Vec::new(),
        ports: vec![PortRecord {
            port: 6379,
            protocol: Protocol::Tcp,
        }],
        labels: BTreeMap::new(),
        services: Vec::new(),
        health: nuncio_registry::EndpointHealth::Unchecked,
    }
}

/// Keys under the mesh's prefix, without it.
async fn keys(client: &mut Client) -> Result<Vec<String>> {
    let root = "/nuncio/v1/";
    let get = client
        .get(root, Some(GetOptions::new().with_prefix()))
        .await?;
    let key =
        |kv: &etcd_client::KeyValue| kv.key_str().unwrap().trim_start_matches(root).to_owned();
    Ok(get.kvs().iter().map(key).collect())
}

async fn publishes_and_withdraws(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let presence = Presence::start(backend.registry().await?, "n1", [endpoint("a", "n1")]);
    soon("the first endpoint", presence.settled()).await?;
    assert_eq!(keys(&mut client).await?, ["alive/n1", "endpoints/net/a"]);
    for i in 0..150 {
        presence.publish(endpoint(&format!("c{i:03}"), "n1"));
    }
    presence.withdraw("net", "a");
    soon("all endpoints", presence.settled()).await?;
    let found = keys(&mut client).await?;
    assert_eq!(
        (found.len(), found[1].as_str()),
        (151, "endpoints/net/c000")
    );
    presence.shutdown().await;
    assert!(keys(&mut client).await?.is_empty());
    assert!(client.leases().await?.leases().is_empty());
    Ok(())
}

async fn outlasts_an_outage(mut backend: Backend) -> Result<()> {
    let presence = Presence::start(backend.registry().await?, "n1", [endpoint("a", "n1")]);
    soon("the first endpoint", presence.settled()).await?;
    backend.down().await;
    presence.publish(endpoint("b", "n1"));
    presence.withdraw("net", "a");
    let unsettled = tokio::time::timeout(Duration::from_millis(200), presence.settled()).await;
    assert!(
        unsettled.is_err(),
        "nothing can be settled while the registry is down"
    );
    backend.up().await?;
    soon("the change made in the outage", presence.settled()).await?;
    let mut client = backend.client().await?;
    assert_eq!(keys(&mut client).await?, ["alive/n1", "endpoints/net/b"]);
    // And goes on as before.
    presence.publish(endpoint("c", "n1"));
    soon("a change after the outage", presence.settled()).await?;
    assert_eq!(keys(&mut client).await?.len(), 3);
    presence.shutdown().await;
    Ok(())
}

async fn renews_a_lost_lease(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let presence = Presence::start(backend.registry().await?, "n1", [endpoint("a", "n1")]);
    soon("the first endpoint", presence.settled()).await?;
    let mut state = presence.state();
    let lost = state.borrow_and_update().lease.unwrap();
    client.lease_revoke(lost).await?;
    assert!(keys(&mut client).await?.is_empty());
    let renewed = |state: &nuncio_registry::PresenceState| state.lease.is_some_and(|id| id != lost);
    soon("a new lease", state.wait_for(renewed)).await??;
    assert_eq!(keys(&mut client).await?, ["alive/n1", "endpoints/net/a"]);
    presence.shutdown().await;
    Ok(())
}

async fn who_has_lost_its_lease_removes_nothing(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let presence = Presence::start(backend.registry().await?, "n1", [endpoint("a", "n1")]);
    soon("the first endpoint", presence.settled()).await?;
    let key = "/nuncio/v1/endpoints/net/a";
    let record = client.get(key, None).await?.kvs()[0].value().to_vec();
    let lost = presence.state().borrow().lease.unwrap();
    client.lease_revoke(lost).await?;
    // Another host has it now, of which this one has not heard.
    let record = String::from_utf8(record)?.replace("\"node\":\"n1\"", "\"node\":\"n2\"");
    assert!(record.contains("n2"), "{record}");
    client.put(key, record, None).await?;
    presence.withdraw("net", "a");
    soon("a new lease", presence.settled()).await?;
    let mut state = presence.state();
    let renewed = |state: &nuncio_registry::PresenceState| state.lease.is_some_and(|id| id != lost);
    soon("a new lease", state.wait_for(renewed)).await??;
    soon("the withdrawal", presence.settled()).await?;
    assert_eq!(keys(&mut client).await?, ["alive/n1", "endpoints/net/a"]);
    presence.shutdown().await;
    Ok(())
}

async fn clears_what_a_former_daemon_left(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let former = Presence::start(
        backend.registry().await?,
        "n1",
        [endpoint("kept", "n1"), endpoint("gone", "n1")],
    );
    let other = Presence::start(backend.registry().await?, "n2", [endpoint("other", "n2")]);
    soon("the former daemon", former.settled()).await?;
    soon("the other host", other.settled()).await?;
    drop(former); // as a crash does: nothing is revoked

    let next = Presence::start(backend.registry().await?, "n1", [endpoint("kept", "n1")]);
    soon("the next daemon", next.settled()).await?;
    let expected = [
        "alive/n1",
        "alive/n2",
        "endpoints/net/kept",
        "endpoints/net/other",
    ];
    assert_eq!(keys(&mut client).await?, expected);
    let lease = next.state().borrow().lease.unwrap();
    let get = client.get("/nuncio/v1/endpoints/net/kept", None).await?;
    assert_eq!(get.kvs()[0].lease(), lease);
    Ok(())
}
