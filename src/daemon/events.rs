//! What happened, for those who listen: a bounded history, in memory and on the disk, and a channel that lets go of who does
//! not keep up.

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use self::journal::Journal;
use super::Daemon;
use super::container::{Container, locked};
use super::mount::MountPoint;
use super::record::Record;
use super::volumes::LOCAL;

/// Events that are remembered for `since`, over the daemon's end too. Docker has 256, and forgets them.
const HISTORY: usize = 4096;
/// Events that wait for a listener; one that falls further behind is let go.
const BACKLOG: usize = 1024;

/// What something happened to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Config,
    Container,
    Daemon,
    Image,
    Network,
    Node,
    Secret,
    Service,
    Volume,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Config,
        Self::Container,
        Self::Daemon,
        Self::Image,
        Self::Network,
        Self::Node,
        Self::Secret,
        Self::Service,
        Self::Volume,
    ];

    /// Docker's word for where it is: on one host, or in the mesh.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::Config | Self::Node | Self::Secret | Self::Service => "swarm",
            Self::Container | Self::Daemon | Self::Image | Self::Network | Self::Volume => "local",
        }
    }

    /// Docker's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Container => "container",
            Self::Daemon => "daemon",
            Self::Image => "image",
            Self::Network => "network",
            Self::Node => "node",
            Self::Secret => "secret",
            Self::Service => "service",
            Self::Volume => "volume",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// `start`, `die`, `exec_create: ls -l` and so on.
    pub(crate) action: String,
    /// What it happened to.
    pub(crate) id: String,
    /// Name, image, labels and what the action adds.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) time: Timestamp,
}

/// The history, and those who listen.
pub(crate) struct EventLog {
    history: Mutex<History>,
    told: [AtomicU64; Kind::ALL.len()],
    live: broadcast::Sender<Arc<Event>>,
}

/// What is remembered, the oldest first.
#[derive(Default)]
struct History {
    events: VecDeque<Arc<Event>>,
    /// Absent in tests.
    journal: Option<Journal>,
}

/// An ear on the log. It hears of everything after the moment it was made.
pub(crate) type Listener = broadcast::Receiver<Arc<Event>>;

impl Default for EventLog {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            told: Default::default(),
            live: broadcast::Sender::new(BACKLOG),
        }
    }
}

impl EventLog {
    /// Goes on with what the last daemon kept in `directory`.
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let opened = Journal::open(directory, HISTORY);
        let (journal, events) = opened.context("read what happened before")?;
        let history = History {
            events,
            journal: Some(journal),
        };
        Ok(Self {
            history: Mutex::new(history),
            ..Self::default()
        })
    }

    /// Notes that `action` happened to `id` now.
    pub(crate) fn tell(
        &self,
        kind: Kind,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) {
        self.note(kind, action.into(), id.into(), attributes, true);
    }

    /// The same for what happens again and again, and would push all else out of the history: only those hear of it
    /// who listen now.
    fn tell_in_passing(
        &self,
        kind: Kind,
        action: String,
        id: String,
        attributes: BTreeMap<String, String>,
    ) {
        self.note(kind, action, id, attributes, false);
    }

    fn note(
        &self,
        kind: Kind,
        action: String,
        id: String,
        attributes: impl IntoIterator<Item = (String, String)>,
        remembered: bool,
    ) {
        self.told[kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut history = locked(&self.history);
        let event = Arc::new(Event {
            kind,
            action,
            id,
            attributes: attributes.into_iter().collect(),
            time: Timestamp::now(), // under the lock, so that the order of times is that of the list
        });
        if remembered {
            if history.events.len() == HISTORY {
                history.events.pop_front();
            }
            history.events.push_back(Arc::clone(&event));
            if let Some(journal) = &mut history.journal {
                journal.keep(&event);
            }
        }
        // Nobody may listen.
        let _ = self.live.send(event);
    }

    /// How many there were since the daemon began.
    pub(crate) fn told(&self, kind: Kind) -> u64 {
        self.told[kind as usize].load(Ordering::Relaxed)
    }

    /// What is remembered, the oldest first, and all that follows: no event is in both or in neither.
    pub(crate) fn listen(&self) -> (Vec<Arc<Event>>, Listener) {
        let history = locked(&self.history);
        (
            history.events.iter().cloned().collect(),
            self.live.subscribe(),
        )
    }
}

impl Daemon {
    /// Tells of something that happened to a container.
    pub(crate) fn tell(&self, container: &Container, action: &str) {
        self.tell_more(container, action, []);
    }

    /// The same, with what there is to say about it.
    pub(crate) fn tell_more<const N: usize>(
        &self,
        container: &Container,
        action: &str,
        more: [(&str, String); N],
    ) {
        let record = container.view();
        let mut attributes = attributes(&record);
        attributes.extend(more.map(|(name, value)| (name.to_owned(), value)));
        self.events
            .tell(Kind::Container, action, &record.id, attributes);
    }

