//! What records mean: read once for each change of one, not at each look at all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bollard_stubs::models::EndpointPortConfig;
use nuncio_ambassador::ProxyVersion;
use nuncio_orchestration::{Service, Task, Update};
use nuncio_registry::{Catalog, DesiredKind, DesiredRecord, TaskRecord};

use super::services::ServiceState;
use super::{cluster, ingress, spec};
use crate::daemon::container::locked;

/// What was read of the records that this host knows.
#[derive(Default)]
pub(in crate::daemon) struct Parsed {
    tasks: Mutex<Memo<TaskRecord, Written>>,
    services: Mutex<Memo<DesiredRecord, Offer>>,
}

/// A task, as the leader wrote it.
pub(super) struct Written {
    /// `None`: this daemon cannot read it.
    pub(super) task: Option<Task>,
    /// Other hosts find it by name or by a published port.
    pub(super) is_found: bool,
    /// A name leads to it itself, not to an address of its service.
    pub(super) is_round_robin: bool,
}

/// What a service is, and what hosts do for it.
pub(super) struct Offer {
    /// As the scheduler has it, but for how far its update has come. `None`: this daemon cannot read it.
    pub(super) service: Option<Service>,
    /// The ports that it publishes, with their numbers.
    pub(super) ports: Vec<EndpointPortConfig>,
    /// The first bytes of each connection to those say who the client is.
    pub(super) proxy: Option<ProxyVersion>,
    /// How it goes back to what it was, while it does.
    pub(super) back: Option<Update>,
}

/// What was read of records, by their identifiers.
struct Memo<R, T>(HashMap<String, (Arc<R>, Arc<T>)>);

impl<R, T> Default for Memo<R, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<R, T> Memo<R, T> {
    fn read(&mut self, id: &str, record: &Arc<R>, read: impl FnOnce(&R) -> T) -> Arc<T> {
        match self.0.get(id) {
            Some((known, read)) if Arc::ptr_eq(known, record) => Arc::clone(read),
            _ => {
                let read = Arc::new(read(record));
                let entry = (Arc::clone(record), Arc::clone(&read));
                self.0.insert(id.to_owned(), entry);
                read
            }
        }
    }

    /// Forgets those that are no more, once they are worth it.
    fn tidy(&mut self, number: usize, is_known: impl Fn(&str) -> bool) {
        if self.0.len() > number {
            self.0.retain(|id, _| is_known(id));
        }
    }
}

impl Parsed {
    pub(super) fn task(&self, record: &Arc<TaskRecord>) -> Arc<Written> {
        locked(&self.tasks).read(&record.id, record, |record| {
            let parsed = spec::parse(&record.spec);
            let parsed = parsed.as_ref();
            Written {
                task: serde_json::from_value(record.task.clone()).ok(),
                is_found: parsed.is_ok_and(spec::is_found),
                is_round_robin: parsed.is_ok_and(spec::is_round_robin),
            }
        })
    }

    pub(super) fn service(&self, record: &Arc<DesiredRecord>) -> Arc<Offer> {
        locked(&self.services).read(&record.id, record, |record| {
            let parsed = spec::parse(&record.spec).unwrap_or_default();
            Offer {
                service: cluster::service(record),
                ports: ingress::published(record),
                proxy: ingress::proxy(&spec::labels(&parsed)).ok().flatten(),
                back: ServiceState::of(record).back,
            }
        })
    }

    /// Forgets what is not known of any more.
    pub(super) fn tidy(&self, catalog: &Catalog) {
        let desired = &catalog.desired;
        locked(&self.tasks).tidy(desired.tasks.len(), |id| desired.tasks.contains_key(id));
        let kind = DesiredKind::Service;
        let number = desired.all(kind).count();
        locked(&self.services).tidy(number, |id| desired.get(kind, id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_read_again_when_it_has_changed() {
        let parsed = Parsed::default();
        let record = |image: &str| {
            Arc::new(TaskRecord {
                id: "t".to_owned(),
                task: json!({ "id": "t", "service": image }),
                ..TaskRecord::default()
            })
        };
        let (first, second) = (record("a"), record("b"));
        let service = |read: &Written| read.task.clone().expect("a task").service;
        let read = parsed.task(&first);
        assert!(Arc::ptr_eq(&read, &parsed.task(&first)));
        assert_eq!(service(&read), "a");
        assert_eq!(service(&parsed.task(&second)), "b");
        parsed.tidy(&Catalog::default());
        assert!(locked(&parsed.tasks).0.is_empty());
    }
}
