//! Which registry this is, for contents that move from one to another.
//!
//! A key in the registry names the move by which its contents came there; none is there before the first. Whoever writes
//! compares it with what it was when the reading began on which the change is based. So nothing is written to a registry
//! whose contents are gone, nor to the next one by revisions of the last.

use std::sync::{Arc, PoisonError, RwLock};

use etcd_client::{Compare, CompareOp};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::client::{CallError, Registry};
use crate::connect::{self, ConnectOptions};
use crate::secure::TlsFiles;

/// Where it is written.
pub(crate) const ERA: &str = "/nuncio/v1/era";

/// What that key says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Era {
    pub(crate) v: u32,
    /// The move by which the contents came here; or, once they have gone, by which they went.
    pub(crate) id: String,
    /// They are still being brought.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) filling: bool,
    /// By which attempt: what an earlier one had under way as it was killed must not be done in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<String>,
    /// Where they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moved: Option<Vec<String>>,
}

impl Era {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            v: 1,
            id: id.to_owned(),
            filling: false,
            attempt: None,
            moved: None,
        }
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // text and lists of it have no way to fail
    }
}

/// The key's value as it was seen; `None`: there was none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen(pub(crate) Option<Vec<u8>>);

impl Seen {
    /// That it is still so.
    pub(crate) fn holds(&self) -> Compare {
        match &self.0 {
            Some(value) => Compare::value(ERA, CompareOp::Equal, value.clone()),
            None => Compare::create_revision(ERA, CompareOp::Equal, 0),
        }
    }

    pub(crate) fn era(&self) -> Option<Era> {
        self.0.as_deref().and_then(Era::decode)
    }
}

/// What all clones of a [`Registry`] know of where they are.
#[derive(Debug)]
pub(crate) struct Place {
    /// It is not where this client was told that it is.
    moved: bool,
    options: Arc<ConnectOptions>,
    seen: Seen,
}

/// [`Place`], shared.
#[derive(Clone, Debug)]
pub(crate) struct Where(Arc<RwLock<Place>>);

impl Where {
    pub(crate) fn new(options: ConnectOptions) -> Self {
        Self(Arc::new(RwLock::new(Place {
            moved: false,
            options: Arc::new(options),
            seen: Seen::default(),
        })))
    }

    pub(crate) fn options(&self) -> Arc<ConnectOptions> {
        let place = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&place.options)
    }

    pub(crate) fn seen(&self) -> Seen {
        let place = self.0.read().unwrap_or_else(PoisonError::into_inner);
        place.seen.clone()
    }

    pub(crate) fn moved(&self) -> bool {
        let place = self.0.read().unwrap_or_else(PoisonError::into_inner);
        place.moved
    }

    fn note(&self, seen: Seen) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        place.seen = seen;
    }

    fn go(&self, options: ConnectOptions, seen: Seen) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *place = Place {
            moved: true,
            options: Arc::new(options),
            seen,
        };
    }
}

/// Whether what was read of a registry is what counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heeded {
    /// It is.
    Here,
    /// The contents have moved, and this client with them: read again.
    Moved,
}

impl Registry {
    /// Does as the era says that was read: stays, or goes where the contents have moved.
    pub(crate) async fn heed(&self, seen: Seen) -> Result<Heeded, CallError> {
        const OPERATION: &str = "follow the registry to where it has moved";
        /// Moves in a row, more than anybody makes while a host is off.
        const MOST: usize = 16;
        let Some(mut era) = seen.era() else {
            self.place().note(seen);
            return Ok(Heeded::Here);
        };
        let refused = |why: String| CallError::Rpc {
            operation: OPERATION,
            source: why.into(),
        };
        for _ in 0..MOST {
            if era.filling {
                return Err(refused(
                    "the registry is still being filled by `nuncio registry migrate`".to_owned(),
                ));
            }
            let Some(endpoints) = era.moved.clone() else {
                self.place().note(seen);
                return Ok(Heeded::Here);
            };
            let (options, found) = self.look_at(endpoints).await?;
            let there = found.era();
            match there {
                Some(next) if next.moved.is_some() => era = next,
                Some(next) if next.id == era.id && !next.filling => {
                    let urls = options.endpoints.join(",");
                    info!(urls, "the registry has moved");
                    let moving = self.move_to(options.clone()).await;
                    moving.map_err(|error| CallError::Rpc {
                        operation: OPERATION,
                        source: Box::new(error),
                    })?;
                    self.place().go(options, found);
                    return Ok(Heeded::Moved);
                }
                _ => {
                    let urls = options.endpoints.join(",");
                    return Err(refused(format!(
                        "it has moved to {urls}, which is not complete yet: run `nuncio registry migrate` again"
                    )));
                }
            }
        }
        Err(refused("it has moved in circles".to_owned()))
    }

    /// What the registry at `endpoints` says of its era.
    async fn look_at(&self, endpoints: Vec<String>) -> Result<(ConnectOptions, Seen), CallError> {
        const OPERATION: &str = "look where the registry has moved";
        let plain = endpoints.iter().all(|url| !url.starts_with("https://"));
        let options = ConnectOptions {
            endpoints,
            dialer: None,
            tls: match plain {
                true => TlsFiles::default(),
                false => self.options().tls.clone(),
            },
            ..(*self.options()).clone()
        };
        let connecting = Box::pin(Self::connect_here(&options));
        let there = connecting.await.map_err(|error| CallError::Rpc {
            operation: OPERATION,
            source: Box::new(error),
        })?;
        let entry = there.entry(OPERATION, ERA).await?;
        Ok((options, Seen(entry.map(|entry| entry.value))))
    }

    /// Sends what is to come to the registry that `options` name.
    async fn move_to(&self, options: ConnectOptions) -> Result<(), connect::ConnectError> {
        let members = connect::members(&options).await?;
        self.failover().move_to(members).await;
        self.log_in_again(options).await
    }
}
