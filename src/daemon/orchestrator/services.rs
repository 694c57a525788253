//! Services as they are wanted: made, changed and taken back by whoever asks, on any host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use nuncio_orchestration::Update;
use nuncio_registry::{DesireError, DesiredKind, DesiredRecord, Needs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::accounts::{Account, AccountFrom, KeptFrom};
use super::outfit::INGRESS;
use super::{check_sequence, drain, ingress, new_short_id, spec, task_files};
use crate::daemon::Daemon;
use crate::daemon::network_edit::NetworkCreate;
use crate::daemon::refusal::Refusal;
use crate::daemon::sealed::Sealed;

/// Tasks of so many earlier versions may stay when only their placement changes.
const MOST_AKIN: usize = 64;

/// What is known of a service beside its specification.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ServiceState {
    /// Changes when its tasks are to be replaced; never comes again, but for going back to what was before.
    pub(crate) spec_version: u64,
    /// The greatest that there has been.
    pub(crate) last_version: u64,
    /// Versions that differ from this one by where tasks may run alone.
    pub(crate) akin: BTreeSet<u64>,
    /// What was wanted before, and its version.
    pub(crate) previous: Option<Previous>,
    /// Its tasks are to be spread anew.
    pub(crate) rebalance: bool,
    /// Numbers that were chosen for ports published without, as `80/tcp`.
    pub(crate) ports: BTreeMap<String, u16>,
    /// The account by which its tasks fetch their image.
    pub(crate) account: Option<Sealed>,
    /// It is gone back to what was before, by request or because an update failed: how that began.
    pub(crate) back: Option<Update>,
}

/// What was wanted before.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Previous {
    pub(crate) spec: Value,
    pub(crate) spec_version: u64,
    #[serde(default)]
    pub(crate) akin: BTreeSet<u64>,
    #[serde(default)]
    pub(crate) account: Option<Sealed>,
}

impl ServiceState {
    pub(crate) fn of(record: &DesiredRecord) -> Self {
        serde_json::from_value(record.state.clone()).unwrap_or_default()
    }

    fn store(&self, record: &mut DesiredRecord) {
        record.state = serde_json::to_value(self).unwrap_or_default();
    }
}

/// What is asked of a service that is there.
#[derive(Default)]
pub(crate) struct ServiceChange {
    /// The version that the asker saw.
    pub(crate) version: u64,
    /// `None`: what was wanted before.
    pub(crate) spec: Option<Value>,
    /// Its tasks are to be spread anew.
    pub(crate) rebalance: bool,
    /// By which account its tasks fetch their image. Who goes back has that of then.
    pub(crate) account: AccountFrom,
}

