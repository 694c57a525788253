//! Many clients at once while servers are struck down: the calls are linearizable, the watches lose, reorder
//! and repeat nothing.
//!
//! What the clients do follows from a seed, which is told on failure; `NUNCIO_SEED` sets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, Event, EventType, GetResponse, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::backend::{Backend, PATIENCE, soon};
use crate::linear::{self, Act, Answer, Call, Condition, KEYS, Kv, Seen, Span};

on_all!(linearizable_and_watched);

const CLIENTS: u64 = 6;
const CALLS: usize = 70;
const STRIKES: usize = 3;
const WATCHERS: u64 = 8;
/// The last key that is written; all watch it.
const END: &str = "h/9";
/// A call that has no answer by then counts as one that may have happened.
const GIVE_UP: Duration = Duration::from_secs(5);

fn name(key: usize) -> String {
    format!("h/{key}")
}

/// The time, and the values that were written: each is written once.
#[derive(Clone)]
struct Clock {
    start: Instant,
    values: Arc<AtomicU64>,
    calls: Arc<AtomicUsize>,
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }
}

/// What decides what clients do: given, or by chance.
pub(crate) fn seed() -> Result<u64> {
    match std::env::var("NUNCIO_SEED") {
        Ok(given) => given.parse().context("NUNCIO_SEED"),
        Err(_) => Ok(rand::random()),
    }
}

async fn linearizable_and_watched(mut backend: Backend) -> Result<()> {
    let seed = seed()?;
    run(&mut backend, seed)
        .await
        .with_context(|| format!("repeat with NUNCIO_SEED={seed}"))
}

async fn run(backend: &mut Backend, seed: u64) -> Result<()> {
    let clock = Clock {
        start: Instant::now(),
        values: Arc::default(),
        calls: Arc::default(),
    };
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let rng = StdRng::seed_from_u64(seed ^ number);
        clients.spawn(act(backend.client().await?, rng, clock.clone()));
    }
    let mut watchers = JoinSet::new();
    let mut rng = StdRng::seed_from_u64(!seed);
    for _ in 0..WATCHERS {
        let (from, start) = (name(rng.random_range(0..KEYS)), rng.random_range(2..60));
        let client = backend.client().await?;
        watchers.spawn(async move { (from.clone(), start, follow(client, from, start).await) });
    }
    let all = usize::try_from(CLIENTS)? * CALLS;
    for strike in 1..=STRIKES {
        while clock.calls.load(Ordering::Relaxed) < all * strike / (STRIKES + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        backend.strike(rng.random_range(0..100)).await?;
    }
    let mut history: Vec<Span> = Vec::new();
    while let Some(spans) = clients.join_next().await {
        history.extend(spans?);
    }
    let mut client = backend.client().await?;
    while client.put(END, "", None).await.is_err() {
        ensure!(clock.start.elapsed() < 4 * PATIENCE, "nothing answers");
    }
    let told = follow(client, name(0), 2).await?;
    while let Some(watcher) = watchers.join_next().await {
        let (from, start, heard) = watcher?;
        let expected = told.iter().filter(|event| event.revision >= start);
        let expected: Vec<_> = expected.filter(|event| event.key >= from).collect();
        assert_eq!(
            heard?.iter().collect::<Vec<_>>(),
            expected,
            "from {from} at {start}"
        );
    }
    check_events(&told, &history)?;
    let unanswered = history.iter().filter(|span| span.ended.is_none()).count();
    ensure!(
        unanswered < history.len() / 2,
        "{unanswered} calls had no answer"
    );
    linear::linearize(&history).map_err(|most| {
        history.sort_by_key(|span| span.began);
        let lines: Vec<_> = history.iter().map(|span| format!("{span:?}")).collect();
        anyhow::anyhow!(
            "no more than {most} calls can be put in order:\n{}",
            lines.join("\n")
        )
    })?;
    Ok(())
}

