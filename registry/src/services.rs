//! Services outside of the mesh.

use etcd_client::{Compare, CompareOp, TxnOp};

use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::keys::{BadName, Key, check_name};
use crate::model::ServiceRecord;
use crate::nodes::ATTEMPTS;
use crate::wire::Record;

/// Why a service could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum PutServiceError {
    /// The name cannot be part of a key.
    #[error(transparent)]
    InvalidName(#[from] BadName),
    /// Others kept writing in between.
    #[error("enter service {0}: it keeps changing")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Registry {
    /// Enters a service, or replaces the upstreams of the one of that name.
    ///
    /// # Errors
    ///
    /// [`PutServiceError`] if the name is none or the registry does not answer.
    pub async fn put_service(&self, service: &ServiceRecord) -> Result<(), PutServiceError> {
        const OPERATION: &str = "enter service";
        check_name(&service.name)?;
        let key = Key::Service(service.name.clone()).to_string();
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let previous = self.entry(OPERATION, key.clone()).await?;
            let modified = previous.as_ref().map_or(0, |entry| entry.modified);
            let value = service.encode(previous.as_ref().map(|entry| entry.value.as_slice()));
            let when = vec![Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                modified,
            )];
            let put = TxnOp::put(key.clone(), value, None);
            if self.txn(OPERATION, when, vec![put]).await?.succeeded {
                return Ok(());
            }
            backoff.wait().await;
        }
        Err(PutServiceError::Contended(service.name.clone()))
    }

    /// Removes a service; whether there was one.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn remove_service(&self, name: &str) -> Result<bool, CallError> {
        let key = Key::Service(name.to_owned()).to_string();
        let mut kv = self.client().kv_client();
        let response = self.call("remove service", kv.delete(key, None)).await?;
        Ok(response.deleted() > 0)
    }
}
