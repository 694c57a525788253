//! What is shown of a service's tasks, in Docker's words.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use bollard_stubs::models::{Service, Task, TaskState};

use crate::cli::human;

/// More tasks than these are not shown one by one.
const MOST: u64 = 20;
/// The last state that a bar shows: running.
const RUNNING: u64 = 9;
/// The longest name of a state on the way to that.
const WIDTH: usize = 9;
/// The most that is shown of an error.
const LONGEST: usize = 75;

/// A row of what is shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) text: String,
    /// How far it is, of how much.
    pub(super) of: Option<(u64, u64)>,
}

/// What a look at the tasks found.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Look {
    pub(super) rows: Vec<Row>,
    pub(super) converged: bool,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Board {
    /// From slots, which have gaps, to rows.
    slots: BTreeMap<i64, u64>,
    is_drawn: bool,
}

impl Board {
    /// Looks at the tasks of the newest specification.
    ///
    /// # Errors
    ///
    /// A service without a mode.
    pub(super) fn look(
        &mut self,
        service: &Service,
        tasks: &[Task],
        active: &BTreeSet<String>,
        rollback: bool,
    ) -> anyhow::Result<Look> {
        let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
        let number = |number: Option<i64>| u64::try_from(number.unwrap_or(1)).unwrap_or_default();
        Ok(match mode {
            Some(mode) if mode.replicated.is_some() => {
                let replicas = mode.replicated.as_ref().and_then(|mode| mode.replicas);
                self.replicated(number(replicas), tasks, active, rollback)
            }
            Some(mode) if mode.global.is_some() => {
                self.global(tasks, active, rollback, TaskState::RUNNING)
            }
            Some(mode) if mode.global_job.is_some() => {
                let tasks = of_iteration(service, tasks);
                self.global(&tasks, active, rollback, TaskState::COMPLETE)
            }
            Some(mode) if mode.replicated_job.is_some() => {
                let job = mode.replicated_job.as_ref();
                let total = number(job.and_then(|job| job.total_completions));
                let most = job
                    .and_then(|job| job.max_concurrent)
                    .filter(|most| *most > 0);
                let most = most.map_or(total, |most| number(Some(most)));
                self.job(total, most, &of_iteration(service, tasks))
            }
            _ => bail!("unrecognized service mode"),
        })
    }

    fn replicated(
        &mut self,
        replicas: u64,
        tasks: &[Task],
        active: &BTreeSet<String>,
        rollback: bool,
    ) -> Look {
        let mut rows = Vec::new();
        if !std::mem::replace(&mut self.is_drawn, true) {
            rows.push(overall(0, replicas, rollback));
            if replicas <= MOST {
                rows.extend((1..=replicas).map(|at| row(format!("{at}/{replicas}"), " ")));
            }
        }
        let lives = |task: &&Task| match task.node_id.as_deref() {
            None | Some("") => true,
            Some(node) => active.contains(node),
        };
        let by_slot = favourites(tasks.iter().filter(lives), |task| task.slot);
        let mut running = 0;
        for (slot, task) in by_slot {
            let next = self.slots.len() as u64 + 1;
            let at = *self.slots.entry(slot).or_insert(next);
            running += u64::from(is_wanted(task) && state(task) == TaskState::RUNNING);
            if replicas <= MOST && at <= replicas {
                rows.extend(of_task(task, format!("{at}/{replicas}")));
            }
        }
        rows.push(overall(running, replicas, rollback));
        Look {
            converged: running == replicas,
            rows,
        }
    }

    /// One task on each node, which is to get to `goal`.
    fn global(
        &mut self,
        tasks: &[Task],
        active: &BTreeSet<String>,
        rollback: bool,
        goal: TaskState,
    ) -> Look {
        let by_node = favourites(tasks.iter(), |task| task.node_id.clone());
        let nodes = by_node.len() as u64;
        if nodes == 0 && !self.is_drawn {
            let waits = row("overall progress".to_owned(), "waiting for new tasks");
            return Look {
                rows: vec![waits],
                converged: false,
            };
        }
        let mut rows = Vec::new();
        if !std::mem::replace(&mut self.is_drawn, true) {
            rows.push(overall(0, nodes, rollback));
        }
        let mut done = 0;
        for (node, task) in by_node.iter().filter(|(node, _)| active.contains(*node)) {
            let is_there = state(task) == goal;
            done += u64::from(is_there && (goal == TaskState::COMPLETE || is_wanted(task)));
            if nodes <= MOST {
                rows.extend(of_task(task, human::short_id(node).to_owned()));
            }
        }
        rows.push(overall(done, nodes, rollback));
        Look {
            converged: done == nodes,
            rows,
        }
    }

