//! A service: what is wanted, and how far a change of it has come.

use serde::{Deserialize, Serialize};

use crate::Spec;

/// What is wanted of a service, and how far a change of it has come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What is wanted.
    pub spec: Spec,
    /// What was wanted before, to which a failed update goes back.
    pub previous: Option<Spec>,
    /// How far the last update has come. Whoever changes the spec clears it.
    pub update: Option<Update>,
    /// Its tasks are to be spread anew, once: until [`Action::Rebalanced`](crate::Action::Rebalanced).
    pub rebalance: bool,
    /// Its tasks are to be spread anew whenever they are uneven.
    pub auto_rebalance: bool,
}

/// How far an update has come: all that another leader needs to go on with it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Update {
    /// What it has come to.
    pub state: UpdateState,
    /// When it began.
    pub started: u64,
    /// When it ended.
    pub completed: Option<u64>,
    /// What operators are told.
    pub message: String,
    /// The version of the spec that it leads to. An update to another is another update.
    pub version: u64,
    /// How many slots there were to update when it began; zero, until that is counted.
    pub total: u64,
    /// In how many slots a new task failed while it was watched.
    pub failures: u64,
    /// Since when nothing of it is under way; none, while a batch is. The next batch begins `delay` later.
    pub settled: Option<u64>,
}

/// What an update has come to, in Docker's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// It is under way.
    #[default]
    Updating,
    /// It stands still after failures, until somebody changes the service.
    Paused,
    /// It is done.
    Completed,
    /// Going back is under way.
    RollbackStarted,
    /// Going back stands still after failures.
    RollbackPaused,
    /// It has gone back.
    RollbackCompleted,
}

impl Update {
    /// The way back to the spec of that version, as it begins. Who takes an update back by hand writes it beside the spec.
    #[must_use]
    pub fn going_back(version: u64, now: u64) -> Self {
        Self {
            state: UpdateState::RollbackStarted,
            started: now,
            message: "rollback in progress".to_owned(),
            version,
            settled: Some(0),
            ..Self::default()
        }
    }
}

impl UpdateState {
    /// Whether it is under way.
    #[must_use]
    pub fn active(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// Whether it leads back.
    #[must_use]
    pub fn backwards(self) -> bool {
        matches!(
            self,
            Self::RollbackStarted | Self::RollbackPaused | Self::RollbackCompleted
        )
    }
}
