//! Where a daemon is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::config_file;
use crate::papers::Papers;

/// Where a daemon listens unless it is told otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/nuncio/nuncio.sock";

/// The variables that say where a daemon is; the first that is set counts.
pub(crate) const VARIABLES: [&str; 2] = ["NUNCIO_HOST", "DOCKER_HOST"];

/// The port of a daemon that is reached by TLS, as Docker has it.
const TLS_PORT: u16 = 2376;

/// The address of a daemon: a unix socket, written `unix:///PATH`, or `tcp://HOST[:PORT]`, where TLS is spoken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
}

/// A daemon, and the certificates by which both sides know each other if it is reached by TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) papers: Papers,
}

impl Endpoint {
    /// With the certificates that the environment names, or else the user's own.
    pub(crate) fn of_user(host: Host) -> Self {
        let directory = std::env::var_os("DOCKER_CERT_PATH").filter(|path| !path.is_empty());
        let directory = directory.map_or_else(config_file::directory, PathBuf::from);
        Self {
            host,
            papers: Papers::below(&directory),
        }
    }
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
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Not the address of a daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAHost {
    #[error(
        "{0:?} is not the address of a daemon: expected unix:// and an absolute path, as {DEFAULT_HOST}, or tcp://HOST[:PORT]"
    )]
    Unknown(String),
    #[error(
        "{0:?}: a daemon on another machine is not reached over SSH yet: bring its socket here with \"ssh -nNT -L /tmp/nuncio.sock:/run/nuncio/nuncio.sock HOST\" and use -H unix:///tmp/nuncio.sock"
    )]
    Ssh(String),
    #[error(
        "{0:?}: a daemon on another machine is reached by TLS alone, where both sides show certificates: use tcp://HOST:PORT"
    )]
    Http(String),
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let unknown = || NotAHost::Unknown(text.to_owned());
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') && path.len() > 1 => {
                Ok(Self::Unix(path.into()))
            }
            Some(("tcp" | "https", rest)) => address(rest).map(Self::Tcp).ok_or_else(unknown),
            Some(("http", _)) => Err(NotAHost::Http(text.to_owned())),
            Some(("ssh", _)) => Err(NotAHost::Ssh(text.to_owned())),
            _ => Err(unknown()),
        }
    }
}

/// `HOST[:PORT]`, an IPv6 address in brackets, as `HOST:PORT`.
fn address(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let authority: hyper::http::uri::Authority = text.parse().ok()?;
    let host = authority.host();
    if host.is_empty() || text.contains('@') {
        return None;
    }
    let port = match text.strip_prefix(host)? {
        "" => TLS_PORT,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    (port != 0).then(|| format!("{host}:{port}"))
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
    fn absolute_sockets_and_hosts() {
        for (right, address) in [
            ("tcp://10.0.0.1", "10.0.0.1:2376"),
            ("https://host:1/", "host:1"),
            ("tcp://[::1]:9", "[::1]:9"),
            ("tcp://[fd00::1]", "[fd00::1]:2376"),
        ] {
            assert_eq!(
                right.parse::<Host>().ok(),
                Some(Host::Tcp(address.to_owned())),
                "{right}"
            );
        }
        for wrong in [
            "",
            "/run/x",
            "unix://",
            "unix://x",
            "unix:///",
            "http://1.2.3.4:2375",
            "tcp://",
            "tcp://:2376",
            "tcp://a:b",
            "tcp://a:0",
            "tcp://a:99999",
            "tcp://a:1/x",
            "tcp://u@a:1",
        ] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong:?}");
        }
        let told = "ssh://u@h"
            .parse::<Host>()
            .expect_err("not built")
            .to_string();
        assert!(told.contains("is not reached over SSH yet"), "{told}");
    }
}