    fn job(&mut self, total: u64, most: u64, tasks: &[Task]) -> Look {
        let by_slot = favourites(tasks.iter(), |task| task.slot);
        let (mut completed, mut at_work) = (0, 0);
        let mut rows = Vec::new();
        for (slot, task) in by_slot {
            let next = self.slots.len() as u64 + 1;
            let at = *self.slots.entry(slot).or_insert(next);
            let state = state(task);
            completed += u64::from(state == TaskState::COMPLETE);
            at_work += u64::from(number(state) <= RUNNING);
            if total <= MOST && at <= total {
                rows.extend(of_task(task, format!("{at}/{total}")));
            }
        }
        let wanted = most.min(total.saturating_sub(completed));
        let heads = [
            Row {
                of: Some((completed, total)),
                ..row(
                    "job progress".to_owned(),
                    &format!("{completed} out of {total} complete"),
                )
            },
            row(
                "active tasks".to_owned(),
                &format!("{at_work} out of {wanted} tasks"),
            ),
        ];
        Look {
            converged: completed >= total,
            rows: heads.into_iter().chain(rows).collect(),
        }
    }
}

fn row(key: String, text: &str) -> Row {
    Row {
        key,
        text: text.to_owned(),
        of: None,
    }
}

fn overall(done: u64, all: u64, rollback: bool) -> Row {
    let what = if rollback {
        "rolling back update: "
    } else {
        ""
    };
    row(
        "overall progress".to_owned(),
        &format!("{what}{done} out of {all} tasks"),
    )
}

/// What is shown of one task: what is wrong, or how far it is.
fn of_task(task: &Task, key: String) -> Option<Row> {
    let status = task.status.as_ref();
    let error = status
        .and_then(|status| status.err.as_deref())
        .unwrap_or_default();
    if !error.is_empty() {
        let text = human::ellipsis(&error.replace('\n', " "), LONGEST);
        return Some(row(key, &text));
    }
    let state = state(task);
    let name = state.to_string();
    let padded = format!("{name:<WIDTH$}");
    if state == TaskState::COMPLETE {
        return Some(Row {
            of: Some((RUNNING, RUNNING)),
            ..row(key, &padded)
        });
    }
    (is_wanted(task) && number(state) <= RUNNING).then(|| Row {
        of: Some((number(state), RUNNING)),
        ..row(key, &padded)
    })
}

/// Of the tasks with the same key the one that is to go on longest, and of those the one that is least far.
fn favourites<'a, K: Ord>(
    tasks: impl Iterator<Item = &'a Task>,
    key: impl Fn(&Task) -> Option<K>,
) -> BTreeMap<K, &'a Task> {
    let mut found: BTreeMap<K, &Task> = BTreeMap::new();
    let rank = |task: &Task| (number(desired(task)), number(state(task)));
    for task in tasks {
        let Some(key) = key(task) else { continue };
        if number(desired(task)) == 0 || number(state(task)) == 0 {
            continue;
        }
        match found.get(&key) {
            Some(other) if rank(other) <= rank(task) => {}
            _ => drop(found.insert(key, task)),
        }
    }
    found
}

/// Tasks of the run of a job that goes on now.
fn of_iteration(service: &Service, tasks: &[Task]) -> Vec<Task> {
    let status = service.job_status.as_ref();
    let now = status.and_then(|status| status.job_iteration.as_ref()?.index);
    let index = |task: &&Task| {
        task.job_iteration
            .as_ref()
            .and_then(|version| version.index)
    };
    tasks
        .iter()
        .filter(|task| index(task) == now)
        .cloned()
        .collect()
}

fn state(task: &Task) -> TaskState {
    let status = task.status.as_ref();
    status
        .and_then(|status| status.state)
        .unwrap_or(TaskState::NEW)
}

fn desired(task: &Task) -> TaskState {
    task.desired_state.unwrap_or(TaskState::RUNNING)
}

/// Whether it is to go on; jobs are to complete.
fn is_wanted(task: &Task) -> bool {
    number(desired(task)) <= number(TaskState::COMPLETE)
}

