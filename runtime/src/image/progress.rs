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
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProgressStatus {
    /// It is known.
    Pulling,
    /// Others go first.
    Waiting,
    /// Its blob is coming in.
    Downloading,
    /// Its blob broke off; what lacks is asked for again in so many seconds.
    Retrying(u64),
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
    /// It is to go to a registry.
    Preparing,
    /// The registry has it already.
    LayerExists,
    /// The registry took it from this repository of its own.
    Mounted(String),
    /// Its blob is going out.
    Pushing,
    /// The registry has it now.
    Pushed,
}

impl fmt::Display for ProgressStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retrying(seconds) => {
                let plural = if *seconds == 1 { "" } else { "s" };
                return write!(f, "Retrying in {seconds} second{plural}");
            }
            Self::Mounted(repository) => return write!(f, "Mounted from {repository}"),
            Self::Pulling => "Pulling fs layer",
            Self::Waiting => "Waiting",
            Self::Downloading => "Downloading",
            Self::Verifying => "Verifying Checksum",
            Self::Downloaded => "Download complete",
            Self::Extracting => "Extracting",
            Self::Complete => "Pull complete",
            Self::AlreadyExists => "Already exists",
            Self::Preparing => "Preparing",
            Self::LayerExists => "Layer already exists",
            Self::Pushing => "Pushing",
            Self::Pushed => "Pushed",
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

    /// Another end for the same layer.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.id.clone(), self.to.clone())
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
