//! The registry that a daemon joins, and by what the two know each other.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// By what a registry and this host know each other.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RegistryAccess {
    /// Who vouches for an https registry, in PEM (default: whom this machine trusts)
    #[arg(long = "registry-ca", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// This host's certificate for an https registry, in PEM
    #[arg(long = "registry-cert", value_name = "FILE", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,

    /// The key of that certificate, in PEM
    #[arg(long = "registry-key", value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,

    /// The user that this host is to an etcd with users
    #[arg(
        long = "registry-user",
        value_name = "NAME",
        requires = "password_file"
    )]
    pub(crate) user: Option<String>,

    /// File whose first line is that user's password
    #[arg(
        long = "registry-password-file",
        value_name = "FILE",
        requires = "user"
    )]
    pub(crate) password_file: Option<PathBuf>,
}

/// Which registry the daemon joins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum RegistryChoice {
    /// Its own.
    Embedded,
    /// That at these URLs: an etcd cluster, or another daemon's embedded one.
    Urls(Vec<String>),
}

/// Not a registry's address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a registry: expected embedded, or URLs as http://10.0.0.1:2379 separated by commas"
)]
pub(crate) struct NotARegistry(String);

impl FromStr for RegistryChoice {
    type Err = NotARegistry;

    fn from_str(text: &str) -> Result<Self, NotARegistry> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        text.split(',')
            .map(|url| {
                let authority = url
                    .strip_prefix("http://")
                    .or_else(|| url.strip_prefix("https://"))
                    .ok_or_else(|| NotARegistry(url.to_owned()))?;
                match authority.trim_end_matches('/').rsplit_once(':') {
                    Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                        Ok(url.trim_end_matches('/').to_owned())
                    }
                    _ => Err(NotARegistry(url.to_owned())),
                }
            })
            .collect::<Result<_, _>>()
            .map(Self::Urls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        assert_eq!(
            "embedded".parse::<RegistryChoice>().ok(),
            Some(RegistryChoice::Embedded)
        );
        let urls = "http://a:2379,https://10.0.0.2:2379/"
            .parse::<RegistryChoice>()
            .ok();
        let expected = ["http://a:2379", "https://10.0.0.2:2379"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(urls, Some(RegistryChoice::Urls(expected)));
        for wrong in [
            "",
            "etcd",
            "http://",
            "http://a",
            "http://a:x",
            "http://a:1,",
            "a:2379",
        ] {
            assert!(wrong.parse::<RegistryChoice>().is_err(), "{wrong:?}");
        }
    }
}
