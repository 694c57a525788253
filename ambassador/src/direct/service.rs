//! What names a service: who sees it, and its address.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::cgroup;
use super::error::DirectError;
use crate::Protocol;

/// A set of services that the processes of one cgroup see, or of several that are attached with
/// the same scope. Networks whose addresses overlap are different scopes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Scope(u64);

impl Scope {
    /// A scope by number; none by 0, which stands for "sees nothing".
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The scope that a cgroup has to itself: its number in the kernel.
    ///
    /// # Errors
    ///
    /// [`DirectError`] if there is no such cgroup, or it is not one of cgroup2.
    pub fn of(cgroup: &Path) -> Result<Self, DirectError> {
        let (_, id) = cgroup::open(cgroup)?;
        Self::new(id).ok_or_else(|| DirectError::Cgroup {
            cgroup: cgroup.to_owned(),
            source: io::ErrorKind::InvalidData.into(),
        })
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// The address at which processes look for a service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceKey {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

/// Why an address cannot stand for a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAService {
    /// `0.0.0.0` and `[::]` are every address.
    #[error("{0} is every address; a service has one, so name the one that clients connect to")]
    Unspecified(SocketAddr),
    /// Nobody connects to port 0.
    #[error("{0} has no port; a service has one from 1 to 65535")]
    NoPort(SocketAddr),
    /// An address with a zone is another one on each link.
    #[error("{0} belongs to one link only; give a service an address without a zone")]
    Zone(SocketAddr),
}

impl ServiceKey {
    /// The service at `address`. An IPv4 address may be given as IPv6, mapped.
    ///
    /// # Errors
    ///
    /// [`NotAService`] if it is not one concrete address and port.
    pub fn new(protocol: Protocol, address: SocketAddr) -> Result<Self, NotAService> {
        let ip = check(address)?;
        Ok(Self {
            protocol,
            address: ip,
            port: address.port(),
        })
    }

    /// The transport.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Whether a socket that was made for the service can talk to `endpoint`.
    pub(super) fn speaks_to(&self, endpoint: SocketAddr) -> bool {
        self.address.is_ipv4() == endpoint.ip().to_canonical().is_ipv4()
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol, self.address())
    }
}

/// The plain address of what one can connect to.
pub(super) fn check(address: SocketAddr) -> Result<IpAddr, NotAService> {
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() {
        return Err(NotAService::Unspecified(address));
    }
    if address.port() == 0 {
        return Err(NotAService::NoPort(address));
    }
    match address {
        SocketAddr::V6(six) if six.scope_id() != 0 => Err(NotAService::Zone(address)),
        _ => Ok(ip),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn service(text: &str) -> Result<ServiceKey, NotAService> {
        ServiceKey::new(Protocol::Tcp, text.parse().unwrap())
    }

    #[test]
    fn a_service_has_one_address() {
        assert!(service("192.0.2.1:80").is_ok());
        assert!(service("[2001:db8::1]:80").is_ok());
        for every in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"] {
            assert!(
                matches!(service(every), Err(NotAService::Unspecified(_))),
                "{every}"
            );
        }
        assert!(matches!(
            service("192.0.2.1:0"),
            Err(NotAService::NoPort(_))
        ));
        assert!(matches!(
            service("[fe80::1%2]:80"),
            Err(NotAService::Zone(_))
        ));
    }

    #[test]
    fn a_mapped_address_is_the_same_service() {
        assert_eq!(service("[::ffff:192.0.2.1]:80"), service("192.0.2.1:80"));
    }

    #[test]
    fn sockets_do_not_change_their_family() {
        let four = service("192.0.2.1:80").unwrap();
        assert!(four.speaks_to("192.0.2.2:80".parse().unwrap()));
        assert!(four.speaks_to("[::ffff:192.0.2.2]:80".parse().unwrap()));
        assert!(!four.speaks_to("[2001:db8::1]:80".parse().unwrap()));
    }
}
