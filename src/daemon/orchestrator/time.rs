//! By what time tasks are planned, whatever clocks of hosts say.
//!
//! Clocks of hosts differ, and are set while hosts run. Of what is written in the registry some is a moment that another host
//! wrote, and what is waited for counts from it. So no host goes by its clock: all go by one time, which each counts on by what
//! nobody sets, and which is never earlier than what is written. How long a host has been away, or a task in its state, is what
//! the leader has itself seen.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nuncio_orchestration::Update;
use nuncio_registry::{Catalog, DesiredKind, TaskStatusRecord};
use serde_json::Value;

use super::parsed::Parsed;

/// The last millisecond that RFC 3339 has a word for. What is later is no moment.
const LAST: u64 = 253_402_300_799_999;

/// The time of the mesh, as far as this host knows it. It never goes back, and never leaps but to what another host wrote.
#[derive(Debug)]
pub(in crate::daemon) struct MeshTime(Mutex<Moment>);

/// A moment, by what nobody sets, and by the time of the mesh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Milliseconds since 1970.
    pub(super) millis: u64,
}

impl MeshTime {
    /// Begins with what this host's clock says. Of that clock nothing is asked later.
    pub(in crate::daemon) fn begin() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::from(Moment {
            at: Instant::now(),
            millis: millis(since.unwrap_or_default()).min(LAST),
        })
    }

    fn from(began: Moment) -> Self {
        Self(Mutex::new(began))
    }

    pub(super) fn now(&self) -> Moment {
        self.when(Instant::now())
    }

    fn when(&self, at: Instant) -> Moment {
        let began = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = millis(at.saturating_duration_since(began.at));
        let millis = began.millis.saturating_add(passed);
        Moment { at, millis }
    }

    /// From now on it is no earlier than all that is written.
    pub(super) fn heed(&self, catalog: &Catalog, parsed: &Parsed) {
        self.heed_at(Instant::now(), latest(catalog, parsed));
    }

    fn heed_at(&self, at: Instant, written: u64) {
        if self.when(at).millis < written {
            let mut began = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *began = Moment {
                at,
                millis: written,
            };
        }
    }
}

impl Moment {
    /// An earlier moment by the time of the mesh.
    fn of(&self, earlier: Instant) -> u64 {
        let passed = self.at.saturating_duration_since(earlier);
        self.millis.saturating_sub(millis(passed))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The latest moment of the mesh's time that is written.
fn latest(catalog: &Catalog, parsed: &Parsed) -> u64 {
    let tasks = catalog.desired.tasks.values().flat_map(|record| {
        ["created", "changed"].map(|field| record.task.get(field).and_then(Value::as_u64))
    });
    let of_update = |update: Update| [Some(update.started), update.settled, update.completed];
    let updates = catalog.desired.all(DesiredKind::Update);
    let updates = updates.filter_map(|record| serde_json::from_value(record.state.clone()).ok());
    let services = catalog.desired.all(DesiredKind::Service);
    let ways_back = services.filter_map(|record| parsed.service(record).back.clone());
    let of_updates = updates.chain(ways_back).flat_map(of_update);
    let all = tasks.chain(of_updates).flatten();
    all.filter(|at| *at <= LAST).max().unwrap_or_default()
}

/// Since when hosts have been heard of, or not, and tasks have been in the states that their hosts tell, as this daemon saw it:
/// of what was so when it began, since then.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hosts: BTreeMap<String, (bool, Instant)>,
    told: BTreeMap<String, (String, Instant)>,
}

impl Seen {
    /// Notes what is so at a moment.
    pub(super) fn note(&mut self, catalog: &Catalog, at: Instant) {
        self.hosts
            .retain(|node, _| catalog.nodes.contains_key(node));
        for node in catalog.nodes.keys() {
            note(&mut self.hosts, node, &catalog.alive.contains(node), at);
        }
        let tasks = &catalog.desired.tasks;
        self.told.retain(|task, _| tasks.contains_key(task));
        for record in tasks.values() {
            if let Some(status) = catalog.desired.status(record) {
                note(&mut self.told, &record.id, &status.state, at);
            }
        }
    }

    /// Since when a host lives, or does not.
    pub(super) fn host(&self, node: &str, now: Moment) -> u64 {
        self.hosts
            .get(node)
            .map_or(now.millis, |(_, at)| now.of(*at))
    }

