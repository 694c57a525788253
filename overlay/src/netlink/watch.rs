//! Hears of changes to what is ours, whoever makes them.

use std::{collections::HashMap, io};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use netlink_packet_core::{NetlinkBuffer, NetlinkPayload, NlasIterator};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkMessage},
    route::{RouteHeader, RouteMessage, RouteProtocol},
};
use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::{errno::Errno, libc};
use rtnetlink::MulticastGroup;
use tokio_util::task::AbortOnDropHandle;

use super::{Link, Netlink};
use crate::firewall;

/// The table's attribute in every message of nf_tables: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and so on.
const NFTA_TABLE: u16 = 1;
/// `struct nfgenmsg`, after which the attributes begin.
const NFGENMSG: usize = 4;
/// `struct netconfmsg` and its padding, after which the attributes begin.
const NETCONFMSG: usize = 4;
/// Which link a setting is of, `NETCONFA_IFINDEX`, and what stands there for all of them.
const NETCONFA_IFINDEX: u16 = 1;
const ALL_LINKS: i32 = -1;
/// Messages that are thrown away at once; the rest waits.
const MOST_AT_ONCE: usize = 10_000;

/// Sockets that hear what changes in one network namespace. What others have is not told of, nor what the kernel
/// learns by itself.
///
/// Who asks for nothing but changes is also told of those that nuncio makes: these cannot be told apart.
pub struct ChangeWatch {
    route: BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
    /// Of `net.ipv4.ip_forward` and its like, in messages that the crate cannot read.
    settings: TokioSocket,
    rules: TokioSocket,
    /// Our links by index, and whether rows of peers lie there.
    ours: HashMap<u32, bool>,
    _connection: AbortOnDropHandle<()>,
}

impl ChangeWatch {
    /// Begins to listen in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket, or does not tell what links there are.
    pub async fn open() -> io::Result<Self> {
        let (connection, _, route) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ])?;
        let mut watch = Self {
            route: route.map(|(message, _)| message.payload).boxed(),
            settings: listen(
                NETLINK_ROUTE,
                &[
                    MulticastGroup::Ipv4Netconf as u32,
                    MulticastGroup::Ipv6Netconf as u32,
                ],
            )?,
            rules: listen(NETLINK_NETFILTER, &[libc::NFNLGRP_NFTABLES as u32])?,
            ours: HashMap::new(),
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        };
        let there = Netlink::open()?.links().await?;
        let ours = there.iter().filter(|link| link.ours);
        watch
            .ours
            .extend(ours.map(|link| (link.index, has_rows(link))));
        Ok(watch)
    }

    /// Returns when something has changed that may be ours, or when so much has that some of it was missed.
    ///
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// If a socket fails: open another one.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let is_ours = tokio::select! {
                heard = self.route.next() => match heard {
                    Some(payload) => self.concerns_us(&payload),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                heard = self.settings.recv_from_full() => heard_of(heard, sets_forwarding)?,
                heard = self.rules.recv_from_full() => heard_of(heard, names_our_table)?,
            };
            if is_ours {
                return Ok(());
            }
        }
    }

    /// Forgets what has been heard by now.
    pub fn drain(&mut self) {
        for _ in 0..MOST_AT_ONCE {
            if self.changed().now_or_never().is_none() {
                return;
            }
        }
    }

    fn concerns_us(&mut self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        use RouteNetlinkMessage as Message;
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            // The kernel had no room for all it had to tell.
            NetlinkPayload::Overrun(_) => return true,
            _ => return false,
        };
        match message {
            Message::NewLink(link) => self.link(link),
            Message::DelLink(link) if link.header.interface_family == AddressFamily::Bridge => {
                // It has left a bridge.
                self.ours.contains_key(&link.header.index)
            }
            Message::DelLink(link) => self.ours.remove(&link.header.index).is_some(),
            Message::NewAddress(address) | Message::DelAddress(address) => {
                self.ours.contains_key(&address.header.index)
            }
            Message::NewRoute(route) | Message::DelRoute(route) => is_set_by_hand(route),
            // On bridges they come and go with each question of ARP.
            Message::NewNeighbour(neighbour) | Message::DelNeighbour(neighbour) => {
                self.ours.get(&neighbour.header.ifindex) == Some(&true)
            }
            _ => false,
        }
    }

    /// A container's link is put in place by whoever makes it; of the others each change counts.
    fn link(&mut self, message: &LinkMessage) -> bool {
        let link = Link::from(message.clone());
        if !link.ours {
            return self.ours.remove(&link.index).is_some();
        }
        self.ours.insert(link.index, has_rows(&link));
        link.kind != Some(InfoKind::Veth)
    }
}

