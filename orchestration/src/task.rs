//! A task: one attempt at running one container of a service.

use serde::{Deserialize, Serialize};

use crate::Placement;

/// One attempt at running one container of a service.
///
/// A task never runs twice and never moves: what takes its place is another task of the same slot. Without a host it is the
/// leader's; with one, its `state`, `started`, `exit_code`, `healthy` and `err` are reported by the host's agent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Task {
    /// Its id: a function of service, slot, version and attempt, so that one thing planned twice is one task. It may come
    /// again once a slot and all its tasks are forgotten, which they are only when they have ended.
    pub id: String,
    /// The service's id.
    pub service: String,
    /// Which of the service's places it fills.
    pub slot: Slot,
    /// How many tasks its slot had before it.
    pub attempt: u64,
    /// The version of the [`Spec`](crate::Spec) that it runs by.
    pub spec_version: u64,
    /// What it was placed by, which holds after its service has changed or gone.
    pub placement: Placement,
    /// The host it was given to.
    pub node: Option<String>,
    /// What the leader wants of it.
    pub desired: Desired,
    /// What it has come to.
    pub state: TaskState,
    /// When it was planned.
    pub created: u64,
    /// When it came to its state.
    pub changed: u64,
    /// When its process was started, if it was.
    pub started: Option<u64>,
    /// What its process ended with.
    pub exit_code: Option<i64>,
    /// Its health check succeeds, or it has none.
    pub healthy: bool,
    /// It is given to no host before then: the delay of the restart policy.
    pub not_before: u64,
    /// When tasks of this slot and version were restarted by the restart policy, of those that count towards `max_attempts`.
    pub restarts: Vec<u64>,
    /// What the agent tells of its state.
    pub message: Option<String>,
    /// What went wrong.
    pub err: Option<String>,
    /// Why it has no host. Cleared when it is given one.
    pub reason: Option<String>,
    /// Every live host has acknowledged that it sees the task's endpoint or, once [`Desired::Shutdown`] is wanted, that it
    /// no longer does.
    pub announced: bool,
    /// No flow is left to it, or the time for that is over.
    pub drained: bool,
}

impl Task {
    /// Whether it has ended, or will never be heard of again.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state.ended()
    }

    /// Whether it is to run, and has not ended.
    #[must_use]
    pub fn current(&self) -> bool {
        self.desired == Desired::Running && !self.ended()
    }

    /// Whether it serves, and everybody knows: it runs, is healthy and announced, and is to go on.
    #[must_use]
    pub fn up(&self) -> bool {
        self.desired == Desired::Running
            && self.state == TaskState::Running
            && self.healthy
            && self.announced
    }
}

/// Which of a service's places a task fills.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The number of a replica, from one. Numbers need not be without gaps.
    Replica(u64),
    /// The id of the host whose task of a global service it is.
    Node(String),
}

impl Default for Slot {
    fn default() -> Self {
        Self::Replica(0)
    }
}

/// What the leader wants of a task.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It is to run.
    #[default]
    Running,
    /// It is to end: its endpoint is withdrawn, it drains, its process is stopped, and it is kept as history.
    Shutdown,
    /// It is to end, and then to be forgotten.
    Remove,
}

/// What a task has come to: Docker's words, in Docker's order.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// It was planned.
    #[default]
    New,
    /// It has no host yet.
    Pending,
    /// It has a host, which has not said anything.
    Assigned,
    /// The host has taken it.
    Accepted,
    /// Its image is being brought.
    Preparing,
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
    /// Its process ended with 0, of itself.
    Complete,
    /// It was ended as it was [asked](Desired::Shutdown).
    Shutdown,
    /// Its process ended with another code, or did not come up.
    Failed,
    /// The host could not begin it.
    Rejected,
    /// It is being removed.
    Remove,
    /// Its host has been away for so long, or is gone, that it will not be heard of again.
    Orphaned,
}

impl TaskState {
    /// Whether nothing runs any more.
    #[must_use]
    pub fn ended(self) -> bool {
        self >= Self::Complete
    }
}
