//! Where a daemon is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a daemon listens unless it is told otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/nuncio/nuncio.sock";

/// The variables that say where a daemon is; the first that is set counts.
pub(crate) const VARIABLES: [&str; 2] = ["NUNCIO_HOST", "DOCKER_HOST"];

/// The address of a daemon: a unix socket, written `unix:///PATH`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Host(PathBuf);

impl Host {
    /// The daemon that a client means: the one of `flag`, else of the first variable that is set and not empty.
    ///
    /// # Errors
    ///
    /// [`NotAHost`] if what was chosen is not the address of a unix socket.
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

    pub(crate) fn socket(&self) -> &Path {
        &self.0
    }

    pub(crate) fn into_socket(self) -> PathBuf {
        self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

/// Not the address of a daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAHost {
    #[error(
        "{0:?} is not the address of a daemon: expected unix:// and an absolute path, as {DEFAULT_HOST}"
    )]
    Unknown(String),
    #[error(
        "{0:?}: a daemon on another machine is not reached over {1} yet: bring its socket here with \"ssh -nNT -L /tmp/nuncio.sock:/run/nuncio/nuncio.sock HOST\" and use -H unix:///tmp/nuncio.sock"
    )]
    Remote(String, &'static str),
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Self(path.into())),
            _ => Err(match text.split_once("://") {
                Some(("tcp" | "http" | "https", _)) => NotAHost::Remote(text.to_owned(), "TCP"),
                Some(("ssh", _)) => NotAHost::Remote(text.to_owned(), "SSH"),
                _ => NotAHost::Unknown(text.to_owned()),
            }),
        }
    }
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
    fn only_absolute_sockets() {
        for wrong in [
            "",
            "/run/x",
            "unix://",
            "unix://x",
            "unix:///",
            "tcp://1.2.3.4:2375",
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