    /// Tells what a check of a container's health does, to those who listen now.
    pub(super) fn tell_check<const N: usize>(
        &self,
        container: &Container,
        action: String,
        more: [(&str, String); N],
    ) {
        let record = container.view();
        let mut attributes = attributes(&record);
        attributes.extend(more.map(|(name, value)| (name.to_owned(), value)));
        self.events
            .tell_in_passing(Kind::Container, action, record.id, attributes);
    }

    /// Tells that what nothing needed is gone, and how many bytes it had.
    pub(crate) fn tell_pruned(&self, kind: Kind, reclaimed: u64) {
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())];
        self.events.tell(kind, "prune", "", attributes);
    }

    /// Tells that a container has come into its networks, or has left them.
    pub(super) fn tell_networks(&self, record: &Record, action: &str) {
        for (name, endpoint) in &record.endpoints {
            self.tell_member(name, &endpoint.network_id, &record.id, action);
        }
    }

    /// Tells that a container has come into a network, or has left it.
    pub(super) fn tell_member(&self, name: &str, id: &str, container: &str, action: &str) {
        let driver = self
            .all_networks()
            .iter()
            .find(|network| network.id() == id)
            .map_or("bridge", |network| network.driver());
        let about = [("container", container), ("name", name), ("type", driver)];
        self.tell_network(id, action, about);
    }

    /// Tells of something that happened to a network.
    pub(super) fn tell_network<const N: usize>(
        &self,
        id: &str,
        action: &str,
        about: [(&str, &str); N],
    ) {
        let about = about.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.events.tell(Kind::Network, action, id, about);
    }

    /// Tells that what starts now has its volumes mounted.
    pub(super) fn tell_mounts(&self, record: &Record) {
        for point in &record.mounts {
            if let Some(volume) = point.volume() {
                let more = [
                    ("container", record.id.clone()),
                    ("destination", point.target.clone()),
                    ("propagation", String::new()),
                    ("read/write", (!point.read_only).to_string()),
                ];
                self.tell_volume("mount", &volume.name, more);
            }
        }
    }

    /// Tells that a container's volumes are not mounted for it any more.
    pub(super) fn tell_unmounts(&self, record: &Record) {
        for volume in record.mounts.iter().filter_map(MountPoint::volume) {
            self.tell_volume("unmount", &volume.name, [("container", record.id.clone())]);
        }
    }

    /// Tells of something that happened to a volume, with what there is to say about it.
    pub(super) fn tell_volume<const N: usize>(
        &self,
        action: &str,
        name: &str,
        more: [(&str, String); N],
    ) {
        let driver = [("driver", LOCAL.to_owned())].into_iter();
        let attributes = driver
            .chain(more)
            .map(|(key, value)| (key.to_owned(), value));
        self.events.tell(Kind::Volume, action, name, attributes);
    }
}

/// What every event of a container says: its labels, and over them its image and its name.
fn attributes(record: &Record) -> BTreeMap<String, String> {
    let mut attributes = record.config.labels.clone();
    attributes.insert("image".to_owned(), record.config.image.clone());
    attributes.insert("name".to_owned(), record.name.clone());
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(log: &EventLog, number: usize) {
        log.tell(Kind::Container, "start", number.to_string(), []);
    }

    #[test]
    fn the_history_is_bounded_and_what_follows_is_heard_once() {
        let log = EventLog::default();
        for number in 0..HISTORY + 3 {
            tell(&log, number);
        }
        let (past, mut live) = log.listen();
        assert_eq!(past.len(), HISTORY);
        assert_eq!(past[0].id, "3");
        tell(&log, 1000);
        assert_eq!(live.try_recv().expect("one").id, "1000");
        assert!(live.try_recv().is_err(), "the past is not told again");
        assert!(past.is_sorted_by_key(|event| event.time));
    }

    #[test]
    fn what_is_told_in_passing_is_heard_and_not_remembered() {
        let log = EventLog::default();
        let (_, mut live) = log.listen();
        let (action, id) = ("exec_create: true".to_owned(), "1".to_owned());
        log.tell_in_passing(Kind::Container, action, id, BTreeMap::new());
        assert_eq!(live.try_recv().expect("one").id, "1");
        assert!(log.listen().0.is_empty());
    }

    #[test]
    fn who_does_not_keep_up_is_told_how_much_was_missed() {
        let log = EventLog::default();
        let (_, mut live) = log.listen();
        for number in 0..BACKLOG + 5 {
            tell(&log, number);
        }
        let missed = live.try_recv().expect_err("too late");
        assert_eq!(missed, broadcast::error::TryRecvError::Lagged(5));
    }
}
