//! Where a daemon is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::tls::TlsFiles;

/// Where a daemon listens unless it is told otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/nuncio/nuncio.sock";

/// The variables that say where a daemon is; the first that is set counts.
pub(crate) const VARIABLES: [&str; 2] = ["NUNCIO_HOST", "DOCKER_HOST"];

/// The port of the API over TCP, where none is given.
const PORT: u16 = 2376;

/// The address of a daemon: a unix socket, written `unix:///PATH`, or `tcp://HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    Unix(PathBuf),
    Tcp {
        /// With a port.
        address: String,
        /// What a client shows there.
        tls: Option<TlsFiles>,
    },
}

impl Host {
    /// The daemon that a client means: the one of `flag`, else of the first variable that is set and not empty.
    ///
    /// # Errors
    ///
    /// [`NotAHost`] if what was chosen is not the address of a daemon.
    pub(crate) fn choose(
        flag: Option<Self>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, NotAHost> {
        if let Some(host) = flag {
            return Ok(host);
        }
        let mut set = VARIABLES.into_iter().filter_map(variable);
        set.find(|value| !value.is_empty())
            .as_deref()
            .unwrap_or(DEFAULT_HOST)
            .parse()
    }

    /// The same daemon, to which `files` are shown if it is reached over TCP.
    pub(crate) fn showing(self, files: Option<TlsFiles>) -> Self {
        match self {
            Self::Tcp { address, tls } => Self::Tcp {
                address,
                tls: files.or(tls),
            },
            unix @ Self::Unix(_) => unix,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// Not the address of a daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAHost {
    #[error(
        "{0:?} is not the address of a daemon: expected unix:// and an absolute path, as {DEFAULT_HOST}, or tcp://HOST:PORT"
    )]
    Unknown(String),
    #[error(
        "{0:?}: a daemon on another machine is not reached over SSH yet: use tcp://HOST:PORT with certificates, or bring its socket here with \"ssh -nNT -L /tmp/nuncio.sock:/run/nuncio/nuncio.sock HOST\" and use -H unix:///tmp/nuncio.sock"
    )]
    Ssh(String),
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let unknown = || NotAHost::Unknown(text.to_owned());
        match text.split_once("://").ok_or_else(unknown)? {
            ("unix", path) if path.starts_with('/') && path.len() > 1 => {
                Ok(Self::Unix(path.into()))
            }
            ("tcp", address) => Ok(Self::Tcp {
                address: with_port(address).ok_or_else(unknown)?,
                tls: None,
            }),
            ("ssh", _) => Err(NotAHost::Ssh(text.to_owned())),
            _ => Err(unknown()),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, each perhaps with a slash behind it; always with a port.
fn with_port(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, PORT),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_one = match bare {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']),
    };
    (is_one && port != 0).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_nuncio_then_docker() {
        let host = |text: &str| text.parse::<Host>().ok();
        let both = |name: &str| Some(format!("unix:///{}", name.to_lowercase()));
        let docker = |name: &str| (name == "DOCKER_HOST").then(|| "unix:///d".to_owned());
        assert_eq!(
            Host::choose(host("unix:///flag"), both).ok(),
            host("unix:///flag")
        );
        assert_eq!(Host::choose(None, both).ok(), host("unix:///nuncio_host"));
        assert_eq!(Host::choose(None, docker).ok(), host("unix:///d"));
        assert_eq!(
            Host::choose(None, |_| Some(String::new())).ok(),
            host(DEFAULT_HOST)
        );
    }

    #[test]
    fn only_absolute_sockets_and_addresses() {
        for wrong in [
            "",
            "/run/x",
            "unix://",
            "unix://x",
            "unix:///",
            "tcp://",
            "tcp://:2376",
            "tcp://h:0",
            "tcp://h:x",
            "tcp://::1",
            "tcp://u@h:1",
            "http://1.2.3.4:2375",
        ] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong:?}");
        }
        for (text, address) in [
            ("tcp://1.2.3.4", "1.2.3.4:2376"),
            ("tcp://db.example.org:99/", "db.example.org:99"),
            ("tcp://[::1]:1", "[::1]:1"),
            ("tcp://[::1]", "[::1]:2376"),
        ] {
            let host = text.parse::<Host>().expect("an address");
            assert_eq!(host.to_string(), format!("tcp://{address}"));
        }
        let told = "ssh://u@h"
            .parse::<Host>()
            .expect_err("not built")
            .to_string();
        assert!(told.contains("is not reached over SSH yet"), "{told}");
    }
}
