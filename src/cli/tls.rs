//! `--tlsverify` and its kin, of the client and of the daemon.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

/// Docker's flags for the API over TCP.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// As --tlsverify, without which nobody knows who is at the other end: refused
    #[arg(long, hide = true)]
    tls: bool,

    /// Speak TLS over TCP, where both sides show certificates
    #[arg(long)]
    pub(crate) tlsverify: bool,

    /// The authority that vouches for the other side
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,

    /// The certificate to show
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

/// Certificates in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TlsFiles {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    /// As Docker's client calls them in a directory.
    pub(crate) fn within(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        }
    }
}

impl TlsArgs {
    /// What a daemon is told to serve by.
    ///
    /// # Errors
    ///
    /// Flags of which some are missing.
    pub(crate) fn server(self) -> anyhow::Result<Option<TlsFiles>> {
        self.refuse_unverified()?;
        match (self.tlsverify, self.tlscacert, self.tlscert, self.tlskey) {
            (true, Some(ca), Some(cert), Some(key)) => Ok(Some(TlsFiles { ca, cert, key })),
            (false, None, None, None) => Ok(None),
            (true, ..) => bail!("--tlsverify needs --tlscacert, --tlscert and --tlskey too"),
            (false, ..) => bail!(
                "--tlscacert, --tlscert and --tlskey need --tlsverify too: the API is served over TCP to those alone who show a certificate"
            ),
        }
    }

    /// What a client shows to a daemon: of the flags, else in the directory that `DOCKER_CERT_PATH` names, else in that
    /// of Docker's configuration. `None` if nobody asked for TLS, as `DOCKER_TLS_VERIFY` does.
    ///
    /// # Errors
    ///
    /// TLS that would believe everybody.
    pub(crate) fn client(
        &self,
        variable: impl Fn(&str) -> Option<String>,
        configuration: &Path,
    ) -> anyhow::Result<Option<TlsFiles>> {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let verify = self.tlsverify || given("DOCKER_TLS_VERIFY").is_some();
        if !verify {
            self.refuse_unverified()?;
            return Ok(None);
        }
        let directory = given("DOCKER_CERT_PATH").map(PathBuf::from);
        let directory = directory.unwrap_or_else(|| configuration.to_owned());
        let TlsFiles { ca, cert, key } = TlsFiles::within(&directory);
        Ok(Some(TlsFiles {
            ca: self.tlscacert.clone().unwrap_or(ca),
            cert: self.tlscert.clone().unwrap_or(cert),
            key: self.tlskey.clone().unwrap_or(key),
        }))
    }

    fn refuse_unverified(&self) -> anyhow::Result<()> {
        if self.tls && !self.tlsverify {
            bail!("--tls does not look who is at the other end: use --tlsverify");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_then_the_directory() -> anyhow::Result<()> {
        let configuration = Path::new("/home/ann/.docker");
        let none = |_: &str| None;
        let args = TlsArgs::default();
        assert_eq!(args.client(none, configuration)?, None);
        let asked = |name: &str| match name {
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            _ => None,
        };
        let files = TlsFiles::within(configuration);
        assert_eq!(args.client(asked, configuration)?, Some(files.clone()));
        let args = TlsArgs {
            tlsverify: true,
            tlscert: Some("/x.pem".into()),
            ..args
        };
        let there = |name: &str| (name == "DOCKER_CERT_PATH").then(|| "/there".to_owned());
        let expected = TlsFiles {
            cert: "/x.pem".into(),
            ..TlsFiles::within(Path::new("/there"))
        };
        assert_eq!(args.client(there, configuration)?, Some(expected));
        Ok(())
    }

    #[test]
    fn a_server_is_given_all_or_nothing() {
        assert!(matches!(TlsArgs::default().server(), Ok(None)));
        for args in [
            TlsArgs {
                tls: true,
                ..TlsArgs::default()
            },
            TlsArgs {
                tlsverify: true,
                ..TlsArgs::default()
            },
            TlsArgs {
                tlscert: Some("/x".into()),
                ..TlsArgs::default()
            },
        ] {
            assert!(args.server().is_err());
        }
    }
}
