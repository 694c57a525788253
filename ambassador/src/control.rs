//! An ambassador together with what it was asked for.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{Ambassador, ApplyError, ForwardSpec, ResolveError, Resolver};

/// Applies specifications to an ambassador, and remembers them.
#[derive(Debug)]
pub struct Control {
    ambassador: Arc<Ambassador>,
    resolver: Resolver,
    /// Held while applying: one configuration after the other.
    applied: Mutex<Vec<ForwardSpec>>,
}

/// Why a configuration was not taken. What ran before goes on unchanged.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Some upstreams cannot be watched.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The listeners cannot be had.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Control {
    /// Takes charge of `ambassador`.
    #[must_use]
    pub fn new(ambassador: Arc<Ambassador>, resolver: Resolver) -> Self {
        Self {
            ambassador,
            resolver,
            applied: Mutex::default(),
        }
    }

    /// The ambassador in charge of.
    #[must_use]
    pub fn ambassador(&self) -> &Arc<Ambassador> {
        &self.ambassador
    }

    /// Makes `specs` what runs, or changes nothing.
    ///
    /// # Errors
    ///
    /// [`PutError`] as [`Resolver::forward`] and [`Ambassador::apply`] say.
    pub async fn put(&self, specs: Vec<ForwardSpec>) -> Result<(), PutError> {
        let mut applied = self.applied.lock().await;
        let forwards = specs.iter().map(|spec| self.resolver.forward(spec));
        let forwards = forwards.collect::<Result<Vec<_>, _>>()?;
        self.ambassador.apply(forwards).await?;
        *applied = specs;
        Ok(())
    }

    /// What was applied last.
    pub async fn specs(&self) -> Vec<ForwardSpec> {
        self.applied.lock().await.clone()
    }
}
