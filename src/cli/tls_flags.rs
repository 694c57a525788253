//! Docker's flags for a daemon that is reached over TCP. There is no other way than TLS, so two of them change nothing.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Certificates for a daemon on another machine.
#[derive(Args, Debug, Default)]
pub(super) struct TlsFlags {
    /// Use TLS: for tcp:// always so
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = ["true", "1"])]
    tls: Option<String>,

    /// Use TLS, and believe nobody without a certificate: for tcp:// always so
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = ["true", "1"])]
    tlsverify: Option<String>,

    /// With tcp://: the authority whose certificates daemons show (else ca.pem in DOCKER_CERT_PATH, or where --config is)
    #[arg(long, value_name = "FILE", action = ArgAction::Set)]
    tlscacert: Option<PathBuf>,

    /// With tcp://: the certificate to show (else cert.pem there)
    #[arg(long, value_name = "FILE", action = ArgAction::Set)]
    tlscert: Option<PathBuf>,

    /// With tcp://: the key to that (else key.pem there)
    #[arg(long, value_name = "FILE", action = ArgAction::Set)]
    tlskey: Option<PathBuf>,
}

impl TlsFlags {
    /// Authority, certificate and key.
    pub(super) fn files(self) -> [Option<PathBuf>; 3] {
        [self.tlscacert, self.tlscert, self.tlskey]
    }
}
