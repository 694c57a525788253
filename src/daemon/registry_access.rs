//! What proves to the registry who this host is, and the registry's members.

use std::fs;

use anyhow::{Context, bail};
use nuncio_registry::{MemberStatus, Password, TlsFiles, User};

use super::Daemon;
use crate::cli::daemon::{RegistryAccess, RegistryChoice};

impl RegistryAccess {
    pub(crate) fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }

    /// The user, with the password from its file.
    pub(crate) fn user(&self) -> anyhow::Result<Option<User>> {
        let (Some(name), Some(path)) = (&self.user, &self.password_file) else {
            return Ok(None);
        };
        let text = fs::read_to_string(path)
            .with_context(|| format!("read the registry's password from {}", path.display()))?;
        let Some(password) = text.lines().next().filter(|line| !line.is_empty()) else {
            bail!("{} has no password in its first line", path.display());
        };
        Ok(Some(User {
            name: name.clone(),
            password: Password::new(password),
        }))
    }
}

impl Daemon {
    /// How many values of the registry cannot be read, and the first of them: keys, and why.
    pub(crate) fn registry_quarantine(&self) -> (usize, Vec<(String, String)>) {
        /// Enough to find what is wrong.
        const SHOWN: usize = 20;
        let quarantined = &self.catalog().quarantined;
        let shown = quarantined.iter().take(SHOWN);
        let shown = shown.map(|(key, why)| (key.clone(), why.clone()));
        (quarantined.len(), shown.collect())
    }

    /// Where the registry is: where this daemon was told, or where it has moved.
    pub(crate) fn registry_place(&self, told: Option<&RegistryChoice>) -> String {
        match told {
            Some(RegistryChoice::Embedded) | None if !self.registry.has_moved() => {
                "embedded".to_owned()
            }
            _ => self.registry.endpoints().join(","),
        }
    }

    /// How each member of the registry is.
    pub(crate) async fn registry_status(&self) -> Vec<MemberStatus> {
        self.registry.status().await
    }
}
