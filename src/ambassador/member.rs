//! An ambassador beside a daemon that is in a mesh: it reads the registry as the member that its host is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use nuncio_ambassador::Credentials;
use nuncio_mesh::{Home, Membership};
use nuncio_registry::Dialer;

use crate::daemon::mesh;

/// The host's membership.
pub(super) struct Member {
    data_root: PathBuf,
    membership: Membership,
}

impl Member {
    /// That which lies in the data directory of a daemon.
    pub(super) fn open(data_root: &Path) -> anyhow::Result<Self> {
        let home = Home::open(data_root)
            .with_context(|| format!("--data-root {}", data_root.display()))?;
        let home = home.with_context(|| {
            format!(
                "--data-root {}: there is no membership of a mesh; give the data directory of a host after `nuncio init` \
                 or `nuncio join`",
                data_root.display()
            )
        })?;
        Ok(Self {
            data_root: data_root.to_owned(),
            membership: home.membership().clone(),
        })
    }

    pub(super) fn registry_url(&self) -> String {
        format!("https://{}", self.membership.registry)
    }

    /// Shows the certificate that is there at each connection: the host's daemon has it renewed.
    pub(super) fn dialer(self) -> Dialer {
        let manager = self.membership.mesh.member(&self.membership.manager);
        let credentials = move || {
            let load = || -> anyhow::Result<Arc<Credentials>> {
                let home = Home::open(&self.data_root)?.context("the membership is gone")?;
                mesh::load(&home)
            };
            load().map_err(std::io::Error::other)
        };
        mesh::dialer(manager, credentials)
    }
}