/// One client: call after call, each noted.
async fn act(mut client: Client, mut rng: StdRng, clock: Clock) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut last_seen = None;
    for _ in 0..CALLS {
        let call = invent(&mut rng, &clock, last_seen);
        let began = clock.now();
        let answer = tokio::time::timeout(GIVE_UP, carry_out(&mut client, &call)).await;
        clock.calls.fetch_add(1, Ordering::Relaxed);
        let ended = match answer {
            Ok(Ok(answer)) => Some((clock.now(), answer)),
            Ok(Err(_)) => {
                // Nobody listens for a moment; there is nothing to wait for but time.
                tokio::time::sleep(Duration::from_millis(50)).await;
                None
            }
            Err(_) => None,
        };
        if let Some((_, answer)) = &ended {
            last_seen = answer.seen.iter().find_map(|seen| match seen {
                Seen::Found(found) => *found,
                _ => None,
            });
        }
        spans.push(Span { call, began, ended });
    }
    spans
}

/// A call by chance, often one whose conditions hold by what was seen last.
fn invent(rng: &mut StdRng, clock: &Clock, seen: Option<Kv>) -> Call {
    let act = |rng: &mut StdRng, key| match rng.random_range(0..10) {
        0..4 => Act::Get(key),
        4..9 => Act::Put(
            key,
            u32::try_from(clock.values.fetch_add(1, Ordering::Relaxed)).unwrap(),
        ),
        _ => Act::Delete(key),
    };
    let key = rng.random_range(0..KEYS);
    if rng.random_bool(0.5) {
        return Call {
            when: Vec::new(),
            then: vec![act(rng, key)],
            or: Vec::new(),
        };
    }
    let seen = seen.unwrap_or(Kv {
        value: 0,
        version: 0,
        created: 0,
        modified: 0,
    });
    let condition = match rng.random_range(0..4) {
        0 => Condition::Value(seen.value),
        1 => Condition::Version(seen.version),
        2 => Condition::Created(seen.created),
        _ => Condition::Modified(seen.modified),
    };
    let other = (key + 1) % KEYS;
    Call {
        when: vec![(key, condition)],
        then: vec![act(rng, key), act(rng, other)],
        or: vec![Act::Get(key), act(rng, other)],
    }
}

async fn carry_out(client: &mut Client, call: &Call) -> Result<Answer> {
    if let (true, [act]) = (call.when.is_empty(), &call.then[..]) {
        let (revision, seen) = carry_out_alone(client, *act).await?;
        return Ok(Answer {
            succeeded: true,
            revision,
            seen: vec![seen],
        });
    }
    let when: Vec<Compare> = call
        .when
        .iter()
        .map(|&(key, what)| compare(key, what))
        .collect();
    let ops = |acts: &[Act]| -> Vec<TxnOp> { acts.iter().map(|&act| op(act)).collect() };
    let txn = Txn::new()
        .when(when)
        .and_then(ops(&call.then))
        .or_else(ops(&call.or));
    let response = client.txn(txn).await?;
    let ops = response.op_responses();
    let seen = ops.iter().map(|op| match op {
        TxnOpResponse::Get(get) => found(get),
        TxnOpResponse::Put(_) => Ok(Seen::Put),
        TxnOpResponse::Delete(delete) => Ok(Seen::Deleted(delete.deleted() > 0)),
        TxnOpResponse::Txn(_) => bail!("a transaction was answered that was not asked"),
    });
    Ok(Answer {
        succeeded: response.succeeded(),
        revision: response.header().context("header")?.revision(),
        seen: seen.collect::<Result<_>>()?,
    })
}

async fn carry_out_alone(client: &mut Client, act: Act) -> Result<(i64, Seen)> {
    let (header, seen) = match act {
        Act::Get(key) => {
            let get = client.get(name(key), None).await?;
            (get.header().cloned(), found(&get)?)
        }
        Act::Put(key, value) => {
            let put = client.put(name(key), value.to_string(), None).await?;
            (put.header().cloned(), Seen::Put)
        }
        Act::Delete(key) => {
            let delete = client.delete(name(key), None).await?;
            (
                delete.header().cloned(),
                Seen::Deleted(delete.deleted() > 0),
            )
        }
    };
    Ok((header.context("header")?.revision(), seen))
}

