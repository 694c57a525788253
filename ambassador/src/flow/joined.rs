//! Whom a flow joins.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU64;
use std::time::Duration;

/// Whom a flow joins, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) client: SocketAddr,
    /// The address of this host that the client reached.
    pub(crate) local: Option<SocketAddr>,
    /// None if it ends before one was found.
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) connect_time: Option<Duration>,
}

impl From<(SocketAddr, SocketAddr)> for Joined {
    fn from((client, upstream): (SocketAddr, SocketAddr)) -> Self {
        Self {
            client,
            local: None,
            upstream: Some(upstream),
            connect_time: None,
        }
    }
}

/// As [`Joined`], in two thirds of the room: its record is a good part of what an idle flow costs.
#[derive(Debug)]
pub(super) struct Kept {
    client: Short,
    local: Option<Short>,
    upstream: Option<Short>,
    connect_time: Option<NonZeroU64>,
}

/// An address without its flow label, which says nothing of who is meant.
#[derive(Clone, Copy, Debug)]
struct Short {
    ip: IpAddr,
    port: u16,
    scope: u32,
}

impl Kept {
    pub(super) fn upstream(&self) -> Option<SocketAddr> {
        self.upstream.map(SocketAddr::from)
    }

    pub(super) fn joined(&self) -> Joined {
        let nanoseconds = self.connect_time.map(NonZeroU64::get);
        Joined {
            client: self.client.into(),
            local: self.local.map(SocketAddr::from),
            upstream: self.upstream(),
            connect_time: nanoseconds.map(Duration::from_nanos),
        }
    }
}

impl From<Joined> for Kept {
    fn from(joined: Joined) -> Self {
        // What took no time at all took a nanosecond.
        let nanoseconds =
            |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self {
            client: joined.client.into(),
            local: joined.local.map(Short::from),
            upstream: joined.upstream.map(Short::from),
            connect_time: joined
                .connect_time
                .map(nanoseconds)
                .and_then(NonZeroU64::new),
        }
    }
}

impl From<SocketAddr> for Short {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: address.port(),
            scope: match address {
                SocketAddr::V4(_) => 0,
                SocketAddr::V6(address) => address.scope_id(),
            },
        }
    }
}

impl From<Short> for SocketAddr {
    fn from(Short { ip, port, scope }: Short) -> Self {
        match ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_kept(address: SocketAddr) {
            let mut expected = address;
            if let SocketAddr::V6(address) = &mut expected {
                address.set_flowinfo(0);
            }
            prop_assert_eq!(SocketAddr::from(Short::from(address)), expected);
        }
    }
}
