//! Watches: every event once, in order, a revision at a time.

use anyhow::{Context, Result};
use etcd_client::{
    Client, CompactionOptions, DeleteOptions, EventType, Txn, TxnOp, WatchFilterType, WatchOptions,
    WatchResponse, WatchStream,
};

use crate::backend::{Backend, soon};

on_both!(
    events_and_history,
    several_on_one_stream,
    revisions_are_whole,
    a_slow_watcher_misses_nothing,
    nothing_lost_or_repeated_over_restarts,
    compacted,
    progress
);

async fn open(client: &mut Client, key: &str, options: WatchOptions) -> Result<WatchStream> {
    let mut stream = client.watch(key, Some(options)).await?;
    let created = next(&mut stream).await?;
    anyhow::ensure!(created.created() && !created.canceled(), "{created:?}");
    Ok(stream)
}

async fn next(stream: &mut WatchStream) -> Result<WatchResponse> {
    soon("a watch response", stream.message())
        .await??
        .context("the watch has ended")
}

/// The next `count` events as type, key, value and revision.
async fn events(stream: &mut WatchStream, count: usize) -> Result<Vec<String>> {
    let mut told = Vec::new();
    while told.len() < count {
        let response = next(stream).await?;
        anyhow::ensure!(!response.canceled(), "{response:?}");
        for event in response.events() {
            let kv = event.kv().context("an event without key")?;
            let kind = if event.event_type() == EventType::Put {
                '+'
            } else {
                '-'
            };
            let (key, value) = (kv.key_str()?, kv.value_str()?);
            told.push(format!("{kind}{key}={value}@{}", kv.mod_revision()));
        }
    }
    Ok(told)
}

async fn events_and_history(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    client.put("a/1", "x", None).await?; // 2
    client.put("b", "x", None).await?; // 3
    let prefix = || WatchOptions::new().with_prefix();
    let mut live = open(&mut client, "a/", prefix().with_prev_key()).await?;
    client.put("a/1", "y", None).await?; // 4
    client.delete("a/1", None).await?; // 5
    client.put("a/2", "z", None).await?; // 6
    assert_eq!(
        events(&mut live, 3).await?,
        ["+a/1=y@4", "-a/1=@5", "+a/2=z@6"]
    );

    let mut past = open(&mut client, "a/", prefix().with_start_revision(2)).await?;
    let all = ["+a/1=x@2", "+a/1=y@4", "-a/1=@5", "+a/2=z@6"];
    assert_eq!(events(&mut past, 4).await?, all);
    let filter = prefix()
        .with_start_revision(4)
        .with_filters([WatchFilterType::NoPut]);
    let mut deletions = open(&mut client, "a/", filter).await?;
    assert_eq!(events(&mut deletions, 1).await?, ["-a/1=@5"]);

    let options = prefix().with_start_revision(5).with_prev_key();
    let mut previous = open(&mut client, "a/", options).await?;
    let response = next(&mut previous).await?;
    let before = response.events()[0]
        .prev_kv()
        .context("the previous value")?;
    assert_eq!((before.value(), before.mod_revision()), (&b"y"[..], 4));

    let mut future = open(&mut client, "b", WatchOptions::new().with_start_revision(8)).await?;
    client.put("b", "seven", None).await?;
    client.put("b", "eight", None).await?;
    assert_eq!(events(&mut future, 1).await?, ["+b=eight@8"]);
    Ok(())
}

async fn several_on_one_stream(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let mut stream = client.watch("a", Some(WatchOptions::new())).await?;
    let a = next(&mut stream).await?.watch_id();
    stream.watch("b", Some(WatchOptions::new())).await?;
    let b = next(&mut stream).await?.watch_id();
    assert_ne!(a, b);
    client.put("b", "1", None).await?;
    assert_eq!(next(&mut stream).await?.watch_id(), b);
    client.put("a", "1", None).await?;
    assert_eq!(next(&mut stream).await?.watch_id(), a);
    stream.cancel(a).await?;
    let cancelled = next(&mut stream).await?;
    assert!(cancelled.canceled() && cancelled.watch_id() == a);
    client.put("a", "2", None).await?;
    client.put("b", "2", None).await?;
    assert_eq!(events(&mut stream, 1).await?, ["+b=2@5"]);
    Ok(())
}