fn found(get: &GetResponse) -> Result<Seen> {
    let kv = get.kvs().first().map(|kv| -> Result<Kv> {
        Ok(Kv {
            value: kv.value_str()?.parse()?,
            version: kv.version(),
            created: kv.create_revision(),
            modified: kv.mod_revision(),
        })
    });
    Ok(Seen::Found(kv.transpose()?))
}

fn compare(key: usize, condition: Condition) -> Compare {
    let equal = CompareOp::Equal;
    match condition {
        Condition::Value(value) => Compare::value(name(key), equal, value.to_string()),
        Condition::Version(version) => Compare::version(name(key), equal, version),
        Condition::Created(revision) => Compare::create_revision(name(key), equal, revision),
        Condition::Modified(revision) => Compare::mod_revision(name(key), equal, revision),
    }
}

fn op(act: Act) -> TxnOp {
    match act {
        Act::Get(key) => TxnOp::get(name(key), None),
        Act::Put(key, value) => TxnOp::put(name(key), value.to_string(), None),
        Act::Delete(key) => TxnOp::delete(name(key), None),
    }
}

/// An event as a watch told it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Told {
    key: String,
    /// What was put, or `None` if it was deleted.
    value: Option<String>,
    revision: i64,
    /// The value before, and the revision that had put it.
    before: Option<(String, i64)>,
}

fn told(event: &Event) -> Result<Told> {
    let kv = event.kv().context("an event without its key")?;
    let put = event.event_type() == EventType::Put;
    let before = event
        .prev_kv()
        .map(|kv| -> Result<_> { Ok((kv.value_str()?.to_owned(), kv.mod_revision())) });
    Ok(Told {
        key: kv.key_str()?.to_owned(),
        value: put.then(|| kv.value_str().map(str::to_owned)).transpose()?,
        revision: kv.mod_revision(),
        before: before.transpose()?,
    })
}

/// All events of the keys from `from` on, from revision `next` until the end was written, over whatever
/// streams that takes.
async fn follow(mut client: Client, from: String, mut next: i64) -> Result<Vec<Told>> {
    let begun = Instant::now();
    let mut all = Vec::new();
    loop {
        ensure!(begun.elapsed() < 4 * PATIENCE, "the end was not told");
        let options = WatchOptions::new()
            .with_range("h/:")
            .with_prev_key()
            .with_start_revision(next);
        let opened = client.watch(from.clone(), Some(options));
        let Ok(Ok(mut stream)) = tokio::time::timeout(GIVE_UP, opened).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(Some(response)) = soon("an event", stream.message()).await? {
            ensure!(!response.canceled(), "{response:?}");
            for event in response.events() {
                all.push(told(event)?);
            }
            if let Some(last) = all.last() {
                next = last.revision + 1;
                if last.key == END {
                    return Ok(all);
                }
            }
        }
    }
}

/// Events are in order, each names the one before it on its key, and all that was acknowledged is told.
fn check_events(told: &[Told], history: &[Span]) -> Result<()> {
    let mut last: std::collections::BTreeMap<&str, (String, i64)> = Default::default();
    for pair in told.windows(2) {
        ensure!(
            pair[0].revision <= pair[1].revision,
            "out of order: {pair:?}"
        );
    }
    for event in told {
        let before = last.remove(event.key.as_str());
        ensure!(event.before == before, "{event:?} after {before:?}");
        if let Some(value) = &event.value {
            last.insert(&event.key, (value.clone(), event.revision));
        }
    }
    for (span, (_, answer)) in history
        .iter()
        .filter_map(|span| Some((span, span.ended.as_ref()?)))
    {
        let acts = if answer.succeeded {
            &span.call.then
        } else {
            &span.call.or
        };
        for (act, seen) in acts.iter().zip(&answer.seen) {
            let (key, value) = match (act, seen) {
                (Act::Put(key, value), _) => (*key, Some(value.to_string())),
                (Act::Delete(key), Seen::Deleted(true)) => (*key, None),
                _ => continue,
            };
            let is_it = |event: &&Told| {
                event.revision == answer.revision && event.key == name(key) && event.value == value
            };
            ensure!(
                told.iter().filter(is_it).count() == 1,
                "{span:?} was not told once"
            );
        }
    }
    Ok(())
}
