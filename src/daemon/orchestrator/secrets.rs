//! Secrets and configs: what containers of services are given as files. A secret's data is sealed in the registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::ServiceSpec;
use jiff::Timestamp;
use nuncio_registry::{Catalog, DesireError, DesiredKind, DesiredRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::services::no_such;
use super::{check_sequence, new_short_id, spec, task_files};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;
use crate::daemon::sealed::{SealError, Sealed};

/// How long a task waits for what is not sealed to its host yet.
pub(super) const HANDED_ON: Duration = Duration::from_secs(30);
/// Characters of a name.
const LONGEST_NAME: usize = 64;

/// What containers are given as files.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileKind {
    Secret,
    Config,
}

impl FileKind {
    /// As Docker calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    pub(crate) fn desired(self) -> DesiredKind {
        match self {
            Self::Secret => DesiredKind::Secret,
            Self::Config => DesiredKind::Config,
        }
    }

    /// Its data has fewer bytes; Swarm's limits.
    fn most(self) -> usize {
        match self {
            Self::Secret => 500 << 10,
            Self::Config => 1000 << 10,
        }
    }
}

/// The body of a request to make one or to change one's labels.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct FileSpec {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    data: Option<Zeroizing<String>>,
    driver: Option<Value>,
    templating: Option<Value>,
}

impl FileSpec {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// What is kept in clear of it.
    fn kept(&self) -> Value {
        json!({ "Name": self.name(), "Labels": self.labels.clone().unwrap_or_default() })
    }

    fn data(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let data = self.data.as_ref().map_or("", |data| data.as_str());
        let decoded = STANDARD.decode(data);
        // What is in it must not be repeated in a message.
        decoded
            .map(Zeroizing::new)
            .map_err(|_| Refusal::invalid("invalid Data: expected base64"))
    }

    /// Refuses what cannot be made, in Swarm's words; its data.
    fn check(&self, kind: FileKind) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let word = kind.word();
        let name = self.name();
        if name.is_empty() {
            return Err(invalid("name must be provided"));
        }
        if !is_name(name) {
            return Err(invalid(format!(
                "invalid name {name:?}: only {LONGEST_NAME} [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
            )));
        }
        for (what, driver) in [
            ("driver", &self.driver),
            ("templating driver", &self.templating),
        ] {
            let driver = driver.as_ref().filter(|driver| !driver.is_null());
            if let Some(driver) = driver {
                let name = driver["Name"].as_str().unwrap_or_default();
                return Err(Refusal::unsupported(format!(
                    "not built: {word} {what} {name:?}"
                )));
            }
        }
        let data = self.data()?;
        let most = kind.most();
        if data.is_empty() || data.len() >= most {
            return Err(invalid(format!(
                "{word} data must be larger than 0 and less than {most} bytes"
            )));
        }
        Ok(data)
    }
}

fn invalid(message: impl std::fmt::Display) -> Refusal {
    Refusal::invalid(format!(
        "rpc error: code = InvalidArgument desc = {message}"
    ))
}

fn is_name(name: &str) -> bool {
    let ends = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
    let mut all = name.chars();
    name.len() <= LONGEST_NAME
        && ends(name.chars().next())
        && ends(name.chars().next_back())
        && all.all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one))
}

/// What a sealed secret is for, so that it is read as nothing else.
fn purpose(id: &str) -> String {
    format!("secret/{id}")
}

