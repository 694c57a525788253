//! What a pull or a load tells while it works.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Least time between two reports of how far one layer has come.
const TICK: Duration = Duration::from_millis(100);

/// How far one layer has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The layer: the first twelve digits of its blob's digest.
    pub id: String,
    /// What is being done to it.
    pub status: ProgressStatus,
    /// Bytes done in this status; 0 where nothing is counted.
    pub current: u64,
    /// Bytes to do in this status, as the manifest says; 0 where unknown.
    pub total: u64,
}

/// What is being done to a layer; displays as the words Docker prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProgressStatus {
    /// It is known and waits its turn.
    Pulling,
    /// Its blob is coming in.
    Downloading,
    /// Its blob came in whole and is compared with its digest.
    Verifying,
    /// Its blob is on disk.
    Downloaded,
    /// Its files are being unpacked.
    Extracting,
    /// It is ready for use.
    Complete,
    /// It was there before.
    AlreadyExists,
}

impl fmt::Display for ProgressStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pulling => "Pulling fs layer",
            Self::Downloading => "Downloading",
            Self::Verifying => "Verifying Checksum",
            Self::Downloaded => "Download complete",
            Self::Extracting => "Extracting",
            Self::Complete => "Pull complete",
            Self::AlreadyExists => "Already exists",
        })
    }
}

/// One layer's end of the progress channel.
///
/// Never waits: with the channel full or closed a report is lost, not the pull held up by a slow reader.
pub(crate) struct LayerProgress {
    id: String,
    to: mpsc::Sender<Progress>,
    last_tick: Option<Instant>,
}

impl LayerProgress {
    pub(crate) fn new(id: String, to: mpsc::Sender<Progress>) -> Self {
        Self {
            id,
            to,
            last_tick: None,
        }
    }

    pub(crate) fn say(&self, status: ProgressStatus) {
        self.report(status, 0, 0);
    }

    /// Reports bytes done, at most once per [`TICK`].
    pub(crate) fn tick(&mut self, status: ProgressStatus, current: u64, total: u64) {
        if self.last_tick.is_none_or(|last| last.elapsed() >= TICK) {
            self.last_tick = Some(Instant::now());
            self.report(status, current, total);
        }
    }

    fn report(&self, status: ProgressStatus, current: u64, total: u64) {
        let report = Progress {
            id: self.id.clone(),
            status,
            current,
            total,
        };
        let _ = self.to.try_send(report);
    }
}