async fn revisions_are_whole(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let mut stream = open(&mut client, "k/", WatchOptions::new().with_prefix()).await?;
    let puts: Vec<TxnOp> = (0..100)
        .map(|i| TxnOp::put(format!("k/{i:03}"), "", None))
        .collect();
    client.txn(Txn::new().and_then(puts)).await?;
    assert_eq!(next(&mut stream).await?.events().len(), 100);
    client
        .delete("k/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    let response = next(&mut stream).await?;
    assert_eq!(response.events().len(), 100);
    let revision = |event: &etcd_client::Event| event.kv().map(etcd_client::KeyValue::mod_revision);
    assert!(
        response
            .events()
            .iter()
            .all(|event| revision(event) == Some(3))
    );
    Ok(())
}

async fn a_slow_watcher_misses_nothing(backend: Backend) -> Result<()> {
    const COUNT: usize = 1500;
    let mut client = backend.client().await?;
    let mut stream = open(&mut client, "k", WatchOptions::new().with_prefix()).await?;
    let value = "v".repeat(4 << 10);
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..15 {
        let (mut client, value) = (client.clone(), value.clone());
        tasks.spawn(async move {
            for i in 0..COUNT / 15 {
                client
                    .put(format!("k{worker}/{i}"), value.clone(), None)
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let told = events(&mut stream, COUNT).await?;
    let revisions: Vec<i64> = told
        .iter()
        .map(|event| event.rsplit_once('@').unwrap().1.parse().unwrap())
        .collect();
    let expected: Vec<i64> = (2..).take(COUNT).collect();
    assert_eq!(revisions, expected);
    Ok(())
}

async fn nothing_lost_or_repeated_over_restarts(mut backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let mut told = Vec::new();
    for round in 0..3 {
        let from = 2 + i64::try_from(told.len())?;
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut stream = open(&mut client, "k", options).await?;
        for i in 0..20 {
            client.put("k", format!("{round}.{i}"), None).await?;
        }
        // Only a part is read; the rest must come after the restart.
        let part = events(&mut stream, 1).await?;
        told.extend(part);
        backend.down().await;
        backend.up().await?;
        client = backend.client().await?;
    }
    let from = 2 + i64::try_from(told.len())?;
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = open(&mut client, "k", options).await?;
    told.extend(events(&mut stream, 60 - told.len()).await?);
    let expected: Vec<String> = (0..60)
        .map(|i| format!("+k={}.{}@{}", i / 20, i % 20, i + 2))
        .collect();
    assert_eq!(told, expected);
    Ok(())
}

async fn compacted(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    for i in 0..10 {
        client.put("k", i.to_string(), None).await?;
    }
    client
        .compact(6, Some(CompactionOptions::new().with_physical()))
        .await?;
    let from = |revision| Some(WatchOptions::new().with_start_revision(revision));
    let mut stream = client.watch("k", from(3)).await?;
    assert!(next(&mut stream).await?.created());
    let cancelled = next(&mut stream).await?;
    assert!(cancelled.canceled());
    assert_eq!(cancelled.compact_revision(), 6);
    let mut stream = client.watch("k", from(6)).await?;
    assert!(next(&mut stream).await?.created());
    assert_eq!(events(&mut stream, 6).await?[0], "+k=4@6");
    Ok(())
}

async fn progress(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let mut stream = open(&mut client, "k", WatchOptions::new()).await?;
    client.put("other", "", None).await?;
    stream.request_progress().await?;
    let response = next(&mut stream).await?;
    assert!(response.events().is_empty());
    assert_eq!(response.watch_id(), -1);
    assert_eq!(response.header().unwrap().revision(), 2);
    Ok(())
}
