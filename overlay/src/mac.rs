use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no MAC address: six bytes in hexadecimal are, as in 02:42:ac:11:00:02")]
pub struct NotAMac(pub String);

impl MacAddr {
    /// The tunnel end of a node: a function of its id, so that peers need not be told.
    ///
    /// FNV-1a over the id, cut to 46 bits, made unicast and locally administered.
    #[must_use]
    pub fn of_node(node_id: &str) -> Self {
        let hash = node_id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let [_, _, mut first, rest @ ..] = (hash ^ (hash >> 48)).to_be_bytes();
        first = first & 0b1111_1100 | 0b10;
        let [b, c, d, e, f] = rest;
        Self([first, b, c, d, e, f])
    }

    /// The host's end of a container's link. It begins high, for a bridge that is given no MAC takes the lowest of its
    /// ports', and would change it as containers come and go.
    #[must_use]
    pub(crate) fn of_port(link: &str) -> Self {
        let Self([_, rest @ ..]) = Self::of_node(link);
        let [b, c, d, e, f] = rest;
        Self([0xfe, b, c, d, e, f])
    }

    /// The link of a container, as Docker derives it: `02:42` and its IPv4 address.
    ///
    /// An address that is used again thus keeps its MAC, and no neighbour cache goes stale.
    #[must_use]
    pub fn of_address(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The link-local IPv6 address that a card with this address makes itself (RFC 4291, appendix A).
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let halves = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]];
        let [first, second, third, fourth] = halves.map(u16::from_be_bytes);
        Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, third, fourth)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let wrong = || NotAMac(text.to_owned());
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        parts
            .next()
            .is_none()
            .then_some(Self(bytes))
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn a_node_has_one_local_unicast_address() {
        let mac = MacAddr::of_node("node-a");
        assert_eq!(mac, MacAddr::of_node("node-a"));
        assert_ne!(mac, MacAddr::of_node("node-b"));
        assert_eq!(mac.0[0] & 0b11, 0b10);
    }

    #[test]
    fn a_container_has_docker_s_address() {
        let mac = MacAddr::of_address(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn a_link_local_address_is_made_of_it() {
        let mac = MacAddr([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(mac.link_local().to_string(), "fe80::42:acff:fe11:2");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "02:42:ac:11:00:zz",
            "2:42:ac:11:0:2",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(NotAMac(text.to_owned())));
        }
    }
}
