//! Who may use a daemon's API over TCP, and where it is written who did.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::config_file;
use crate::cli::host::Host;
use crate::papers::Papers;

/// The log's name in the data directory.
const AUDIT_LOG: &str = "audit.log";

#[derive(Args, Debug)]
pub(super) struct AccessArgs {
    /// With -H tcp://: let in who shows a certificate of the authority in --tlscacert, and nobody else
    #[arg(long)]
    tlsverify: bool,

    /// With --tlsverify: the authority that signs the certificates of who may use the API (else ~/.docker/ca.pem)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscacert: Option<PathBuf>,

    /// With --tlsverify: the certificate of this daemon (else ~/.docker/cert.pem)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscert: Option<PathBuf>,

    /// With --tlsverify: the key to that (else ~/.docker/key.pem)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlskey: Option<PathBuf>,

    /// Where it is written who changed what by the API, a line of JSON for each change; `none` for nowhere
    /// (default: audit.log in --data-root)
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

/// Where changes are written down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum AuditLog {
    Nowhere,
    File(PathBuf),
}

/// An API that everybody could use.
#[derive(Debug, thiserror::Error)]
#[error(
    "-H {host}: whoever reaches this port would be root on this host: give --tlsverify too, and an authority, a certificate and its key by --tlscacert, --tlscert and --tlskey"
)]
pub(crate) struct AccessError {
    host: Host,
}

impl AccessArgs {
    /// What is shown and who is believed on those of `hosts` that are of TCP.
    pub(super) fn papers(&self, hosts: &[Host]) -> Result<Option<Papers>, AccessError> {
        let far = hosts.iter().find(|host| matches!(host, Host::Tcp(_)));
        match far {
            None => Ok(None),
            Some(host) if !self.tlsverify => Err(AccessError { host: host.clone() }),
            Some(_) => {
                let own = Papers::below(&config_file::directory());
                Ok(Some(Papers {
                    authority: self.tlscacert.clone().unwrap_or(own.authority),
                    certificate: self.tlscert.clone().unwrap_or(own.certificate),
                    key: self.tlskey.clone().unwrap_or(own.key),
                }))
            }
        }
    }

    pub(super) fn audit_log(&self, data_root: &Path) -> AuditLog {
        match &self.audit_log {
            None => AuditLog::File(data_root.join(AUDIT_LOG)),
            Some(path) if path.as_os_str() == "none" => AuditLog::Nowhere,
            Some(path) => AuditLog::File(path.clone()),
        }
    }
}
