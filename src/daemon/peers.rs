//! Gateways between meshes: what this host lends to others' gateways, and what it brings in from them.
//!
//! All of it is this host's own, in one file: a mesh has as many gateways as hosts that were told to be one. What is brought
//! in is in the registry under this host's lease, as a service that leads to it.

mod follow;
mod forwards;
mod lend;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nuncio_mesh::{Gateway, Introduction, Lent, PeerToken};
use tokio::sync::{Notify, watch};

use self::state::{Borrower, Lender, State, Token};
use super::Daemon;
use super::container::locked;
use super::refusal::Refusal;
use super::services::{EXPECTED, is_name};

/// Of a gateway, unless it says otherwise.
pub(crate) const PORT: u16 = 2390;
/// Services that a gateway lends, and that it takes of one other.
const MOST: usize = 64;
/// Tokens that are good at once.
const MOST_TOKENS: usize = 64;

/// This host as a gateway.
pub(super) struct Peers {
    directory: PathBuf,
    address: SocketAddr,
    gateway: Gateway,
    state: Mutex<State>,
    /// What is lent now.
    lent: watch::Sender<Arc<Vec<Lent>>>,
    /// Rung when somebody else is to be followed, or something else brought in.
    changed: Arc<Notify>,
}

/// One line of `peer ls`.
pub(crate) struct PeerView {
    pub(crate) name: String,
    /// Whether it lends, else it borrows.
    pub(crate) lends: bool,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) fingerprints: Vec<String>,
    /// How many of its gateways are heard of.
    pub(crate) connected: usize,
    pub(crate) services: Vec<String>,
}

impl Peers {
    pub(super) fn open(
        data_root: &Path,
        node: &str,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(address) = address else {
            return Ok(None);
        };
        let directory = data_root.join("gateway");
        let gateway = Gateway::open(&directory, node).context("the key of the gateway")?;
        let peers = Self {
            state: Mutex::new(State::read(&directory)?),
            directory,
            address,
            gateway,
            lent: watch::Sender::default(),
            changed: Arc::default(),
        };
        peers.write_bundles(&locked(&peers.state))?;
        Ok(Some(peers))
    }

    /// Changes what is kept, on disk first.
    fn update<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Refusal>,
    ) -> anyhow::Result<T> {
        let mut state = locked(&self.state);
        let mut next = state.clone();
        let done = change(&mut next)?;
        self.write_bundles(&next)?;
        next.write(&self.directory)?;
        *state = next;
        self.changed.notify_waiters();
        Ok(done)
    }
}

impl Daemon {
    fn gateway(&self) -> Result<&Peers, Refusal> {
        self.peers.as_ref().ok_or_else(|| {
            Refusal::conflict(
                "this host is no gateway: start its daemon with --gateway-addr IP, where other meshes reach it",
            )
        })
    }

    /// Lends a service to all that have been let in, from now on.
    pub(crate) async fn lend(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_ascii_lowercase();
        if !is_name(&name) {
            return Err(
                Refusal::invalid(format!("invalid service name {name:?}: {EXPECTED}")).into(),
            );
        }
        let peers = self.gateway()?;
        peers.update(|state| {
            if state.lends.len() >= MOST && !state.lends.contains_key(&name) {
                return Err(Refusal::conflict(format!(
                    "a gateway lends {MOST} services at most"
                )));
            }
            let port = state.free_port(peers.address.port());
            state.lends.entry(name.clone()).or_insert(port);
            Ok(())
        })?;
        tracing::info!(service = name, "lent to other meshes");
        self.sync().await
    }

    pub(crate) async fn lend_no_more(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_ascii_lowercase();
        self.gateway()?
            .update(|state| match state.lends.remove(&name) {
                Some(_) => Ok(()),
                None => Err(Refusal::not_found(format!(
                    "this gateway does not lend {name}"
                ))),
            })?;
        tracing::info!(service = name, "lent to nobody any more");
        self.sync().await
    }

    /// A token that lets in one gateway within `ttl`, and where it is good.
    pub(crate) fn create_peer_token(&self, ttl: Duration) -> anyhow::Result<(String, SocketAddr)> {
        let peers = self.gateway()?;
        let (token, id, hash) = peers.gateway.create_token();
        let expires = SystemTime::now() + ttl;
        peers.update(|state| {
            state
                .tokens
                .retain(|_, token| token.expires > SystemTime::now());
            if state.tokens.len() >= MOST_TOKENS {
                return Err(Refusal::conflict(format!(
                    "{MOST_TOKENS} tokens are waiting to be used already: let them expire"
                )));
            }
            state.tokens.insert(id.clone(), Token { hash, expires });
            Ok(())
        })?;
        tracing::info!(token = id, ?ttl, "a token for another mesh's gateway");
        Ok((token.reveal(), peers.address))
    }

