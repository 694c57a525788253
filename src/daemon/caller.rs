//! Who uses the API.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio::net::unix::UCred;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The other end of a connection, as far as the kernel or a certificate vouches for it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub(crate) enum Caller {
    /// A process of this host, by SO_PEERCRED (unix(7)): who it was when it connected.
    Process {
        uid: u32,
        gid: u32,
        pid: Option<i32>,
        /// The name of its program, as far as it can still be told.
        command: Option<String>,
    },
    /// Who showed a certificate.
    Certificate { name: String, address: SocketAddr },
    /// A process that the kernel does not tell of.
    Unknown,
}

impl Caller {
    pub(super) fn of_process(credentials: std::io::Result<UCred>) -> Self {
        let Ok(credentials) = credentials else {
            return Self::Unknown;
        };
        let pid = credentials.pid();
        let command = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self::Process {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid,
            command: command.map(|command| command.trim_end().to_owned()),
        }
    }

    pub(super) fn of_certificate(certificate: &CertificateDer<'_>, address: SocketAddr) -> Self {
        Self::Certificate {
            name: name(certificate),
            address,
        }
    }
}

/// Whom a certificate is for: its subject's common name, else its first URI or DNS name, else its serial number.
fn name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return "a certificate that cannot be read".to_owned();
    };
    let mut common = certificate.subject().iter_common_name();
    if let Some(name) = common.find_map(|name| name.as_str().ok()) {
        return name.to_owned();
    }
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    let mut names = names.filter_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    names
        .next()
        .unwrap_or_else(|| format!("serial {}", certificate.raw_serial_as_string()))
}
