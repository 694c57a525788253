//! A copy of the registry in memory, kept up to date, that outlasts outages and restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::catalog::Catalog;
use crate::client::{CallError, Registry};
use crate::era::{ERA, Heeded, Seen};
use crate::keys::ROOT;

mod feed;
mod hold;
mod snapshot;

use feed::{Feed, FeedError, Update};
use hold::Hold;

/// Keeps a [`Catalog`] of everything in the registry, until it is stopped or dropped.
#[derive(Debug)]
pub struct Mirror {
    catalog: watch::Receiver<Arc<Catalog>>,
    losses: Arc<AtomicU64>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Mirror {
    /// Begins to follow the registry. With a `snapshot`, the catalog starts as what that file holds, stale
    /// until the registry answers, and the file is rewritten as things change, at most every few seconds.
    pub fn start(registry: Registry, snapshot: Option<PathBuf>) -> Self {
        let stop = CancellationToken::new();
        let (publish, catalog) = watch::channel(Arc::new(Catalog::default()));
        let losses = Arc::<AtomicU64>::default();
        let follower = Follower::new(registry, snapshot, publish, Arc::clone(&losses));
        let stopped = stop.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(follower.run(stopped)));
        Self {
            catalog,
            losses,
            stop,
            task,
        }
    }

    /// The catalog, and each change of it.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// How often the registry was lost, and had to be connected to anew.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Ends the task, after writing a last snapshot. Receivers keep the last catalog.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "mirror ended early");
        }
    }
}

/// The task behind a [`Mirror`].
struct Follower {
    registry: Registry,
    snapshot: Option<PathBuf>,
    publish: watch::Sender<Arc<Catalog>>,
    /// Keys and values as the registry has them.
    raw: BTreeMap<String, Vec<u8>>,
    /// What the registry says, without what is held back.
    truth: Catalog,
    hold: Hold,
    /// When the snapshot on disk fell behind.
    unsaved: Option<Instant>,
    losses: Arc<AtomicU64>,
}

impl Follower {
    /// Time between two rewrites of the snapshot.
    const SAVE: Duration = Duration::from_secs(3);
    /// Lists again now and then: a watch that lost something would never say so. So often in a mesh of up to
    /// [`Self::FEW`] hosts; as what there is to list grows with them as well as who lists it, more hosts list less often.
    const RELIST: Duration = Duration::from_secs(300);
    const FEW: u32 = 100;
    /// Of all hosts each does so at least this often.
    const RELIST_AT_LEAST: Duration = Duration::from_secs(6 * 3600);

