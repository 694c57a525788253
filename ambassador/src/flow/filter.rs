//! Which flows are meant.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::Entry;

/// Which flows are meant: those for which all that is given holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowFilter {
    /// The flow with this number.
    pub id: Option<u64>,
    /// Flows of the forward of this name.
    pub forward: Option<String>,
    /// Flows to this endpoint.
    pub endpoint: Option<Address>,
    /// Flows from this client.
    pub client: Option<Address>,
}

impl FlowFilter {
    /// Whether every flow is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        let joined = entry.joined();
        self.id.is_none_or(|id| id == entry.id)
            && (self.forward.as_deref()).is_none_or(|name| *name == *entry.forward)
            && (self.client).is_none_or(|client| client.matches(joined.client))
            && (self.endpoint).is_none_or(|endpoint| {
                joined
                    .upstream
                    .is_some_and(|address| endpoint.matches(address))
            })
    }
}

/// A host, at one port or at any. Parsed from `ADDR:PORT` or `ADDR`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    ip: IpAddr,
    port: Option<u16>,
}

impl Address {
    fn matches(self, address: SocketAddr) -> bool {
        self.ip == address.ip().to_canonical()
            && self.port.is_none_or(|port| port == address.port())
    }
}

/// Not the address of a host.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not an address: expected ADDR:PORT or ADDR, as 10.0.0.5:6379, [fd00::5]:6379 or 10.0.0.5"
)]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (ip, port) = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => (address.ip(), Some(address.port())),
            (_, Ok(ip)) => (ip, None),
            _ => return Err(NotAnAddress(text.to_owned())),
        };
        Ok(Self {
            ip: ip.to_canonical(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn addresses_match_with_and_without_a_port() {
        let matches = |text: &str, address: &str| {
            text.parse::<Address>()
                .unwrap()
                .matches(address.parse().unwrap())
        };
        assert!(matches("10.0.0.5", "10.0.0.5:6379"));
        assert!(matches("10.0.0.5:6379", "[::ffff:10.0.0.5]:6379"));
        assert!(matches("::ffff:10.0.0.5", "10.0.0.5:1"));
        assert!(matches("[fd00::5]:1", "[fd00::5]:1"));
        assert!(!matches("10.0.0.5:6379", "10.0.0.5:6380"));
        assert!(!matches("10.0.0.5", "10.0.0.6:6379"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "redis",
            "redis:6379",
            "10.0.0.5:",
            ":6379",
            "10.0.0.5:65536",
            "10.0.0",
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("expected ADDR:PORT"), "{error}");
        }
    }
}
