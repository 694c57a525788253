//! Services outside of the mesh.

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};

use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::keys::{BadName, Key, check_name};
use crate::model::{ImportRecord, ServiceHealthRecord, ServiceRecord};
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
            let seen = self.place().seen();
            let previous = self.entry(OPERATION, key.clone()).await?;
            let modified = previous.as_ref().map_or(0, |entry| entry.modified);
            let value = service.encode(previous.as_ref().map(|entry| entry.value.as_slice()));
            let when = vec![Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                modified,
            )];
            let put = TxnOp::put(key.clone(), value, None);
            let done = self.txn_as_of(&seen, OPERATION, when, vec![put]);
            if done.await?.succeeded {
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
        let there = Compare::version(key.clone(), CompareOp::Greater, 0);
        let delete = TxnOp::delete(key, None);
        let done = self.txn("remove service", vec![there], vec![delete]);
        Ok(done.await?.succeeded)
    }

    /// Says how the places of a service are, for as long as `lease` lives.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer, or the lease is over.
    pub async fn put_service_health(
        &self,
        health: &ServiceHealthRecord,
        lease: i64,
    ) -> Result<(), CallError> {
        let key = Key::ServiceHealth(health.name.clone());
        self.put_leased("say how a service is", &key, health.encode(None), lease)
            .await
    }

    /// Brings in a service of another mesh, for as long as `lease` lives.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer, or the lease is over.
    pub async fn put_import(&self, import: &ImportRecord, lease: i64) -> Result<(), CallError> {
        let key = Key::Import {
            service: import.service.name.clone(),
            node: import.node.clone(),
        };
        self.put_leased("bring in a service", &key, import.encode(None), lease)
            .await
    }

    /// Takes back what `node` brought in.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn remove_import(&self, service: &str, node: &str) -> Result<(), CallError> {
        let (service, node) = (service.to_owned(), node.to_owned());
        let key = Key::Import { service, node }.to_string();
        let delete = TxnOp::delete(key, None);
        let done = self.txn("take back a service", Vec::new(), vec![delete]);
        done.await.map(drop)
    }

    /// Fails if the lease has ended: so nobody says anything who is not heard of any more.
    async fn put_leased(
        &self,
        operation: &'static str,
        key: &Key,
        value: Vec<u8>,
        lease: i64,
    ) -> Result<(), CallError> {
        let options = PutOptions::new().with_lease(lease);
        let put = TxnOp::put(key.to_string(), value, Some(options));
        self.txn(operation, Vec::new(), vec![put]).await.map(drop)
    }
}