    /// Since when a task is as its host tells.
    pub(super) fn told(&self, status: &TaskStatusRecord, now: Moment) -> u64 {
        let seen = self.told.get(&status.task);
        seen.map_or(now.millis, |(_, at)| now.of(*at))
    }
}

fn note<T: PartialEq + Clone>(
    seen: &mut BTreeMap<String, (T, Instant)>,
    id: &str,
    is: &T,
    at: Instant,
) {
    match seen.get_mut(id) {
        Some((was, _)) if was == is => {}
        Some(known) => *known = (is.clone(), at),
        None => drop(seen.insert(id.to_owned(), (is.clone(), at))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nuncio_registry::{DesiredRecord, TaskRecord};
    use serde_json::json;

    use super::super::cluster;
    use super::super::parsed::Parsed;
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOON: u64 = 1_700_000_000_000;

    fn time(at: Instant, millis: u64) -> MeshTime {
        MeshTime::from(Moment { at, millis })
    }

    /// With one host `h`, which lives or not, and one task `t` of it, which the leader wrote at `NOON`.
    fn mesh(alive: bool, told: Option<TaskStatusRecord>) -> Catalog {
        let mut catalog = Catalog::default();
        let node = nuncio_registry::NodeRecord {
            id: "h".to_owned(),
            name: "h".to_owned(),
            address: [198, 18, 0, 1].into(),
            mac: [2, 0, 0, 0, 0, 1],
            port: 4789,
            incarnation: 1,
            wireguard: None,
            fallback: None,
            links: None,
            machine: None,
            peek: None,
        };
        catalog.nodes.insert("h".to_owned(), Arc::new(node));
        catalog.alive.extend(alive.then(|| "h".to_owned()));
        let task = TaskRecord {
            id: "t".to_owned(),
            service: "s".to_owned(),
            node: Some("h".to_owned()),
            task: json!({"id": "t", "service": "s", "node": "h", "created": NOON, "changed": NOON, "state": "assigned"}),
            spec: json!({}),
            updated: String::new(),
        };
        catalog.desired.tasks.insert("t".to_owned(), Arc::new(task));
        if let Some(status) = told {
            let key = (status.task.clone(), status.node.clone());
            let statuses = &mut catalog.desired.statuses;
            statuses.insert(key, Arc::new(status));
        }
        catalog
    }

    fn failed(started: u64, since: u64) -> TaskStatusRecord {
        TaskStatusRecord {
            task: "t".to_owned(),
            node: "h".to_owned(),
            state: "failed".to_owned(),
            since: cluster::timestamp(since),
            started: Some(cluster::timestamp(started)),
            ..TaskStatusRecord::default()
        }
    }

    #[test]
    fn it_goes_on_from_what_another_host_wrote_and_never_back() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let behind = time(began, NOON - HOUR);
        behind.heed_at(after(5), NOON);
        assert_eq!(behind.when(after(7)).millis, NOON + 2_000);
        behind.heed_at(after(8), NOON + 1_000);
        assert_eq!(behind.when(after(8)).millis, NOON + 3_000);
        let ahead = time(began, NOON + HOUR);
        ahead.heed_at(after(5), NOON);
        assert_eq!(ahead.when(after(5)).millis, NOON + HOUR + 5_000);
    }

    #[test]
    fn all_that_is_written_is_heeded_but_for_what_is_no_moment() {
        let mut catalog = mesh(true, None);
        let parsed = Parsed::default();
        assert_eq!(latest(&catalog, &parsed), NOON);
        let record = |state: Value| {
            Arc::new(DesiredRecord {
                id: "s".to_owned(),
                name: String::new(),
                version: 1,
                created: String::new(),
                updated: String::new(),
                spec: Value::Null,
                state,
            })
        };
        let mut put = |kind, state| {
            let key = (kind, "s".to_owned());
            catalog.desired.records.insert(key, record(state));
            latest(&catalog, &parsed)
        };
        let update = |settled| json!({"started": NOON + 1, "settled": settled});
        assert_eq!(put(DesiredKind::Update, update(NOON + 2)), NOON + 2);
        assert_eq!(put(DesiredKind::Update, update(u64::MAX)), NOON + 1);
        let back = json!({"back": {"started": NOON + 3}});
        assert_eq!(put(DesiredKind::Service, back), NOON + 3);
    }

    #[test]
    fn how_long_a_host_is_away_is_what_was_seen_whatever_is_written() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let (time, mut seen) = (time(began, NOON), Seen::default());
        seen.note(&mesh(true, None), began);
        seen.note(&mesh(false, None), after(3));
        seen.note(&mesh(false, None), after(4));
        let away = |at| {
            let now = time.when(at);
            now.millis - seen.host("h", now)
        };
        assert_eq!(away(after(10)), 7_000);
        // A host whose clock is ahead has written meanwhile.
        time.heed_at(after(10), NOON + HOUR);
        assert_eq!(away(after(10)), 7_000);
        assert_eq!(away(after(12)), 9_000);
        let unknown = time.when(after(12));
        assert_eq!(seen.host("other", unknown), unknown.millis);
    }

    #[test]
    fn when_a_task_came_to_its_state_is_when_it_was_seen_and_how_long_it_ran_is_its_hosts_word() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        for clock in [NOON + HOUR, NOON - HOUR] {
            let (time, mut seen) = (time(began, NOON), Seen::default());
            seen.note(&mesh(true, None), began);
            let catalog = mesh(true, Some(failed(clock, clock + 4_000)));
            let parsed = Parsed::default();
            seen.note(&catalog, after(20));
            seen.note(&catalog, after(21));
            let planned = cluster::cluster(&catalog, &parsed, &seen, time.when(after(25)));
            let task = &planned.tasks["t"];
            assert_eq!(task.changed, NOON + 20_000);
            assert_eq!(task.started, Some(NOON + 16_000));
            assert_eq!(planned.now, NOON + 25_000);
            // It is shown as its host tells.
            let record = &catalog.desired.tasks["t"];
            let shown = cluster::task(&catalog, record, &parsed).expect("a task");
            assert_eq!(shown.changed, clock + 4_000);
        }
    }
}
