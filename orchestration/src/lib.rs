//! Decides which tasks of which service run on which host, as Swarm does; and nothing else.
//!
//! [`plan`] is a pure function: from a [`Cluster`], which is all that is wanted and all that there is, to the [`Action`]s
//! that bring the one nearer to the other. It does no I/O, reads no clock and draws no lots. Two leaders that see the same
//! plan the same, down to the ids of new tasks; a leader that died is followed by one that goes on from what was carried out,
//! for nothing is remembered but in the records themselves ([`Update`] has what a rolling update has come to).
//!
//! Actions are carried out in their order, each as a transaction of its own. Any of them may be lost, come twice or come from
//! a plan that is a little old: the next plan makes up for it.
//!
//! [`explain_pending`] tells, host by host, why a task has no place.

mod constraint;
mod identity;
mod model;
mod plan;
mod service;
mod settings;
mod task;

pub use constraint::{Constraint, ConstraintError, Operator};
pub use model::{Availability, Cluster, Node};
pub use plan::{Action, Plan, Refusal, explain_pending, plan};
pub use service::{Service, Update, UpdateState};
pub use settings::{
    Condition, FailureAction, HostPort, Mode, Order, Placement, Platform, Preference,
    PreferenceError, Protocol, Resources, RestartPolicy, Spec, UpdateConfig,
};
pub use task::{Desired, Slot, Task, TaskState};
