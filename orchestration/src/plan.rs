//! From what is wanted and what there is to what is to be done.

use serde::{Deserialize, Serialize};

use crate::{Cluster, Desired, Placement, Task, Update};

mod adopt;
mod draft;
mod explain;
mod history;
mod hosts;
mod jobs;
mod place;
mod rebalance;
mod restart;
mod rollout;
mod services;
mod slot;
mod spread;

pub use explain::explain_pending;
pub use hosts::Refusal;

use draft::Draft;

/// What is to be done, and when to look again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// To be carried out in this order, as far as one gets. There may be as many as there are tasks.
    pub actions: Vec<Action>,
    /// When to plan again though nothing has changed, in milliseconds since the Unix epoch; never, if none.
    pub wake_at: Option<u64>,
}

/// One thing to be done, in one transaction, by whoever still leads. Each can come twice without harm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::large_enum_variant,
    reason = "most actions of a large plan are the large ones"
)]
pub enum Action {
    /// Writes a new task, unless one with its id is there. It already has its host if there is one that suits: then its state
    /// is [`Assigned`](crate::TaskState::Assigned).
    Create(Task),
    /// Gives a task without a host to one: `node` is set, the state becomes [`Assigned`](crate::TaskState::Assigned), and
    /// `reason` none.
    Assign {
        /// The task's id.
        task: String,
        /// The host's id.
        node: String,
    },
    /// Wants something else of a task, and has `announced` and `drained` false if that is its end.
    Desire {
        /// The task's id.
        task: String,
        /// What is wanted now.
        desired: Desired,
    },
    /// Says why a task has no host. Its state becomes [`Pending`](crate::TaskState::Pending), and `changed` stays.
    Explain {
        /// The task's id.
        task: String,
        /// The reason, in Swarm's words.
        reason: String,
    },
    /// Gives a task up, whose host has been away for a day or was removed: its state becomes
    /// [`Orphaned`](crate::TaskState::Orphaned). An agent that finds a task of its own orphaned, or gone, ends it.
    Orphan {
        /// The task's id.
        task: String,
    },
    /// Has a task count as of another version of its service, which differs from its own by the placement alone: both are written.
    Adopt {
        /// The task's id.
        task: String,
        /// The version that it is of now.
        spec_version: u64,
        /// That version's placement.
        placement: Placement,
    },
    /// Writes how far a service's update has come.
    Progress {
        /// The service's id.
        service: String,
        /// How far.
        update: Update,
    },
    /// Goes back: the spec becomes the previous one, there is no previous one any more, and the update is this one. If the
    /// previous one's version is no longer `update.version`, somebody was quicker, and nothing is done.
    RollBack {
        /// The service's id.
        service: String,
        /// The way back, as it begins.
        update: Update,
    },
    /// Deletes the record of a task that has ended or never had a host.
    Forget {
        /// The task's id.
        task: String,
    },
    /// The tasks of a service are as even as they can be: `rebalance` becomes false.
    Rebalanced {
        /// The service's id.
        service: String,
    },
}

/// Works out what is to be done next. The same cluster gives the same plan.
///
/// ```
/// use nuncio_orchestration::{Action, Cluster, Node, Service, plan};
///
/// let mut cluster = Cluster::default();
/// for id in ["a", "b"] {
///     let node = Node { id: id.into(), alive: true, ..Node::default() };
///     cluster.nodes.insert(id.into(), node);
/// }
/// let web = Service { id: "web".into(), ..Service::default() };
/// cluster.services.insert("web".into(), web);
///
/// let [Action::Create(task)] = &plan(&cluster).actions[..] else { panic!("one task is wanted") };
/// assert_eq!(task.node.as_deref(), Some("a"));
/// ```
#[must_use]
pub fn plan(cluster: &Cluster) -> Plan {
    if !cluster.frozen {
        let actions = adopt::adopt(cluster);
        if !actions.is_empty() {
            // What else is to be done depends on them.
            let wake_at = Some(cluster.now);
            return Plan { actions, wake_at };
        }
    }
    let mut draft = Draft::new(cluster);
    if !cluster.frozen {
        services::bring_near(&mut draft);
    }
    place::place(&mut draft);
    draft.finish()
}
