//! `--add-host`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `NAME:IP` or `NAME=IP`; the address may be `host-gateway`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HostEntry {
    name: String,
    address: String,
}

/// Not a line for /etc/hosts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidHostEntry {
    #[error("bad format for add-host: {0:?}: expected NAME:IP")]
    Format(String),
    #[error("invalid IP address in add-host: {0:?}")]
    Address(String),
}

impl FromStr for HostEntry {
    type Err = InvalidHostEntry;

    fn from_str(text: &str) -> Result<Self, InvalidHostEntry> {
        // an IPv6 address has colons of its own
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = match parts {
            Some((name, address)) if !name.is_empty() => (name, address),
            _ => return Err(InvalidHostEntry::Format(text.to_owned())),
        };
        let bare = address
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(address);
        if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
            return Err(InvalidHostEntry::Address(address.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            address: bare.to_owned(),
        })
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let entry = |text: &str| {
            text.parse::<HostEntry>()
                .map(|entry| entry.to_string())
                .ok()
        };
        assert_eq!(entry("a:1.2.3.4").as_deref(), Some("a:1.2.3.4"));
        assert_eq!(entry("a=::1").as_deref(), Some("a:::1"));
        assert_eq!(entry("a:[::1]").as_deref(), Some("a:::1"));
        assert_eq!(entry("a:host-gateway").as_deref(), Some("a:host-gateway"));
        for wrong in ["", "a", ":1.2.3.4", "a:", "a:b", "a:1.2.3"] {
            assert_eq!(entry(wrong), None, "{wrong:?}");
        }
    }
}