    /// Borrows from now on what the gateway at `address` lends, under `name`.
    pub(crate) async fn add_peer(
        &self,
        name: &str,
        address: SocketAddr,
        token: &str,
    ) -> anyhow::Result<()> {
        let peers = self.gateway()?;
        let is_label = is_name(name) && !name.contains('.');
        if !is_label {
            return Err(Refusal::invalid(format!(
                "invalid name of a mesh {name:?}: expected 1 to 63 letters, digits, '-' and '_', beginning and ending \
                 with a letter or digit"
            ))
            .into());
        }
        let name = name.to_ascii_lowercase();
        let token: PeerToken = token
            .parse()
            .map_err(|error| Refusal::invalid(format!("{error}")))?;
        let by = Introduction::Token(&token, &self.node.name);
        let followed = peers.gateway.follow(address, by).await;
        let mut followed = followed.map_err(|error| {
            let error = format!("{:#}", anyhow::Error::from(error));
            Refusal::conflict(format!("pair with the gateway at {address}: {error}"))
        })?;
        let lent = followed.next().await.unwrap_or_default();
        let fingerprint = followed.gateway.fingerprint.clone();
        peers.update(|state| {
            let lenders = state.borrows.entry(name.clone()).or_default();
            lenders.retain(|lender| {
                lender.pinned.fingerprint != fingerprint && lender.address != address
            });
            lenders.push(Lender {
                address,
                pinned: followed.gateway.clone(),
                lent,
            });
            state.give_ports(peers.address.port());
            Ok(())
        })?;
        tracing::info!(peer = name, %address, "paired with another mesh's gateway");
        self.sync().await
    }

    /// Forgets a mesh: nothing is borrowed from it, or lent to it, any more.
    pub(crate) async fn remove_peer(&self, name: &str) -> anyhow::Result<()> {
        let wanted = name.to_ascii_lowercase();
        self.gateway()?.update(|state| {
            let borrowed = state.borrows.remove(&wanted).is_some();
            let before = state.borrowers.len();
            state.borrowers.retain(|borrower| {
                borrower.name != name
                    && !(name.len() >= 12 && borrower.pinned.fingerprint.starts_with(name))
            });
            match borrowed || state.borrowers.len() != before {
                true => Ok(()),
                false => Err(Refusal::not_found(format!(
                    "no such mesh: {name}; nuncio peer ls shows those that there are"
                ))),
            }
        })?;
        tracing::info!(peer = name, "another mesh is forgotten");
        self.sync().await
    }

    pub(crate) fn other_meshes(&self) -> anyhow::Result<(Vec<PeerView>, Vec<String>)> {
        let peers = self.gateway()?;
        let state = locked(&peers.state);
        let heard = locked(&self.heard);
        let lends = state.borrows.iter().map(|(name, lenders)| {
            let mut services: Vec<String> = lenders
                .iter()
                .flat_map(|lender| {
                    lender
                        .lent
                        .iter()
                        .map(|lent| format!("{}.{name}", lent.name))
                })
                .collect();
            services.sort();
            services.dedup();
            let is_heard = |lender: &&Lender| heard.contains(&lender.pinned.fingerprint);
            PeerView {
                name: name.clone(),
                lends: true,
                addresses: lenders.iter().map(|lender| lender.address).collect(),
                fingerprints: lenders
                    .iter()
                    .map(|lender| lender.pinned.fingerprint.clone())
                    .collect(),
                connected: lenders.iter().filter(is_heard).count(),
                services,
            }
        });
        let borrows = state.borrowers.iter().map(|borrower| PeerView {
            name: borrower.name.clone(),
            lends: false,
            addresses: Vec::new(),
            fingerprints: vec![borrower.pinned.fingerprint.clone()],
            connected: usize::from(heard.contains(&borrower.pinned.fingerprint)),
            services: Vec::new(),
        });
        Ok((
            lends.chain(borrows).collect(),
            state.lends.keys().cloned().collect(),
        ))
    }
}

/// By mesh and service the gateways that lead there.
type Borrowed<'a> = BTreeMap<(&'a str, &'a str), Vec<(&'a Lender, &'a Lent)>>;

/// Remembers who was let in.
fn accept(state: &mut State, name: &str, pinned: &nuncio_mesh::PinnedGateway) {
    state
        .borrowers
        .retain(|known| known.pinned.fingerprint != pinned.fingerprint);
    state.borrowers.push(Borrower {
        name: name.to_owned(),
        pinned: pinned.clone(),
    });
}
