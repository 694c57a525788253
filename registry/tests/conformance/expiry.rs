//! Leases end neither early nor never, while servers are struck down.
//!
//! When a lease may end at the earliest is known here: its TTL after its holder last sent what was answered.
//! Until then its key must be there, however slow anything is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, Error, GetOptions, PutOptions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::backend::{Backend, PATIENCE};
use crate::histories::seed;

on_all!(neither_early_nor_never);

const LEASES: u64 = 12;

/// Until when the key of each lease must be there; nothing before it is put.
type Bounds = Arc<Mutex<Vec<Option<Instant>>>>;

async fn neither_early_nor_never(mut backend: Backend) -> Result<()> {
    let seed = seed()?;
    run(&mut backend, seed)
        .await
        .with_context(|| format!("repeat with NUNCIO_SEED={seed}"))
}

async fn run(backend: &mut Backend, seed: u64) -> Result<()> {
    let bounds: Bounds = Arc::new(Mutex::new(vec![None; usize::try_from(LEASES)?]));
    let mut holders = JoinSet::new();
    for number in 0..LEASES {
        let rng = StdRng::seed_from_u64(seed ^ number);
        let client = backend.client().await?;
        holders.spawn(hold(
            client,
            rng,
            usize::try_from(number)?,
            Arc::clone(&bounds),
        ));
    }
    let begun = Instant::now();
    let mut client = backend.client().await?;
    let mut struck = false;
    loop {
        ensure!(begun.elapsed() < 2 * PATIENCE, "leases did not end");
        // Those whose keys had been put before this was asked.
        let put: Vec<bool> = bounds.lock().unwrap().iter().map(Option::is_some).collect();
        let options = Some(GetOptions::new().with_prefix().with_keys_only());
        let Ok(get) = client.get("l/", options).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let now = Instant::now();
        let there: Vec<&str> = get
            .kvs()
            .iter()
            .filter_map(|kv| kv.key_str().ok())
            .collect();
        for (number, bound) in bounds.lock().unwrap().iter().enumerate() {
            let must = put[number] && bound.is_some_and(|until| now < until);
            let key = key(number);
            ensure!(
                !must || there.contains(&key.as_str()),
                "{key} went early, {there:?} are left"
            );
        }
        while let Some(done) = holders.try_join_next() {
            done??;
        }
        if holders.is_empty() && there.is_empty() {
            return Ok(());
        }
        if !struck && put.iter().all(|&put| put) {
            struck = true;
            backend.strike(usize::try_from(seed % 100)?).await?;
        }
    }
}

fn key(number: usize) -> String {
    format!("l/{number:02}")
}

/// Takes a lease with a key on it, keeps it for a while, and no longer.
async fn hold(mut client: Client, mut rng: StdRng, number: usize, bounds: Bounds) -> Result<()> {
    let ttl = rng.random_range(2..=4);
    let (id, mut until) = loop {
        let sent = Instant::now();
        if let Ok(lease) = client.lease_grant(ttl, None).await {
            assert_eq!(lease.ttl(), ttl);
            break (lease.id(), sent + Duration::from_secs(ttl.unsigned_abs()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    loop {
        let on_it = Some(PutOptions::new().with_lease(id));
        match client.put(key(number), "", on_it).await {
            Ok(_) => break,
            Err(error) if is_gone(&error) => return not_early(number, until),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    bounds.lock().unwrap()[number] = Some(until);
    for _ in 0..rng.random_range(0..5) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..900))).await;
        let sent = Instant::now();
        match client.lease_keep_alive(id).await {
            Ok(_) => until = sent + Duration::from_secs(ttl.unsigned_abs()),
            Err(error) if is_gone(&error) => return not_early(number, until),
            Err(_) => {}
        }
        bounds.lock().unwrap()[number] = Some(until);
    }
    Ok(())
}

fn is_gone(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("lease not found")
}

fn not_early(number: usize, until: Instant) -> Result<()> {
    ensure!(
        Instant::now() >= until,
        "the lease of {} went early",
        key(number)
    );
    Ok(())
}
