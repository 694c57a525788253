//! Accounts at registries of images: kept with the service whose tasks fetch images by them, sealed to the hosts.

use anyhow::Context as _;
use nuncio_registry::{Catalog, DesiredKind, TaskRecord};
use nuncio_runtime::image::RegistryAuth;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::secrets::HANDED_ON;
use super::services::ServiceState;
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;
use crate::daemon::sealed::{SealError, Sealed};

/// An account, as a client sends it and a service keeps it: the value of `X-Registry-Auth`.
pub(crate) struct Account(pub(crate) Zeroizing<String>);

/// Which account a service has from a change on.
#[derive(Default)]
pub(crate) enum AccountFrom {
    /// This one, or none.
    Given(Option<Account>),
    /// The one that it has.
    #[default]
    Spec,
    /// The one that it had before its last change.
    PreviousSpec,
}

/// The same, with what is given sealed already.
#[derive(Clone, Debug)]
pub(super) enum KeptFrom {
    Given(Option<Sealed>),
    Spec,
    PreviousSpec,
}

/// What a sealed account is for, so that it is read as nothing else.
fn purpose(service: &str) -> String {
    format!("account/{service}")
}

/// The account by which the tasks of a version fetch their image.
fn kept(state: ServiceState, version: u64) -> Option<Sealed> {
    match state.previous {
        Some(previous) if state.spec_version != version && previous.spec_version == version => {
            previous.account
        }
        _ => state.account,
    }
}

impl Daemon {
    /// Seals the account of a service to all hosts.
    pub(super) fn seal_account(
        &self,
        service: &str,
        account: Option<&Account>,
    ) -> Result<Option<Sealed>, SealError> {
        let seal = |account: &Account| {
            Sealed::new(account.0.as_bytes(), &purpose(service), &self.recipients())
        };
        account.map(seal).transpose()
    }

    pub(super) fn keep_account(
        &self,
        service: &str,
        from: &AccountFrom,
    ) -> Result<KeptFrom, SealError> {
        Ok(match from {
            AccountFrom::Given(account) => {
                KeptFrom::Given(self.seal_account(service, account.as_ref())?)
            }
            AccountFrom::Spec => KeptFrom::Spec,
            AccountFrom::PreviousSpec => KeptFrom::PreviousSpec,
        })
    }

    /// The account by which a task of `version` fetches its image. One that is not sealed to this host yet is waited for, for
    /// a bounded time.
    pub(super) async fn account_for(
        &self,
        task: &TaskRecord,
        version: u64,
    ) -> anyhow::Result<RegistryAuth> {
        let read = |catalog: &Catalog| self.read_account(catalog, &task.service, version);
        let mut catalog = self.catalog_changes.clone();
        let readable =
            catalog.wait_for(|catalog| !matches!(read(catalog), Err(SealError::NotForThis)));
        let _ = timeout(HANDED_ON, readable).await; // what is still wanting is told
        let catalog = self.catalog();
        let text = read(&catalog).context("the service's account at the registry of its image")?;
        match text {
            Some(text) => Ok(crate::api::registry_account(&text)?),
            None => Ok(RegistryAuth::Anonymous),
        }
    }

    fn read_account(
        &self,
        catalog: &Catalog,
        service: &str,
        version: u64,
    ) -> Result<Option<Zeroizing<String>>, SealError> {
        let record = catalog.desired.get(DesiredKind::Service, service);
        let kept = record.and_then(|record| kept(ServiceState::of(record), version));
        let Some(sealed) = kept else {
            return Ok(None);
        };
        let opened = sealed.open(&purpose(service), &self.node.id, &self.seal_key)?;
        let text = std::str::from_utf8(&opened).map_err(|_| SealError::Damaged)?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }
}

impl KeptFrom {
    /// The account that a service has from now on, which had `now` and before that `before`, unless it had nothing before.
    pub(super) fn choose(
        &self,
        now: Option<Sealed>,
        before: Option<Option<Sealed>>,
    ) -> Result<Option<Sealed>, Refusal> {
        match self {
            Self::Given(account) => Ok(account.clone()),
            Self::Spec => Ok(now),
            Self::PreviousSpec => {
                before.ok_or_else(|| Refusal::invalid("service does not have a previous spec"))
            }
        }
    }
}