/// Where a state is on the way from new to over; 0 for what is no part of that.
fn number(state: TaskState) -> u64 {
    match state {
        TaskState::NEW => 1,
        TaskState::ALLOCATED => 2,
        TaskState::PENDING => 3,
        TaskState::ASSIGNED => 4,
        TaskState::ACCEPTED => 5,
        TaskState::PREPARING => 6,
        TaskState::READY => 7,
        TaskState::STARTING => 8,
        TaskState::RUNNING => RUNNING,
        TaskState::COMPLETE => 10,
        TaskState::SHUTDOWN => 11,
        TaskState::FAILED => 12,
        TaskState::REJECTED => 13,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(mode: Value) -> Service {
        serde_json::from_value(json!({"ID": "s", "Spec": {"Mode": mode}})).expect("a service")
    }

    fn task(slot: i64, node: &str, state: &str, desired: &str) -> Value {
        json!({"Slot": slot, "NodeID": node, "Status": {"State": state}, "DesiredState": desired})
    }

    fn look(board: &mut Board, service: &Service, tasks: Vec<Value>) -> (Vec<String>, bool) {
        let tasks: Vec<Task> = serde_json::from_value(Value::Array(tasks)).expect("tasks");
        let active = ["a".to_owned(), "b".to_owned()].into();
        let look = board.look(service, &tasks, &active, false).expect("a mode");
        let rows = look
            .rows
            .iter()
            .map(|row| format!("{}: {}", row.key, row.text.trim()));
        (rows.collect(), look.converged)
    }

    #[test]
    fn replicas_are_counted_where_they_run() {
        let service = service(json!({"Replicated": {"Replicas": 2}}));
        let mut board = Board::default();
        let (rows, converged) = look(
            &mut board,
            &service,
            vec![task(3, "a", "preparing", "running")],
        );
        assert!(!converged);
        assert_eq!(
            rows,
            [
                "overall progress: 0 out of 2 tasks",
                "1/2: ",
                "2/2: ",
                "1/2: preparing",
                "overall progress: 0 out of 2 tasks",
            ]
        );
        // The old task of a slot and one of a node that is down do not count.
        let tasks = vec![
            task(3, "a", "failed", "shutdown"),
            task(3, "b", "running", "running"),
            task(5, "gone", "running", "running"),
        ];
        let (rows, converged) = look(&mut board, &service, tasks);
        assert!(!converged);
        assert_eq!(rows, ["1/2: running", "overall progress: 1 out of 2 tasks"]);
        let tasks = vec![
            task(3, "b", "running", "running"),
            task(5, "a", "running", "running"),
        ];
        assert!(look(&mut board, &service, tasks).1);
    }

    #[test]
    fn errors_are_shown_on_one_line() {
        let service = service(json!({"Replicated": {"Replicas": 1}}));
        let mut failed = task(1, "a", "rejected", "running");
        failed["Status"]["Err"] = json!(format!("no such\nimage {}", "x".repeat(90)));
        let (rows, _) = look(&mut Board::default(), &service, vec![failed]);
        assert!(rows[2].starts_with("1/1: no such image xxx"), "{rows:?}");
        assert!(rows[2].ends_with('…'));
    }

    #[test]
    fn a_global_service_waits_for_its_first_tasks() {
        let service = service(json!({"Global": {}}));
        let mut board = Board::default();
        let (rows, converged) = look(&mut board, &service, Vec::new());
        assert_eq!(
            (rows, converged),
            (
                vec!["overall progress: waiting for new tasks".to_owned()],
                false
            )
        );
        let tasks = vec![
            task(0, "a", "running", "running"),
            task(0, "b", "running", "running"),
        ];
        assert!(look(&mut board, &service, tasks).1);
    }

    #[test]
    fn jobs_are_done_when_all_of_them_completed() {
        let service =
            service(json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}));
        let mut board = Board::default();
        let tasks = vec![
            task(1, "a", "complete", "complete"),
            task(2, "a", "running", "complete"),
        ];
        let (rows, converged) = look(&mut board, &service, tasks);
        assert!(!converged);
        assert_eq!(
            rows[..2],
            [
                "job progress: 1 out of 2 complete",
                "active tasks: 1 out of 1 tasks"
            ]
        );
        let tasks = vec![
            task(1, "a", "complete", "complete"),
            task(2, "a", "complete", "complete"),
        ];
        assert!(look(&mut board, &service, tasks).1);
    }
}
