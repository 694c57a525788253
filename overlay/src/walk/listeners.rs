//! Who listens in a network namespace, as `/proc/net` tells it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::{NetNs, Protocol};

/// A socket that takes connections, or datagrams of whoever sends them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The transport.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Whether it takes what is sent to `address`.
    #[must_use]
    pub fn takes(&self, address: IpAddr) -> bool {
        match (self.address.ip(), address) {
            (own, address) if own == address => true,
            (IpAddr::V4(own), IpAddr::V4(_)) => own.is_unspecified(),
            // Sockets of IPv6 take IPv4 too, unless they say otherwise, which is not told.
            (IpAddr::V6(own), IpAddr::V4(address)) => {
                own.is_unspecified() || own.to_ipv4_mapped() == Some(address)
            }
            (IpAddr::V6(own), IpAddr::V6(_)) => own.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// `TCP_LISTEN` and, for UDP without a peer, `TCP_CLOSE` (include/net/tcp_states.h).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// Who listens in the namespace at `netns`.
///
/// # Errors
///
/// If it cannot be entered, or `/proc` not be read.
pub async fn listeners(netns: &Path) -> io::Result<Vec<Listener>> {
    let namespace = NetNs::open(netns).map_err(io::Error::other)?;
    let files = [
        (Protocol::Tcp, LISTEN, "tcp"),
        (Protocol::Tcp, LISTEN, "tcp6"),
        (Protocol::Udp, UNCONNECTED, "udp"),
        (Protocol::Udp, UNCONNECTED, "udp6"),
    ];
    let read = move || {
        let mut found = Vec::new();
        for (protocol, state, file) in files {
            match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
                Ok(table) => found.extend(parse(&table, protocol, state)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // without IPv6
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    };
    namespace.run(read).await?
}

fn parse(table: &str, protocol: Protocol, state: &str) -> Vec<Listener> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let mut words = row.split_whitespace();
        let (_, local, _, is) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let address = address(local)?;
        (is == state).then_some(Listener { protocol, address })
    });
    rows.collect()
}

/// `0100007F:1F90`: each word of four bytes in the machine's order, the port in reading order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
            1: 00000000:18EB 00000000:0000 0A 00000000:00000000\n   \
            2: 0201A8C0:18EB 0301A8C0:9C40 01 00000000:00000000\n";
        let found = parse(table, Protocol::Tcp, LISTEN);
        let at = |text: &str| Listener {
            protocol: Protocol::Tcp,
            address: text.parse().unwrap(),
        };
        assert_eq!(found, [at("127.0.0.1:8080"), at("0.0.0.0:6379")]);
        let container = IpAddr::from([10, 0, 0, 2]);
        assert!(!found[0].takes(container) && found[1].takes(container));
        let six = address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(six, "[::1]:80".parse().unwrap());
        assert!(at("[::]:80").takes(container) && !at("[::1]:80").takes(container));
        let dual = "fd00::2".parse().unwrap();
        assert!(at("[::]:80").takes(dual) && at("[fd00::2]:80").takes(dual));
        assert!(!at("0.0.0.0:80").takes(dual) && !at("[::1]:80").takes(dual));
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_not_but_never_panics(table in "\\PC*", row in "( *[0-9A-F:]{0,40}){0,6}") {
            parse(&table, Protocol::Tcp, LISTEN);
            parse(&format!("\n{row}\n"), Protocol::Tcp, LISTEN);
        }
    }
}