    fn new(
        registry: Registry,
        snapshot: Option<PathBuf>,
        publish: watch::Sender<Arc<Catalog>>,
        losses: Arc<AtomicU64>,
    ) -> Self {
        let (raw, truth) = (BTreeMap::new(), Catalog::default());
        Self {
            registry,
            snapshot,
            publish,
            raw,
            truth,
            hold: Hold::default(),
            unsaved: None,
            losses,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        self.load().await;
        let mut backoff = Backoff::outage();
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.follow(&mut backoff) => ended,
            };
            if let Err(error) = ended {
                self.mark_stale(&error);
                self.registry.doubt();
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = backoff.wait() => {}
                }
            }
        }
        if self.unsaved.is_some() {
            self.save().await;
        }
    }

    async fn load(&mut self) {
        let Some(path) = self.snapshot.clone() else {
            return;
        };
        match snapshot::load(path.clone()).await {
            Ok(Some(saved)) => {
                for (key, value) in &saved.entries {
                    self.truth.apply(key, Some(value));
                }
                self.truth.revision = saved.revision;
                self.truth.stale = Some(saved.written);
                self.raw = saved.entries;
                self.show();
            }
            Ok(None) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(path = %path.display(), error, "snapshot is of no use, starting without");
            }
        }
    }

    /// Lists everything, then follows the changes. `Ok` means that it is time to list again.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), FeedError> {
        self.relist().await?;
        let mut feed = Feed::open(&self.registry, self.truth.revision + 1).await?;
        backoff.reset();
        let relist = Instant::now() + Self::relist_after(self.truth.nodes.len());
        loop {
            let save = self.unsaved.map(|since| since + Self::SAVE);
            let release = self.hold.deadline();
            tokio::select! {
                update = feed.next() => match update? {
                    Update::Changes { revision, changes } => {
                        let is_new_era = changes.iter().any(|(key, _)| key == ERA);
                        self.change(revision, changes);
                        if is_new_era {
                            return Ok(());
                        }
                    }
                    Update::Compacted => return Ok(()),
                },
                () = until(save) => self.save().await,
                () = until(release) => self.show(),
                () = tokio::time::sleep_until(relist) => return Ok(()),
            }
        }
    }

    /// How long until all is listed again in a mesh of so many hosts; spread, lest all do so at once.
    fn relist_after(hosts: usize) -> Duration {
        let times = u32::try_from(hosts).unwrap_or(u32::MAX).div_ceil(Self::FEW);
        let usual = Self::RELIST.saturating_mul(times.max(1));
        let spread = rand::random_range(0.75..=1.25);
        usual.min(Self::RELIST_AT_LEAST).mul_f64(spread)
    }

    async fn relist(&mut self) -> Result<(), CallError> {
        let listing = loop {
            let listing = self.registry.list("list the registry", ROOT).await?;
            let era = listing.entries.iter().find(|entry| entry.key == ERA);
            let era = Seen(era.map(|entry| entry.value.clone()));
            if self.registry.heed(era).await? == Heeded::Here {
                break listing;
            }
        };
        let fresh: BTreeMap<String, Vec<u8>> = listing
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect();
        let gone = self.raw.keys().filter(|key| !fresh.contains_key(*key));
        let mut changes: Vec<(String, Option<Vec<u8>>)> =
            gone.map(|key| (key.clone(), None)).collect();
        let new = fresh
            .iter()
            .filter(|(key, value)| self.raw.get(*key) != Some(value));
        changes.extend(new.map(|(key, value)| (key.clone(), Some(value.clone()))));
        if self.truth.stale.take().is_some() {
            info!(
                revision = listing.revision,
                changes = changes.len(),
                "registry is back"
            );
        }
        self.change(listing.revision, changes);
        Ok(())
    }

    fn change(&mut self, revision: i64, changes: Vec<(String, Option<Vec<u8>>)>) {
        let before = self.truth.clone();
        for (key, value) in changes {
            self.truth.apply(&key, value.as_deref());
            match value {
                Some(value) => self.raw.insert(key, value),
                None => self.raw.remove(&key),
            };
            self.unsaved.get_or_insert_with(Instant::now);
        }
        self.truth.revision = revision;
        self.hold.observe(Instant::now(), &before, &self.truth);
        self.show();
    }

    fn mark_stale(&mut self, error: &FeedError) {
        if self.truth.stale.is_none() {
            let error: &dyn std::error::Error = error;
            warn!(error, "registry lost, going on with what is known");
            self.losses.fetch_add(1, Ordering::Relaxed);
            self.truth.stale = Some(SystemTime::now());
            self.show();
        }
    }

    fn show(&mut self) {
        let shown = self.hold.overlay(Instant::now(), &self.truth);
        self.publish.send_if_modified(|current| {
            let changed = **current != shown;
            if changed {
                *current = Arc::new(shown);
            }
            changed
        });
    }

    async fn save(&mut self) {
        self.unsaved = None;
        let Some(path) = self.snapshot.clone() else {
            return;
        };
        let saved = snapshot::Snapshot {
            revision: self.truth.revision,
            written: self.truth.stale.unwrap_or_else(SystemTime::now),
            entries: self.raw.clone(),
        };
        if let Err(error) = snapshot::save(path.clone(), saved).await {
            let error: &dyn std::error::Error = &error;
            warn!(path = %path.display(), error, "snapshot was not written");
        }
    }
}

/// Sleeps until `at`, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_hosts_list_less_often_and_not_in_step() {
        let within = |hosts, seconds: std::ops::Range<u64>| {
            let after = Follower::relist_after(hosts).as_secs();
            assert!(seconds.contains(&after), "{hosts}: {after}");
        };
        for hosts in [0, 1, 100] {
            within(hosts, 225..376);
        }
        within(1_000, 2_250..3_751);
        within(1_000_000, 16_200..27_001);
        let some: std::collections::BTreeSet<_> =
            (0..8).map(|_| Follower::relist_after(1)).collect();
        assert!(some.len() > 1);
    }
}
