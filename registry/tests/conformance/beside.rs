//! Hosts that want to be what another one is: of a name, and of an address, there is one that lives.

use anyhow::Result;
use etcd_client::{Client, GetOptions};
use nuncio_registry::{Presence, PresenceState, RegisterNodeError};

use crate::backend::{Backend, soon};
use crate::claims::node;
use crate::presence::endpoint;

on_both!(
    who_comes_back_to_a_name_that_is_taken_is_kept_out,
    an_address_has_one_host_too,
    of_two_who_come_at_once_one_lives
);

/// The ids of the hosts that live.
async fn alive(client: &mut Client) -> Result<Vec<String>> {
    let root = "/nuncio/v1/alive/";
    let options = GetOptions::new().with_prefix();
    let got = client.get(root, Some(options)).await?;
    let id = |kv: &etcd_client::KeyValue| kv.key_str().unwrap().trim_start_matches(root).to_owned();
    Ok(got.kvs().iter().map(id).collect())
}

async fn who_comes_back_to_a_name_that_is_taken_is_kept_out(backend: Backend) -> Result<()> {
    let (registry, mut client) = (backend.registry().await?, backend.client().await?);
    registry.register_node(&node("id1", "a", 1, 1)).await?;
    let first = Presence::start(registry.clone(), "id1", [endpoint("one", "id1")]);
    soon("the first host", first.settled()).await?;
    let taken = registry.register_node(&node("id2", "a", 2, 1)).await;
    assert!(
        matches!(taken, Err(RegisterNodeError::NameTaken { .. })),
        "{taken:?}"
    );
    // It stands still until its lease is over.
    let lost = first.state().borrow().lease.unwrap();
    drop(first);
    client.lease_revoke(lost).await?;
    registry.register_node(&node("id2", "a", 2, 2)).await?;
    let second = Presence::start(registry.clone(), "id2", [endpoint("two", "id2")]);
    soon("the second host", second.settled()).await?;

    let back = Presence::start(registry.clone(), "id1", [endpoint("one", "id1")]);
    let mut state = back.state();
    let is_told = |state: &PresenceState| state.kept_out.is_some();
    let why = soon("the refusal", state.wait_for(is_told))
        .await??
        .kept_out
        .clone();
    let why = why.unwrap();
    assert!(
        why.contains("node name a is in use by live node id2"),
        "{why}"
    );
    assert_eq!(alive(&mut client).await?, ["id2"]);
    let all = client
        .get(
            "/nuncio/v1/endpoints/",
            Some(GetOptions::new().with_prefix()),
        )
        .await?;
    assert_eq!(all.kvs().len(), 1, "only those of who lives are seen");

    second.shutdown().await;
    soon("its turn", back.settled()).await?;
    assert_eq!(back.state().borrow().kept_out, None);
    assert_eq!(alive(&mut client).await?, ["id1"]);
    back.shutdown().await;
    Ok(())
}

async fn an_address_has_one_host_too(backend: Backend) -> Result<()> {
    let (registry, mut client) = (backend.registry().await?, backend.client().await?);
    registry.register_node(&node("id1", "a", 1, 1)).await?;
    registry.register_node(&node("id2", "b", 1, 1)).await?;
    let second = Presence::start(registry.clone(), "id2", []);
    soon("the second host", second.settled()).await?;
    let first = Presence::start(registry.clone(), "id1", []);
    let mut state = first.state();
    let is_told = |state: &PresenceState| state.kept_out.is_some();
    let why = soon("the refusal", state.wait_for(is_told))
        .await??
        .kept_out
        .clone();
    assert_eq!(
        why.as_deref(),
        Some("address 10.0.0.1 is in use by live node b, choose another one with --advertise-addr")
    );
    // At another address there is nothing against it.
    registry.register_node(&node("id1", "a", 3, 2)).await?;
    soon("its turn", first.settled()).await?;
    assert_eq!(alive(&mut client).await?, ["id1", "id2"]);
    first.shutdown().await;
    second.shutdown().await;
    Ok(())
}

async fn of_two_who_come_at_once_one_lives(backend: Backend) -> Result<()> {
    let (registry, mut client) = (backend.registry().await?, backend.client().await?);
    for round in 0..20 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        let name = format!("name{round}");
        registry.register_node(&node(&old, &name, 1, 1)).await?;
        // The one comes back as the other one is told that it does not live.
        let back = Presence::start(registry.clone(), &old, []);
        let other = Presence::start(registry.clone(), &new, []);
        let entered = registry.register_node(&node(&new, &name, 2, 1)).await;
        if let Err(RegisterNodeError::NameTaken { .. }) = entered {
            soon("the old host", back.settled()).await?;
        } else {
            entered?;
            // Both are registered: whoever lives first keeps the other one out.
            let (first, second) = tokio::select! {
                () = other.settled() => (&new, &back),
                () = back.settled() => (&old, &other),
            };
            let mut state = second.state();
            let is_told = |state: &PresenceState| state.kept_out.is_some();
            soon("the refusal", state.wait_for(is_told)).await??;
            assert_eq!(alive(&mut client).await?, std::slice::from_ref(first));
        }
        back.shutdown().await;
        other.shutdown().await;
    }
    Ok(())
}