impl Daemon {
    /// Makes a secret or config; its identifier.
    pub(crate) async fn file_create(
        &self,
        kind: FileKind,
        asked: FileSpec,
    ) -> anyhow::Result<String> {
        let data = asked.check(kind)?;
        let (id, now) = (new_short_id(), Timestamp::now().to_string());
        let (mut spec, mut state) = (asked.kept(), Value::Null);
        match kind {
            FileKind::Secret => {
                let sealed = Sealed::new(&data, &purpose(&id), &self.recipients())?;
                state = serde_json::to_value(sealed)?;
            }
            FileKind::Config => spec["Data"] = STANDARD.encode(&*data).into(),
        }
        let record = DesiredRecord {
            id,
            name: asked.name().to_owned(),
            version: 1,
            created: now.clone(),
            updated: now,
            spec,
            state,
        };
        match self.registry.desire(kind.desired(), &record).await {
            Ok(revision) => self.know(revision).await,
            Err(DesireError::NameTaken { name, .. }) => {
                return Err(Refusal::conflict(format!(
                    "rpc error: code = AlreadyExists desc = {} {name} already exists",
                    kind.word()
                ))
                .into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(record.id)
    }

    /// The secret or config of that name, id or beginning of an id.
    pub(crate) fn file(&self, kind: FileKind, wanted: &str) -> anyhow::Result<Arc<DesiredRecord>> {
        self.desired_one(kind.desired(), wanted, kind.word())
    }

    /// Gives it other labels; nothing else of it ever changes.
    pub(crate) async fn file_update(
        &self,
        kind: FileKind,
        wanted: &str,
        version: u64,
        asked: FileSpec,
    ) -> anyhow::Result<()> {
        let found = self.file(kind, wanted)?;
        let data = asked.data()?;
        let changed = self
            .registry
            .redesire(kind.desired(), &found.id, |before| {
                let Some(mut record) = before else {
                    return Err(no_such(kind.word(), wanted));
                };
                check_sequence(&record, version)?;
                let same = kind == FileKind::Config
                    && record.spec["Data"].as_str() == Some(&STANDARD.encode(&*data));
                if asked.name() != record.name || !(data.is_empty() || same) {
                    return Err(invalid("only updates to Labels are allowed"));
                }
                record.version += 1;
                record.updated = Timestamp::now().to_string();
                record.spec["Labels"] = asked.kept()["Labels"].clone();
                Ok(record)
            })
            .await;
        self.settle_desire(changed).await
    }

    /// Removes one that no service uses.
    pub(crate) async fn file_remove(&self, kind: FileKind, wanted: &str) -> anyhow::Result<()> {
        let found = self.file(kind, wanted)?;
        let unused = |services: &[DesiredRecord]| {
            let users = users(services, kind, &found.id);
            if users.is_empty() {
                return Ok(());
            }
            let services = if users.len() == 1 {
                "service"
            } else {
                "services"
            };
            Err(invalid(format!(
                "{} '{}' is in use by the following {services}: {}",
                kind.word(),
                found.name,
                users.join(", ")
            )))
        };
        let users = DesiredKind::Service;
        let removed = self
            .registry
            .undesire_unused(kind.desired(), &found, users, unused);
        match removed.await {
            Ok(Some(revision)) => {
                self.know(revision).await;
                Ok(())
            }
            Ok(None) => Err(no_such(kind.word(), wanted).into()),
            Err(DesireError::Refused(refusal)) => Err(refusal.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a service that names secrets or configs that are not there, or has two in one place.
    pub(super) fn check_files(&self, wanted: &ServiceSpec) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let mut places = BTreeMap::new();
        for file in task_files::of(wanted)? {
            let word = file.kind.word();
            if catalog.desired.get(file.kind.desired(), &file.id).is_none() {
                return Err(invalid(format!("{word} not found: {}", file.name)));
            }
            if let Some(other) = places.insert(file.target.clone(), file.name.clone()) {
                return Err(invalid(format!(
                    "{word} references '{other}' and '{}' have a conflicting target: '{}'",
                    file.name, file.target
                )));
            }
        }
        Ok(())
    }

    /// The content of a secret or config.
    pub(super) fn file_content(
        &self,
        catalog: &Catalog,
        kind: FileKind,
        id: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Unread> {
        let record = catalog.desired.get(kind.desired(), id);
        let record = record.ok_or(Unread::Gone)?;
        match kind {
            FileKind::Secret => {
                let sealed = Sealed::deserialize(&record.state).map_err(|_| SealError::Damaged)?;
                Ok(sealed.open(&purpose(id), &self.node.id, &self.seal_key)?)
            }
            FileKind::Config => {
                let data = record.spec["Data"].as_str().unwrap_or_default();
                let decoded = STANDARD.decode(data).map_err(|_| SealError::Damaged)?;
                Ok(Zeroizing::new(decoded))
            }
        }
    }
}

/// Why the content of a secret or config is not there.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("it is not there any more")]
    Gone,
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// The names of the services that use a secret or config.
fn users(services: &[DesiredRecord], kind: FileKind, id: &str) -> Vec<String> {
    let uses = |service: &DesiredRecord| {
        let parsed = spec::parse(&service.spec).unwrap_or_default();
        let files = task_files::of(&parsed).unwrap_or_default();
        files.iter().any(|file| file.kind == kind && file.id == id)
    };
    let mut users: Vec<String> = services
        .iter()
        .filter(|service| uses(service))
        .map(|service| service.name.clone())
        .collect();
    users.sort_unstable();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> FileSpec {
        serde_json::from_value(body).expect("a body")
    }

    #[test]
    fn names_are_of_swarms_characters() {
        for good in ["a", "A.b-c_9", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_made_is_refused_without_its_content() {
        let big = STANDARD.encode(vec![0; 500 << 10]);
        for (body, message) in [
            (json!({}), "name must be provided"),
            (
                json!({"Name": "a/b", "Data": "eA=="}),
                "invalid name \"a/b\"",
            ),
            (
                json!({"Name": "a"}),
                "secret data must be larger than 0 and less than 512000 bytes",
            ),
            (json!({"Name": "a", "Data": big}), "less than 512000 bytes"),
            (
                json!({"Name": "a", "Data": "pass word"}),
                "invalid Data: expected base64",
            ),
            (
                json!({"Name": "a", "Data": "eA==", "Driver": {"Name": "vault"}}),
                "not built: secret driver \"vault\"",
            ),
            (
                json!({"Name": "a", "Data": "eA==", "Templating": {"Name": "golang"}}),
                "not built: secret templating driver \"golang\"",
            ),
        ] {
            let refusal = asked(body).check(FileKind::Secret).expect_err(message);
            assert!(refusal.message.contains(message), "{}", refusal.message);
            assert!(!refusal.message.contains("pass"), "{}", refusal.message);
        }
        let body =
            json!({"Name": "a", "Data": STANDARD.encode(vec![0; 500 << 10]), "Labels": null});
        assert!(asked(body).check(FileKind::Config).is_ok());
    }
}