/// Any such route may be in the place of one of ours, and needs not name one of our links for that. Those of the kernel
/// itself go with addresses, and those that routers tell of are told again and again.
fn is_set_by_hand(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && ![RouteProtocol::Kernel, RouteProtocol::Ra].contains(&route.header.protocol)
}

fn has_rows(link: &Link) -> bool {
    link.leads_to_peers()
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Whether one of a datagram's messages matters.
fn heard_of(
    heard: io::Result<(Vec<u8>, SocketAddr)>,
    matters: impl Fn(u16, &[u8]) -> bool,
) -> io::Result<bool> {
    match heard {
        Ok((datagram, _)) => Ok(messages(&datagram).any(|(kind, body)| matters(kind, body))),
        Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Type and payload of each message, up to the first that is not whole.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = message.length() as usize;
        let (kind, body) = (message.message_type(), message.payload());
        // Each begins at a multiple of four.
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((kind, body))
    })
}

/// Whether a message is about a setting of all links; it is told of each link that comes or goes, too.
fn sets_forwarding(kind: u16, body: &[u8]) -> bool {
    let Some(attributes) = body.get(NETCONFMSG..) else {
        return false;
    };
    kind == libc::RTM_NEWNETCONF
        && NlasIterator::new(attributes).flatten().any(|attribute| {
            attribute.kind() == NETCONFA_IFINDEX && attribute.value() == ALL_LINKS.to_ne_bytes()
        })
}

/// Whether a message of nf_tables is about our table, of whatever family.
fn names_our_table(kind: u16, body: &[u8]) -> bool {
    let subsystem = i32::from(kind >> 8);
    let Some(attributes) = body.get(NFGENMSG..) else {
        return false;
    };
    let ours = firewall::TABLE.rsplit(' ').next().unwrap_or_default();
    subsystem == libc::NFNL_SUBSYS_NFTABLES
        && NlasIterator::new(attributes).flatten().any(|attribute| {
            attribute.kind() == NFTA_TABLE
                && attribute.value().strip_suffix(&[0]) == Some(ours.as_bytes())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of nf_tables about a table, as the kernel lays it out.
    fn of_table(name: &str) -> Vec<u8> {
        let value = [name.as_bytes(), &[0]].concat();
        let attribute = u16::try_from(value.len() + 4).expect("short");
        let mut body = vec![1, 0, 0, 0];
        body.extend(attribute.to_ne_bytes());
        body.extend(NFTA_TABLE.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
        body
    }

    fn datagram(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, body) in messages {
            bytes.extend(u32::try_from(body.len() + 16).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
        }
        bytes
    }

    #[test]
    fn our_table_is_known_among_others() {
        let of_rules = 10 << 8 | 6;
        let theirs = (of_rules, of_table("filter"));
        let ours = (of_rules, of_table("nuncio"));
        let heard = |bytes| heard_of(Ok((bytes, SocketAddr::new(0, 0))), names_our_table);
        assert!(!heard(datagram(std::slice::from_ref(&theirs))).expect("no error"));
        assert!(heard(datagram(&[theirs, ours.clone()])).expect("no error"));
        let elsewhere = (1 << 8 | 6, ours.1);
        assert!(!heard(datagram(&[elsewhere])).expect("no error"));
    }

    #[test]
    fn a_setting_of_all_links_is_known_among_those_of_one() {
        let of_link = |index: i32| {
            let mut body = vec![libc::AF_INET6 as u8, 0, 0, 0, 8, 0, 1, 0];
            body.extend(index.to_ne_bytes());
            body
        };
        assert!(sets_forwarding(libc::RTM_NEWNETCONF, &of_link(ALL_LINKS)));
        assert!(!sets_forwarding(libc::RTM_NEWNETCONF, &of_link(7)));
        assert!(!sets_forwarding(
            libc::RTM_NEWNETCONF + 1,
            &of_link(ALL_LINKS)
        ));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind: u16) {
            for (kind, body) in messages(&bytes) {
                names_our_table(kind, body);
                sets_forwarding(kind, body);
            }
            sets_forwarding(libc::RTM_NEWNETCONF, &bytes);
            names_our_table(10 << 8 | kind & 0xff, &bytes);
        }
    }
}
