//! Locks and elections, by the services of these names.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, Error, LockOptions, ProclaimOptions, ResignOptions};

use crate::backend::{Backend, soon};

/// Within what who gives up is out of the queue.
const LEAVES: Duration = Duration::from_secs(5);

on_both!(locks, a_lock_of_who_gave_up_is_not_taken, elections);

async fn lease(client: &mut Client) -> Result<i64> {
    Ok(client.lease_grant(60, None).await?.id())
}

fn on(lease: i64) -> Option<LockOptions> {
    Some(LockOptions::new().with_lease(lease))
}

async fn locks(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let (first, second) = (lease(&mut client).await?, lease(&mut client).await?);
    let held = client.lock("l", on(first)).await?.key().to_vec();
    assert_eq!(held, format!("l/{first:x}").into_bytes());
    let again = client.lock("l", on(first)).await?.key().to_vec();
    assert_eq!(again, held, "who holds it is not kept waiting");

    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("l", on(second)).await });
    // It stands in the queue, and does not get the lock.
    let mut watch = client
        .watch("l/", Some(prefixed().with_start_revision(3)))
        .await?;
    soon("the second in the queue", watch.message()).await??;
    soon("the second in the queue", watch.message()).await??;
    assert!(!waiting.is_finished());
    client.unlock(held).await?;
    let held = soon("the lock", waiting).await???.key().to_vec();
    assert_eq!(held, format!("l/{second:x}").into_bytes());
    client.lease_revoke(second).await?;

    let own = client.lock("l", None).await?;
    let kv = client.get(own.key(), None).await?.take_kvs().remove(0);
    assert_ne!(kv.lease(), 0, "a lock is always on a lease");
    let unknown = client.lock("other", on(99)).await.unwrap_err().to_string();
    assert!(unknown.contains("requested lease not found"), "{unknown}");
    Ok(())
}

fn prefixed() -> etcd_client::WatchOptions {
    etcd_client::WatchOptions::new().with_prefix()
}

async fn a_lock_of_who_gave_up_is_not_taken(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let first = lease(&mut client).await?;
    let held = client.lock("l", on(first)).await?.key().to_vec();
    let mut watch = client.watch("l/", Some(prefixed())).await?;
    soon("a watch", watch.message()).await??;
    // Who gives up as it has just been entered, but does not wait yet, etcd leaves in the queue until its lease ends.
    for attempts_left in (0..5).rev() {
        let second = lease(&mut client).await?;
        let mut other = backend.client().await?;
        let waiting = tokio::spawn(async move { other.lock("l", on(second)).await });
        soon("the second in the queue", watch.message()).await??;
        waiting.abort();
        let left = match tokio::time::timeout(LEAVES, watch.message()).await {
            Ok(left) => left?.context("the watch has ended")?,
            Err(late) if attempts_left == 0 => return Err(late).context("it does not leave"),
            Err(_) => {
                client.lease_revoke(second).await?;
                soon("the second to be taken away", watch.message()).await??;
                continue;
            }
        };
        assert_eq!(
            left.events()[0].event_type(),
            etcd_client::EventType::Delete
        );
        break;
    }
    assert_eq!(client.get(held, None).await?.count(), 1);
    Ok(())
}

async fn elections(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let none = client.leader("e").await.unwrap_err().to_string();
    assert!(none.contains("election: no leader"), "{none}");
    let (first, second) = (lease(&mut client).await?, lease(&mut client).await?);
    let won = client.campaign("e", "one", first).await?;
    let leader = won.leader().context("leader")?.clone();
    assert_eq!((leader.name(), leader.lease()), (&b"e"[..], first));
    assert_eq!(leader.key(), format!("e/{first:x}").as_bytes());
    let mut observed = client.observe("e").await?;
    let mut next = async || -> Result<String> {
        let told = soon("a leader", observed.message()).await??;
        let told = told.context("the observation has ended")?;
        Ok(told.kv().context("leader")?.value_str()?.to_owned())
    };
    assert_eq!(next().await?, "one");

    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.campaign("e", "two", second).await });
    let as_leader = |leader| Some(ProclaimOptions::new().with_leader(leader));
    client.proclaim("uno", as_leader(leader.clone())).await?;
    assert_eq!(next().await?, "uno");
    let now = client.leader("e").await?;
    assert_eq!(now.kv().context("leader")?.value(), b"uno");
    assert!(!waiting.is_finished());

    let resign = Some(ResignOptions::new().with_leader(leader.clone()));
    client.resign(resign).await?;
    let won = soon("the second to win", waiting).await???;
    assert_eq!(won.leader().context("leader")?.lease(), second);
    assert_eq!(next().await?, "two");
    let late = client.proclaim("eins", as_leader(leader)).await;
    match late.unwrap_err() {
        Error::GRpcStatus(status) => assert_eq!(status.message(), "election: not leader"),
        other => panic!("{other:?}"),
    }
    Ok(())
}
