//! Talks to an ambassador: HTTP/1.1 over its admin address, a unix socket or TCP.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use hyper::{Method, Request};
use tokio::net::{TcpStream, UnixStream};

use super::{Answer, ClientError, encode, exchange, full};
use crate::cli::host::Host;

/// The socket's name, beside the one of the daemon that started it.
const SOCKET: &str = "ambassador.sock";

/// The admin address of an ambassador.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum AmbassadorHost {
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
}

/// Not such an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not the address of an ambassador: expected unix:///PATH or http://HOST:PORT, as its --admin has it"
)]
pub(crate) struct NotAnAmbassador(String);

impl FromStr for AmbassadorHost {
    type Err = NotAnAmbassador;

    fn from_str(text: &str) -> Result<Self, NotAnAmbassador> {
        let wrong = || NotAnAmbassador(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            let absolute = path.starts_with('/') && path.len() > 1;
            return absolute.then(|| Self::Unix(path.into())).ok_or_else(wrong);
        }
        let rest = ["http://", "tcp://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let address = rest.unwrap_or(text).trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port_is_one = port.parse::<u16>().is_ok_and(|port| port != 0);
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host_is_one = match bare {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '/', '@', ' ']),
        };
        (port_is_one && host_is_one)
            .then(|| Self::Tcp(address.to_owned()))
            .ok_or_else(wrong)
    }
}

impl fmt::Display for AmbassadorHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

impl AmbassadorHost {
    /// The ambassador of the host that `daemon` serves.
    /// `None` if that is another one than this.
    pub(crate) fn beside(daemon: &Host) -> Option<Self> {
        match daemon {
            Host::Unix(path) => Some(Self::Unix(path.with_file_name(SOCKET))),
            Host::Tcp { .. } => None,
        }
    }

    /// The ambassador of the daemon with this --exec-root.
    pub(crate) fn below(exec_root: &Path) -> Self {
        Self::Unix(exec_root.join(SOCKET))
    }

    /// Whether there is a socket; always so of an address of TCP.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Unix(path) => path.exists(),
            Self::Tcp(_) => true,
        }
    }
}

/// Why an ambassador does not answer, or not as was wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AmbassadorError {
    #[error(
        "cannot connect to the ambassador at {host} (is it running? say where with --admin unix://PATH or http://HOST:PORT)"
    )]
    Unreachable {
        host: AmbassadorHost,
        source: io::Error,
    },
    #[error(
        "cannot connect to the ambassador at {host} (its socket is root's: try again with sudo)"
    )]
    NotAllowed {
        host: AmbassadorHost,
        source: io::Error,
    },
    /// The ambassador said no.
    #[error("the ambassador at {host} refuses: {message}")]
    Refused {
        host: AmbassadorHost,
        message: String,
    },
    #[error("the ambassador at {host}")]
    Client {
        host: AmbassadorHost,
        source: ClientError,
    },
}

/// An ambassador that is asked, each time over a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct AmbassadorClient {
    host: AmbassadorHost,
}

impl AmbassadorClient {
    pub(crate) fn new(host: AmbassadorHost) -> Self {
        Self { host }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// [`AmbassadorError`], also if the answer is an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer, AmbassadorError> {
        let pairs: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", encode::query_value(value)))
            .collect();
        let uri = match &pairs[..] {
            [] => path.to_owned(),
            pairs => format!("{path}?{}", pairs.join("&")),
        };
        let what = format!("{method} {path}");
        let mut request = Request::new(full(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|source| {
            let what = what.clone();
            self.wrong(ClientError::Path { what, source })
        })?;
        let answer = match &self.host {
            AmbassadorHost::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                exchange(
                    stream.map_err(|error| self.unreachable(error))?,
                    request,
                    what,
                )
                .await
            }
            AmbassadorHost::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                exchange(
                    stream.map_err(|error| self.unreachable(error))?,
                    request,
                    what,
                )
                .await
            }
        };
        answer.map_err(|error| self.wrong(error))
    }

    /// As [`Self::send`], and reads the body.
    ///
    /// # Errors
    ///
    /// [`AmbassadorError`], also if the body is not what `T` wants.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, AmbassadorError> {
        let answer = self.send(method, path, query).await?;
        answer.json().await.map_err(|error| self.wrong(error))
    }

    fn unreachable(&self, source: io::Error) -> AmbassadorError {
        let host = self.host.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            AmbassadorError::NotAllowed { host, source }
        } else {
            AmbassadorError::Unreachable { host, source }
        }
    }

    fn wrong(&self, error: ClientError) -> AmbassadorError {
        let host = self.host.clone();
        match error {
            ClientError::Refused { message, .. } => AmbassadorError::Refused { host, message },
            source => AmbassadorError::Client { host, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| {
            text.parse::<AmbassadorHost>()
                .ok()
                .map(|host| host.to_string())
        };
        for (text, same) in [
            ("unix:///run/a.sock", "unix:///run/a.sock"),
            ("http://127.0.0.1:9100", "http://127.0.0.1:9100"),
            ("http://localhost:9100/", "http://localhost:9100"),
            ("tcp://[::1]:9100", "http://[::1]:9100"),
            ("127.0.0.1:9100", "http://127.0.0.1:9100"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(same));
        }
        for wrong in [
            "",
            "unix://",
            "unix://a",
            "unix:///",
            "http://",
            "http://a",
            "http://:1",
            "a:0",
            "a:65536",
            "::1:9100",
            "[::1:9100",
            "https://a:1",
            "http://u@a:1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hosts_own_is_beside_the_daemon() {
        let beside = |text: &str| {
            let daemon: Host = text.parse().expect("a daemon");
            AmbassadorHost::beside(&daemon).map(|host| host.to_string())
        };
        let default = crate::cli::host::DEFAULT_HOST;
        let there = |text: &str| Some(text.to_owned());
        assert_eq!(beside(default), there("unix:///run/nuncio/ambassador.sock"));
        assert_eq!(
            beside("unix:///x/d.sock"),
            there("unix:///x/ambassador.sock")
        );
        assert_eq!(beside("tcp://x:1"), None);
    }
}