impl Daemon {
    /// Wants a service; its identifier.
    pub(crate) async fn service_create(
        &self,
        mut wanted: Value,
        account: Option<Account>,
    ) -> anyhow::Result<String> {
        spec::normalize(&mut wanted);
        let name = self.check_service(&wanted, None).await?;
        let id = new_short_id();
        let state = ServiceState {
            spec_version: 1,
            last_version: 1,
            ports: self.choose_ports(&wanted, None, &BTreeMap::new())?,
            account: self.seal_account(&id, account.as_ref())?,
            ..ServiceState::default()
        };
        let now = Timestamp::now().to_string();
        let mut record = DesiredRecord {
            id,
            name,
            version: 1,
            created: now.clone(),
            updated: now,
            spec: wanted,
            state: Value::Null,
        };
        state.store(&mut record);
        let needs = task_files::needs(&spec::parse(&record.spec)?)?;
        let desired = self
            .registry
            .desire_needing(DesiredKind::Service, &record, &needs);
        match desired.await {
            Ok(revision) => self.know(revision).await,
            Err(DesireError::Missing { kind, id }) => return Err(gone(kind, &id).into()),
            Err(DesireError::NameTaken { name, .. }) => {
                return Err(Refusal::conflict(format!(
                    "name conflicts with an existing object: service {name} already exists"
                ))
                .into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(record.id)
    }

    /// The service of that name, id or beginning of an id.
    pub(crate) fn service(&self, wanted: &str) -> anyhow::Result<Arc<DesiredRecord>> {
        self.desired_one(DesiredKind::Service, wanted, "service")
    }

    /// Wants something else of a service.
    pub(crate) async fn service_update(
        &self,
        wanted: &str,
        mut change: ServiceChange,
    ) -> anyhow::Result<()> {
        if let Some(spec) = &mut change.spec {
            spec::normalize(spec);
        }
        let service = self.service(wanted)?;
        if let Some(spec) = &change.spec {
            let name = self.check_service(spec, Some(&service.id)).await?;
            if name != service.name {
                return Err(Refusal::unsupported("renaming services is not supported").into());
            }
        }
        let account = self.keep_account(&service.id, &change.account)?;
        let needs = match &change.spec {
            Some(spec) => task_files::needs(&spec::parse(spec)?)?,
            None => Needs::new(),
        };
        let (kind, id) = (DesiredKind::Service, &service.id);
        let changed = self
            .registry
            .redesire_needing(kind, id, &needs, |before| {
                let Some(mut record) = before else {
                    return Err(no_such("service", wanted));
                };
                check_sequence(&record, change.version)?;
                let mut state = ServiceState::of(&record);
                let next = match &change.spec {
                    Some(spec) => spec.clone(),
                    None => match &state.previous {
                        Some(previous) => previous.spec.clone(),
                        None => {
                            return Err(Refusal::invalid(
                                "rpc error: code = FailedPrecondition desc = service does not have a previous spec",
                            ));
                        }
                    },
                };
                state.ports = self.choose_ports(&next, Some(&record.id), &state.ports)?;
                let back = change.spec.is_none();
                let account = if back { &KeptFrom::PreviousSpec } else { &account };
                turn_to(&mut record, &mut state, next, back, account)?;
                let now = self.mesh_time.now().millis;
                state.back = back.then(|| Update::going_back(state.spec_version, now));
                state.rebalance |= change.rebalance;
                state.store(&mut record);
                Ok(record)
            })
            .await;
        self.settle_desire(changed).await
    }

    /// Wants a service no more; its tasks end.
    pub(crate) async fn service_remove(&self, wanted: &str) -> anyhow::Result<()> {
        let service = self.service(wanted)?;
        let undesired = self
            .registry
            .undesire(DesiredKind::Service, &service.id, &service.name);
        match undesired.await? {
            Some(revision) => {
                self.know(revision).await;
                Ok(())
            }
            None => Err(no_such("service", wanted).into()),
        }
    }

    /// Goes back to what was wanted of a service before, because its update failed, unless somebody was quicker.
    pub(super) async fn roll_back(&self, id: &str, update: &Update) -> anyhow::Result<()> {
        let changed = self
            .registry
            .redesire(DesiredKind::Service, id, |before| {
                let mut record = before.ok_or_else(|| no_such("service", id))?;
                let mut state = ServiceState::of(&record);
                if let Some(previous) = state.previous.clone()
                    && previous.spec_version == update.version
                    && state.back.is_none()
                {
                    let account = &KeptFrom::PreviousSpec;
                    turn_to(&mut record, &mut state, previous.spec, true, account)?;
                    state.back = Some(update.clone());
                    state.store(&mut record);
                }
                Ok::<_, Refusal>(record)
            })
            .await;
        self.settle_desire(changed).await
    }

    /// Notes that a service's tasks are spread anew.
    pub(super) async fn note_rebalanced(&self, id: &str) -> anyhow::Result<()> {
        let changed = self
            .registry
            .redesire(DesiredKind::Service, id, |before| {
                let mut record = before.ok_or_else(|| no_such("service", id))?;
                let mut state = ServiceState::of(&record);
                state.rebalance = false;
                state.store(&mut record);
                Ok::<_, Refusal>(record)
            })
            .await;
        self.settle_desire(changed).await
    }

    /// Waits until this host knows of a change.
    pub(super) async fn settle_desire(
        &self,
        changed: Result<(DesiredRecord, i64), DesireError<Refusal>>,
    ) -> anyhow::Result<()> {
        match changed {
            Ok((_, revision)) => {
                self.know(revision).await;
                Ok(())
            }
            Err(DesireError::Refused(refusal)) => Err(refusal.into()),
            Err(DesireError::Missing { kind, id }) => Err(gone(kind, &id).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a specification that names what there is not, or takes what another service has; the service's name.
    async fn check_service(&self, wanted: &Value, id: Option<&str>) -> anyhow::Result<String> {
        let parsed = spec::parse(wanted)?;
        spec::check(&parsed)?;
        let labels = spec::labels(&parsed);
        ingress::proxy(&labels)?;
        drain::check(&labels)?;
        for network in spec::networks(&parsed) {
            let target = network.target.unwrap_or_default();
            if ["host", "none"].contains(&target.as_str()) {
                continue;
            }
            let found = self.network(&target).await?;
            if found.scope != "swarm" && !["host", "null"].contains(&found.driver.as_str()) {
                return Err(Refusal::invalid(format!(
                    "The network {target} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver."
                ))
                .into());
            }
        }
        self.check_files(&parsed)?;
        self.check_published(&parsed, id)?;
        if spec::ports(&parsed).iter().any(spec::is_ingress) {
            self.ensure_ingress().await?;
        }
        Ok(parsed.name.unwrap_or_default())
    }

    /// Each published port leads to one service.
    fn check_published(
        &self,
        wanted: &bollard_stubs::models::ServiceSpec,
        id: Option<&str>,
    ) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let others = catalog.desired.all(DesiredKind::Service);
        for other in others.filter(|other| id != Some(&other.id)) {
            for theirs in ingress::published(other) {
                let same = spec::ports(wanted).into_iter().find(|port| {
                    let number = port.published_port.unwrap_or_default();
                    number != 0
                        && theirs.published_port == Some(number)
                        && spec::protocol(port) == spec::protocol(&theirs)
                        && (spec::is_ingress(port) || spec::is_ingress(&theirs))
                });
                if let Some(port) = same {
                    let how = match spec::is_ingress(&theirs) {
                        true => "an ingress",
                        false => "a host-published",
                    };
                    return Err(Refusal::invalid(format!(
                        "port '{}' is already in use by service '{}' ({}) as {how} port",
                        port.published_port.unwrap_or_default(),
                        other.name,
                        other.id
                    )));
                }
            }
        }
        Ok(())
    }

    fn choose_ports(
        &self,
        wanted: &Value,
        id: Option<&str>,
        before: &BTreeMap<String, u16>,
    ) -> Result<BTreeMap<String, u16>, Refusal> {
        let ports = spec::ports(&spec::parse(wanted)?);
        ingress::choose(&self.catalog(), id, &ports, before)
    }

    /// Makes the network by which published ports lead to tasks, once for the mesh.
    async fn ensure_ingress(&self) -> anyhow::Result<()> {
        if self.find_network(INGRESS).await.is_ok() {
            return Ok(());
        }
        let request = NetworkCreate {
            name: INGRESS.to_owned(),
            driver: "overlay".to_owned(),
            labels: [("nuncio.ingress".to_owned(), String::new())].into(),
            ..NetworkCreate::default()
        };
        match self.network_create(request).await {
            Ok(_) => Ok(()),
            // somebody else made it at the same time
            Err(error) if Refusal::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Wants `next` of a service from now on.
fn turn_to(
    record: &mut DesiredRecord,
    state: &mut ServiceState,
    next: Value,
    back: bool,
    account: &KeptFrom,
) -> Result<(), Refusal> {
    let previous = Previous {
        spec: record.spec.clone(),
        spec_version: state.spec_version,
        akin: state.akin.clone(),
        account: state.account.clone(),
    };
    let earlier = state.previous.as_ref();
    let earlier = earlier.map(|earlier| earlier.account.clone());
    state.account = account.choose(state.account.take(), earlier)?;
    let same = spec::substance(&record.spec) == spec::substance(&next);
    let before = state.previous.take();
    if !same {
        let known = before.filter(|before| spec::substance(&before.spec) == spec::substance(&next));
        let mut akin = match spec::bare_substance(&record.spec) == spec::bare_substance(&next) {
            true => &state.akin | &BTreeSet::from([state.spec_version]),
            false => BTreeSet::new(),
        };
        state.spec_version = match known.filter(|_| back) {
            Some(before) => {
                akin.extend(before.akin);
                before.spec_version
            }
            None => {
                state.last_version += 1;
                state.last_version
            }
        };
        akin.remove(&state.spec_version);
        while akin.len() > MOST_AKIN {
            akin.pop_first();
        }
        state.akin = akin;
    }
    state.previous = Some(previous);
    state.back = None;
    record.version += 1;
    record.updated = Timestamp::now().to_string();
    record.spec = next;
    Ok(())
}

/// What a service names was removed while the service was made or changed.
fn gone(kind: DesiredKind, id: &str) -> Refusal {
    let word = if kind == DesiredKind::Secret {
        "secret"
    } else {
        "config"
    };
    Refusal::invalid(format!(
        "rpc error: code = InvalidArgument desc = {word} not found: {id}"
    ))
}

pub(crate) fn no_such(what: &str, wanted: &str) -> Refusal {
    Refusal::not_found(format!("{what} {wanted} not found"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(image: &str) -> (DesiredRecord, ServiceState) {
        let record = DesiredRecord {
            version: 1,
            spec: of(image, 1),
            ..DesiredRecord::default()
        };
        let state = ServiceState {
            spec_version: 1,
            last_version: 1,
            ..ServiceState::default()
        };
        (record, state)
    }

    fn of(image: &str, replicas: u64) -> Value {
        json!({
            "Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        })
    }

    fn turn(record: &mut DesiredRecord, state: &mut ServiceState, next: Value, back: bool) {
        turn_to(record, state, next, back, &KeptFrom::Spec).expect("it turns");
    }

    #[test]
    fn only_what_a_task_would_notice_makes_another_version() {
        let (mut record, mut state) = record("a");
        turn(&mut record, &mut state, of("a", 5), false);
        assert_eq!((record.version, state.spec_version), (2, 1));
        turn(&mut record, &mut state, of("b", 5), false);
        assert_eq!((record.version, state.spec_version), (3, 2));
    }

    #[test]
    fn going_back_is_the_version_that_was_and_going_on_another() {
        let (mut record, mut state) = record("a");
        turn(&mut record, &mut state, of("b", 1), false);
        let previous = state.previous.clone().expect("there was one");
        turn(&mut record, &mut state, previous.spec, true);
        assert_eq!((state.spec_version, state.last_version), (1, 2));
        turn(&mut record, &mut state, of("b", 1), false);
        assert_eq!((state.spec_version, state.last_version), (3, 3));
    }

    #[test]
    fn versions_are_akin_that_differ_by_placement_alone() {
        let (mut record, mut state) = record("a");
        let at = |image: &str, constraint: &str| {
            let mut spec = of(image, 1);
            spec["TaskTemplate"]["Placement"] = json!({ "Constraints": [constraint] });
            spec
        };
        turn(&mut record, &mut state, at("a", "node.id==x"), false);
        turn(&mut record, &mut state, at("a", "node.id==y"), false);
        assert_eq!((state.spec_version, &state.akin), (3, &[1, 2].into()));
        let previous = state.previous.clone().expect("there was one");
        turn(&mut record, &mut state, previous.spec, true);
        assert_eq!((state.spec_version, &state.akin), (2, &[1, 3].into()));
        turn(&mut record, &mut state, at("b", "node.id==x"), false);
        assert_eq!((state.spec_version, &state.akin), (4, &[].into()));
        let previous = state.previous.clone().expect("there was one");
        turn(&mut record, &mut state, previous.spec, true);
        assert_eq!((state.spec_version, &state.akin), (2, &[1, 3].into()));
    }

    #[test]
    fn an_account_is_kept_until_another_is_given_and_goes_back_with_the_rest() {
        let sealed = |text: &str| {
            let none = std::collections::BTreeMap::new();
            Some(Sealed::new(text.as_bytes(), "x", &none).expect("it is sealed"))
        };
        let (one, other) = (sealed("one"), sealed("other"));
        let (mut record, mut state) = record("a");
        let mut turn = |state: &mut ServiceState, from: KeptFrom| {
            turn_to(&mut record, state, of("a", 1), false, &from)
        };
        let refused = turn(&mut state, KeptFrom::PreviousSpec).expect_err("there was none");
        assert!(refused.message.contains("previous spec"), "{refused}");
        turn(&mut state, KeptFrom::Given(one.clone())).expect("it turns");
        turn(&mut state, KeptFrom::Spec).expect("it turns");
        assert_eq!(state.account, one);
        turn(&mut state, KeptFrom::Given(other.clone())).expect("it turns");
        assert_eq!(state.account, other);
        turn(&mut state, KeptFrom::PreviousSpec).expect("it turns");
        assert_eq!(state.account, one);
        turn(&mut state, KeptFrom::Given(None)).expect("it turns");
        assert_eq!(state.account, None);
    }
}
