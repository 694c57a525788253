//! Tells a client that nobody takes its datagrams, as the upstream's own kernel would have told it.
//!
//! A listener has no call for that: its kernel sends the ICMP error only for datagrams that no
//! socket takes. So the error is built here and leaves by a raw socket, for which the process needs
//! `CAP_NET_RAW`; without it clients hear nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use etherparse::err::packet::BuildWriteError;
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder, icmpv4, icmpv6,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tracing::{debug, warn};

/// As `icmp_msgs_per_sec` has it for the kernel's own; more are dropped.
const MOST_PER_SECOND: u32 = 1_000;
const HOP_LIMIT: u8 = 64;

/// Why datagrams cannot be delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    Network,
    Host,
    Port,
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NetworkUnreachable => Self::Network,
            io::ErrorKind::HostUnreachable => Self::Host,
            _ => Self::Port,
        }
    }
}

/// Tells the clients of one listener, within bounds.
#[derive(Debug)]
pub(super) struct Unreachable {
    /// When the second began, and how many were told in it.
    second: Mutex<(Instant, u32)>,
    forbidden: AtomicBool,
}

impl Unreachable {
    pub(super) fn new() -> Self {
        Self {
            second: Mutex::new((Instant::now(), 0)),
            forbidden: AtomicBool::new(false),
        }
    }

    /// Sends `client` an error for a datagram that it has sent to `local`, from where it comes.
    pub(super) fn tell(&self, client: SocketAddr, local: SocketAddr, cause: Cause) {
        if self.forbidden.load(Ordering::Relaxed) || !self.may_tell(Instant::now()) {
            return;
        }
        match send(client, local, cause) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.forbidden.store(true, Ordering::Relaxed);
                warn!(
                    %local, %error,
                    "clients are not told of unreachable upstreams; that takes CAP_NET_RAW"
                );
            }
            Err(error) => debug!(%client, %error, "client is not told"),
        }
    }

    fn may_tell(&self, now: Instant) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(second.0) >= Duration::from_secs(1) {
            *second = (now, 0);
        }
        second.1 += 1;
        second.1 <= MOST_PER_SECOND
    }
}

/// Not from a socket that is kept, which would be given every ICMP message that the host receives.
fn send(client: SocketAddr, local: SocketAddr, cause: Cause) -> io::Result<()> {
    let (domain, protocol, message, from, to) = match (ip(client), ip(local)) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let message = icmp4((to, client.port()), (from, local.port()), cause);
            let (from, to) = (SocketAddr::from((from, 0)), SocketAddr::from((to, 0)));
            (Domain::IPV4, Protocol::ICMPV4, message, from, to)
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let message = icmp6((to, client.port()), (from, local.port()), cause);
            let SocketAddr::V6(client) = client else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            // A link-local address, of either end, is one on the client's link.
            let on_link = |ip| SocketAddr::from(SocketAddrV6::new(ip, 0, 0, client.scope_id()));
            (
                Domain::IPV6,
                Protocol::ICMPV6,
                message,
                on_link(from),
                on_link(to),
            )
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let message = message.map_err(io::Error::other)?;
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
    socket.bind(&SockAddr::from(from))?;
    socket.send_to(&message, &SockAddr::from(to))?;
    Ok(())
}

fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Type 3, with the headers that a datagram without content has (RFC 792). By the addresses and
/// ports in them the client's kernel finds the socket.
fn icmp4(
    (client, from): (Ipv4Addr, u16),
    (local, to): (Ipv4Addr, u16),
    cause: Cause,
) -> Result<Vec<u8>, BuildWriteError> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(client.octets(), local.octets(), HOP_LIMIT)
        .udp(from, to)
        .write(&mut quoted, &[])?;
    let code = match cause {
        Cause::Network => icmpv4::DestUnreachableHeader::Network,
        Cause::Host => icmpv4::DestUnreachableHeader::Host,
        Cause::Port => icmpv4::DestUnreachableHeader::Port,
    };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(code), &quoted);
    Ok([header.to_bytes().as_slice(), &quoted].concat())
}

/// Type 1, likewise (RFC 4443, section 3.1).
fn icmp6(
    (client, from): (Ipv6Addr, u16),
    (local, to): (Ipv6Addr, u16),
    cause: Cause,
) -> Result<Vec<u8>, BuildWriteError> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv6(client.octets(), local.octets(), HOP_LIMIT)
        .udp(from, to)
        .write(&mut quoted, &[])?;
    let code = match cause {
        Cause::Network => icmpv6::DestUnreachableCode::NoRoute,
        Cause::Host => icmpv6::DestUnreachableCode::Address,
        Cause::Port => icmpv6::DestUnreachableCode::Port,
    };
    // The kernel puts the checksum in, since only it knows the final addresses (RFC 3542).
    let header = Icmpv6Header::new(Icmpv6Type::DestinationUnreachable(code));
    Ok([header.to_bytes().as_slice(), &quoted].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    #[test]
    fn the_quoted_headers_are_those_of_the_clients_datagram() {
        let client = ("192.0.2.7".parse().unwrap(), 4_000);
        let local = ("198.51.100.1".parse().unwrap(), 53);
        let message = icmp4(client, local, Cause::Port).unwrap();
        let (header, quoted) = Icmpv4Header::from_slice(&message).unwrap();
        let port = icmpv4::DestUnreachableHeader::Port;
        assert_eq!(header.icmp_type, Icmpv4Type::DestinationUnreachable(port));
        let known = Icmpv4Header::with_checksum(header.icmp_type.clone(), quoted);
        assert_eq!(header.checksum, known.checksum);
        let packet = PacketHeaders::from_ip_slice(quoted).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = packet.net else {
            panic!("{packet:?}");
        };
        assert_eq!(
            (ip.source, ip.destination),
            ([192, 0, 2, 7], [198, 51, 100, 1])
        );
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let Some(TransportHeader::Udp(udp)) = packet.transport else {
            panic!("no UDP header");
        };
        assert_eq!(
            (udp.source_port, udp.destination_port, udp.length),
            (4_000, 53, 8)
        );
    }

    #[test]
    fn ipv6_has_its_own_codes() {
        let client = ("2001:db8::7".parse().unwrap(), 4_000);
        let local = ("2001:db8::1".parse().unwrap(), 53);
        for (cause, code) in [(Cause::Network, 0), (Cause::Host, 3), (Cause::Port, 4)] {
            let message = icmp6(client, local, cause).unwrap();
            assert_eq!(message[..2], [1, code]);
            let packet = PacketHeaders::from_ip_slice(&message[8..]).unwrap();
            let Some(NetHeaders::Ipv6(ip, _)) = packet.net else {
                panic!("{packet:?}");
            };
            assert_eq!(ip.source, client.0.octets());
            assert_eq!(ip.destination, local.0.octets());
        }
    }

    #[test]
    fn a_flood_is_not_answered_in_full() {
        let unreachable = Unreachable::new();
        let now = Instant::now();
        let told = |now| (0..3_000).filter(|_| unreachable.may_tell(now)).count();
        assert_eq!(told(now), 1_000);
        assert_eq!(told(now), 0);
        assert_eq!(told(now + Duration::from_secs(1)), 1_000);
    }
}
