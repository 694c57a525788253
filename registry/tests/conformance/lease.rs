//! Leases and the keys on them.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{EventType, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions};

use crate::backend::{Backend, soon};

on_both!(
    revoke_and_list,
    expiry,
    kept_alive,
    keys_change_leases,
    over_a_restart
);

fn on(lease: i64) -> Option<PutOptions> {
    Some(PutOptions::new().with_lease(lease))
}

async fn revoke_and_list(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let lease = client.lease_grant(30, None).await?;
    assert_eq!(lease.ttl(), 30);
    let chosen = client
        .lease_grant(1, Some(LeaseGrantOptions::new().with_id(77)))
        .await?;
    assert_eq!(
        (chosen.id(), chosen.ttl()),
        (77, 2),
        "two seconds are the least"
    );
    let twice = client
        .lease_grant(30, Some(LeaseGrantOptions::new().with_id(77)))
        .await;
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("lease already exists")
    );
    let listed = client.leases().await?;
    assert_eq!(listed.leases().len(), 2);

    client.put("b", "", on(lease.id())).await?;
    client.put("a", "", on(lease.id())).await?;
    let options = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(lease.id(), options).await?;
    let mut keys = left.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(left.granted_ttl(), 30);
    assert!((28..=30).contains(&left.ttl()), "{left:?}");

    let before = client.get("a", None).await?.header().unwrap().revision();
    client.lease_revoke(lease.id()).await?;
    let after = client.get("a", None).await?;
    assert_eq!(after.count(), 0);
    assert_eq!(
        after.header().unwrap().revision(),
        before + 1,
        "all keys go in one revision"
    );
    let gone = client.lease_time_to_live(lease.id(), None).await?;
    assert_eq!(gone.ttl(), -1);
    let again = client
        .lease_revoke(lease.id())
        .await
        .unwrap_err()
        .to_string();
    assert!(again.contains("requested lease not found"), "{again}");
    assert!(client.lease_keep_alive(lease.id()).await.is_err());
    Ok(())
}

async fn expiry(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let lease = client.lease_grant(2, None).await?.id();
    let mut watch = client
        .watch("k", Some(WatchOptions::new().with_prefix()))
        .await?;
    watch.message().await?.context("created")?;
    let put = std::time::Instant::now();
    client.put("k", "", on(lease)).await?;
    watch.message().await?.context("the put")?;
    let response = soon("the lease to expire", watch.message())
        .await??
        .context("the deletion")?;
    assert_eq!(response.events()[0].event_type(), EventType::Delete);
    assert!(
        put.elapsed() >= Duration::from_millis(1500),
        "after {:?}",
        put.elapsed()
    );
    assert_eq!(client.get("k", None).await?.count(), 0);
    assert!(client.leases().await?.leases().is_empty());
    Ok(())
}

async fn kept_alive(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let lease = client.lease_grant(2, None).await?.id();
    client.put("k", "", on(lease)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..10 {
        beat.tick().await;
        keeper.keep_alive().await?;
        let answer = soon("an answer", answers.message())
            .await??
            .context("the stream ended")?;
        assert_eq!(answer.ttl(), 2);
    }
    assert_eq!(client.get("k", None).await?.count(), 1);
    Ok(())
}

async fn keys_change_leases(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let first = client.lease_grant(60, None).await?.id();
    let second = client.lease_grant(60, None).await?.id();
    for key in ["moved", "freed", "kept", "deleted"] {
        client.put(key, "", on(first)).await?;
    }
    client.put("moved", "", on(second)).await?;
    client.put("freed", "", None).await?;
    client
        .put("kept", "new", Some(PutOptions::new().with_ignore_lease()))
        .await?;
    client.delete("deleted", None).await?;
    client.put("deleted", "back", None).await?;
    assert_eq!(client.get("kept", None).await?.kvs()[0].lease(), first);
    client.lease_revoke(first).await?;
    for (key, count) in [("moved", 1), ("freed", 1), ("kept", 0), ("deleted", 1)] {
        assert_eq!(client.get(key, None).await?.count(), count, "{key}");
    }
    client.lease_revoke(second).await?;
    assert_eq!(client.get("moved", None).await?.count(), 0);
    Ok(())
}

async fn over_a_restart(mut backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let long = client.lease_grant(60, None).await?.id();
    let short = client.lease_grant(2, None).await?.id();
    client.put("long", "", on(long)).await?;
    client.put("short", "", on(short)).await?;
    backend.down().await;
    backend.up().await?;
    let mut client = backend.client().await?;
    let left = client.lease_time_to_live(long, None).await?;
    assert!(left.ttl() > 50, "{left:?}");
    let watch = Some(WatchOptions::new().with_start_revision(4));
    let mut watch = client.watch("short", watch).await?;
    watch.message().await?.context("created")?;
    let gone = soon("the short lease to expire", watch.message())
        .await??
        .context("deletion")?;
    assert_eq!(gone.events()[0].event_type(), EventType::Delete);
    assert_eq!(client.get("long", None).await?.kvs()[0].lease(), long);
    Ok(())
}
