//! What the daemon was told of registries.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// How registries are reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RegistrySettings {
    /// Those without TLS, or with certificates that nobody vouches for. Those on this machine always are.
    pub insecure: Vec<InsecureRegistry>,
    /// Those that are asked for Docker Hub's images before it is.
    pub mirrors: Vec<Mirror>,
    /// Directories with one for each registry, `HOST[:PORT]`, of certificates (`*.crt`) to trust there.
    pub certificates: Vec<PathBuf>,
}

impl RegistrySettings {
    /// Whether the registry `host`, perhaps with a port, need not prove who it is.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        let address = bare(host).parse::<IpAddr>().ok();
        let is_local = bare(host) == "localhost" || address.is_some_and(|ip| ip.is_loopback());
        is_local
            || self.insecure.iter().any(|insecure| match insecure {
                InsecureRegistry::Host(name) => name == host,
                InsecureRegistry::Network(network, prefix) => {
                    address.is_some_and(|ip| shares_prefix(ip, *network, *prefix))
                }
            })
    }
}

/// A host without its port and brackets.
fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn shares_prefix(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differ = a.to_bits() ^ b.to_bits();
            differ.leading_zeros() >= prefix.into()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differ = a.to_bits() ^ b.to_bits();
            differ.leading_zeros() >= prefix.into()
        }
        _ => false,
    }
}

/// A registry, or a network of them, that need not prove who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InsecureRegistry {
    /// A host as image names have it, with its port.
    Host(String),
    /// All addresses that begin with so many bits of this one.
    Network(IpAddr, u8),
}

/// Neither a registry nor a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "invalid insecure registry {0:?}: expected HOST[:PORT] or a network as 10.0.0.0/8, without http://"
)]
pub struct InvalidInsecure(pub String);

impl FromStr for InsecureRegistry {
    type Err = InvalidInsecure;

    fn from_str(text: &str) -> Result<Self, InvalidInsecure> {
        let wrong = || InvalidInsecure(text.to_owned());
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse().map_err(|_| wrong())?;
            return match prefix {
                0..=128 if prefix <= most => Ok(Self::Network(address, prefix)),
                _ => Err(wrong()),
            };
        }
        is_host(text)
            .then(|| Self::Host(text.to_owned()))
            .ok_or_else(wrong)
    }
}

/// Whether this is a host, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let label = |label: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(fine) && !label.starts_with('-')
    };
    let is_port = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => port.is_empty(),
    };
    host.split('.').all(label) && is_port
}

/// A registry that has Docker Hub's images too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mirror {
    /// Whether it is spoken to without TLS.
    pub(crate) plain: bool,
    /// Host, perhaps with a port.
    pub(crate) host: String,
}

/// Not a mirror's address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid mirror {0:?}: expected https://HOST[:PORT] or http://HOST[:PORT], without a path")]
pub struct InvalidMirror(pub String);

impl FromStr for Mirror {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, InvalidMirror> {
        let wrong = || InvalidMirror(text.to_owned());
        let (plain, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if !is_host(host) {
            return Err(wrong());
        }
        Ok(Self {
            plain,
            host: host.to_owned(),
        })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain { "http" } else { "https" };
        write!(f, "{scheme}://{}/", self.host)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_insecure_is_local_or_listed() {
        let settings = RegistrySettings {
            insecure: ["reg.lan:5000", "10.1.0.0/16", "fd00::/8"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..RegistrySettings::default()
        };
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.9:1",
            "[::1]:5000",
            "reg.lan:5000",
            "10.1.2.3:5000",
            "[fd00::1]:5000",
        ] {
            assert!(settings.is_insecure(host), "{host}");
        }
        for host in [
            "reg.lan",
            "docker.io",
            "10.2.0.1",
            "localhost.lan",
            "[fe80::1]",
        ] {
            assert!(!settings.is_insecure(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for wrong in [
            "",
            "http://a",
            "a/b",
            "10.0.0.0/33",
            "a:0",
            "a:b",
            "-a",
            "[::1",
            "a b",
        ] {
            assert!(wrong.parse::<InsecureRegistry>().is_err(), "{wrong}");
        }
        for wrong in [
            "",
            "a",
            "https://",
            "https://a/b",
            "ftp://a",
            "https://u@a",
            "http://a?b",
        ] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
        let mirror: Mirror = "http://mirror.lan:5000".parse().unwrap();
        assert_eq!(mirror.to_string(), "http://mirror.lan:5000/");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,24}") {
            let _ = text.parse::<InsecureRegistry>();
            if let Ok(mirror) = text.parse::<Mirror>() {
                prop_assert_eq!(mirror.to_string().parse::<Mirror>().unwrap(), mirror);
            }
        }
    }
}
