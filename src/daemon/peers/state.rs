//! What a gateway keeps on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use nuncio_mesh::{Lent, PinnedGateway};
use serde::{Deserialize, Serialize};

use super::{Borrowed, Peers};
use crate::daemon::state_file;

const FILE: &str = "peers.json";
/// Ports behind a gateway's own that it takes for services.
const PORTS: u16 = 1000;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct State {
    /// By name the port that leads to what is lent.
    pub(super) lends: BTreeMap<String, u16>,
    /// Tokens that nobody has used, by id.
    pub(super) tokens: BTreeMap<String, Token>,
    /// Who may use what is lent.
    pub(super) borrowers: Vec<Borrower>,
    /// By the other mesh's name its gateways.
    pub(super) borrows: BTreeMap<String, Vec<Lender>>,
    /// By `SERVICE.MESH` the port that leads to what is borrowed.
    pub(super) ports: BTreeMap<String, u16>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Token {
    pub(super) hash: String,
    pub(super) expires: SystemTime,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Borrower {
    pub(super) name: String,
    pub(super) pinned: PinnedGateway,
}

/// A gateway of another mesh.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Lender {
    pub(super) address: SocketAddr,
    pub(super) pinned: PinnedGateway,
    /// What it lent when it was last heard of.
    pub(super) lent: Vec<Lent>,
}

impl State {
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        Ok(state_file::read(&directory.join(FILE))?.unwrap_or_default())
    }

    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        state_file::write(&directory.join(FILE), self).context("keep what this gateway knows")
    }

    /// The lowest port behind the gateway's own `first` that leads nowhere yet.
    pub(super) fn free_port(&self, first: u16) -> u16 {
        let used: BTreeSet<u16> = self
            .lends
            .values()
            .chain(self.ports.values())
            .copied()
            .collect();
        let ports = (1..=PORTS).filter_map(|offset| first.checked_add(offset));
        ports
            .into_iter()
            .find(|port| !used.contains(port))
            .unwrap_or(first)
    }

    /// Each service that is borrowed has a port, and keeps it while it is; no other has.
    pub(super) fn give_ports(&mut self, first: u16) {
        let wanted: BTreeSet<String> = self
            .borrowed()
            .into_keys()
            .map(|(mesh, service)| format!("{service}.{mesh}"))
            .collect();
        self.ports.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !self.ports.contains_key(&name) {
                let port = self.free_port(first);
                self.ports.insert(name, port);
            }
        }
    }

    pub(super) fn borrowed(&self) -> Borrowed<'_> {
        let mut borrowed = Borrowed::new();
        for (mesh, lenders) in &self.borrows {
            for lender in lenders {
                for lent in lender.lent.iter().take(super::MOST) {
                    let key = (mesh.as_str(), lent.name.as_str());
                    borrowed.entry(key).or_default().push((lender, lent));
                }
            }
        }
        borrowed
    }
}

impl Peers {
    /// Writes whom the ambassador is to believe: a file for those that borrow, and one for each mesh that lends.
    pub(super) fn write_bundles(&self, state: &State) -> anyhow::Result<()> {
        let own = self.gateway.pinned();
        let borrowers = state.borrowers.iter().map(|borrower| &borrower.pinned);
        self.write_bundle("borrowers", borrowers.chain([&own]))?;
        for (mesh, lenders) in &state.borrows {
            self.write_bundle(mesh, lenders.iter().map(|lender| &lender.pinned))?;
        }
        Ok(())
    }

    pub(super) fn bundle(&self, of: &str) -> std::path::PathBuf {
        self.directory.join(format!("trusted-{of}.pem"))
    }

    fn write_bundle<'a>(
        &self,
        of: &str,
        pinned: impl Iterator<Item = &'a PinnedGateway>,
    ) -> anyhow::Result<()> {
        let text: String = pinned.map(|pinned| pinned.certificate.as_str()).collect();
        let path = self.bundle(of);
        if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        state_file::write_bytes_soon(&path, text.as_bytes())
            .with_context(|| format!("write {}", path.display()))
    }
}
