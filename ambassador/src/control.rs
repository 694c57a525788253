//! An ambassador together with what it was asked for.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{Ambassador, ApplyError, Bound, ForwardSpec, ResolveError, Resolver};

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

/// A forward that is wanted and not served.
#[derive(Debug)]
pub struct Unavailable {
    /// Its name.
    pub forward: String,
    /// Why.
    pub error: PutError,
}

impl Unavailable {
    fn new(forward: &str, error: impl Into<PutError>) -> Self {
        Self {
            forward: forward.to_owned(),
            error: error.into(),
        }
    }
}

impl PutError {
    /// A word for machines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resolve(error) => error.kind(),
            Self::Apply(error) => error.kind(),
        }
    }
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

    /// Makes what of `specs` can be had what runs, and returns what cannot, and why: a port that somebody has, a
    /// certificate that is out of date. Try again later.
    ///
    /// # Errors
    ///
    /// [`PutError`] if they contradict each other, or if one that runs is among those that cannot be had. Then nothing
    /// changes.
    pub async fn put_available(
        &self,
        specs: Vec<ForwardSpec>,
    ) -> Result<Vec<Unavailable>, PutError> {
        let mut applied = self.applied.lock().await;
        let open = self.ambassador.listeners();
        let runs = |spec: &ForwardSpec| {
            let same = |bound: &Bound| bound.name == spec.name && bound.listen == spec.listen;
            open.iter().any(same)
        };
        let (mut forwards, mut unavailable) = (Vec::with_capacity(specs.len()), Vec::new());
        for spec in &specs {
            match self.resolver.forward(spec) {
                Ok(forward) => forwards.push(forward),
                Err(error) if runs(spec) => return Err(error.into()),
                Err(error) => unavailable.push(Unavailable::new(&spec.name, error)),
            }
        }
        let refused = self.ambassador.apply_available(forwards).await?;
        unavailable.extend(refused.into_iter().map(|error| {
            let forward = error.forward().unwrap_or_default().to_owned();
            Unavailable::new(&forward, error)
        }));
        *applied = specs;
        Ok(unavailable)
    }

    /// What was applied last.
    pub async fn specs(&self) -> Vec<ForwardSpec> {
        self.applied.lock().await.clone()
    }
}
