//! What can go wrong between a client and its daemon.

use std::error::Error;
use std::io;

use hyper::StatusCode;

use crate::cli::host::{DEFAULT_HOST, Host};

/// Why a request to the daemon has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "cannot connect to the nuncio daemon at {host} (is it running? start it with: {start})"
    )]
    Unreachable {
        host: Host,
        start: String,
        source: io::Error,
    },
    #[error(
        "cannot connect to the nuncio daemon at {host} (its socket is root's: try again with sudo)"
    )]
    NotAllowed { host: Host, source: io::Error },
    #[error(
        "{host}: over TCP a daemon speaks to those alone who show a certificate: use --tlsverify, with ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH or by --tlscacert, --tlscert and --tlskey"
    )]
    NoCertificate { host: Host },
    #[error(
        "cannot speak TLS with the nuncio daemon at {host} (are certificates of --tlscacert, --tlscert and --tlskey, or DOCKER_CERT_PATH, the right ones?)"
    )]
    Tls { host: Host, source: io::Error },
    /// The daemon said no.
    #[error("Error response from daemon: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("{what}: the connection broke off")]
    Broken { what: String, source: hyper::Error },
    #[error("{what}: the answer was cut short")]
    Cut {
        what: String,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{what}: a line of the answer is longer than {limit} bytes")]
    LongLine { what: String, limit: usize },
    #[error("{what}: the answer is not what the API promises")]
    Unexpected {
        what: String,
        source: serde_json::Error,
    },
    #[error("{what}: expected the answer 101, to take the connection over, not {status}")]
    NotHijacked { what: String, status: StatusCode },
    #[error("{what}: the body of the request")]
    Body {
        what: String,
        source: serde_json::Error,
    },
    #[error("{what}: cannot be put into a request")]
    Path {
        what: String,
        source: hyper::http::uri::InvalidUri,
    },
}

impl ClientError {
    pub(super) fn unreachable(host: &Host, source: io::Error) -> Self {
        let host = host.clone();
        // Over TCP these kinds are of certificates and of the files that they are in.
        let of_certificates = matches!(
            source.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        if matches!(host, Host::Tcp { .. }) && of_certificates {
            return Self::Tls { host, source };
        }
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::NotAllowed { host, source };
        }
        let start = match host.to_string() {
            address if address == DEFAULT_HOST => "nuncio daemon".to_owned(),
            address => format!("nuncio daemon -H {address}"),
        };
        Self::Unreachable {
            host,
            start,
            source,
        }
    }

    /// Whether the daemon does not take the question as it is.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::BAD_REQUEST)
    }

    /// Whether the daemon does not have what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// Whether the daemon does not do such things at all.
    pub(crate) fn is_not_built(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_IMPLEMENTED)
    }
}
