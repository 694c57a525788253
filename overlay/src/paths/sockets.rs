//! Sends probes, and hears the answers.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, ipproto, socket_with,
    sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    },
};
use tokio::net::UdpSocket;

use super::{
    PathTarget,
    packet::{Cookie, answer},
};

/// More than the headers of an answer; its padding is not looked at.
const HEAD: usize = 128;

/// Of one network namespace.
pub(super) struct Sockets {
    echoes: Echoes,
    /// One for each of this host's underlay addresses.
    senders: BTreeMap<IpAddr, UdpSocket>,
}

/// Hears all ICMP of one network namespace.
pub(super) struct Echoes {
    /// A raw socket, which std and tokio know no type for: to `recv` it is as one of UDP.
    socket: UdpSocket,
}

impl Echoes {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let raw = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            flags,
            Some(ipproto::ICMP),
        )?;
        Ok(Self {
            socket: UdpSocket::from_std(raw.into())?,
        })
    }

    /// What is made of the next packet of which something can be made.
    pub(super) async fn next<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        let mut head = [0; HEAD];
        loop {
            let length = self.socket.recv(&mut head).await?;
            if let Some(read) = read(&head[..length]) {
                return Ok(read);
            }
        }
    }
}

impl Sockets {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            echoes: Echoes::open()?,
            senders: BTreeMap::new(),
        })
    }

    /// Closes those of other addresses.
    pub(super) fn keep(&mut self, locals: &BTreeSet<IpAddr>) {
        self.senders.retain(|local, _| locals.contains(local));
    }

    /// Sends it as one packet, or not at all, whatever the kernel believes of the path (`IP_PMTUDISC_PROBE`).
    pub(super) async fn send(&mut self, target: &PathTarget, packet: &[u8]) -> io::Result<()> {
        let to = SocketAddr::new(target.vtep, target.port);
        let sender = match self.senders.entry(target.local) {
            Entry::Occupied(sender) => sender.into_mut(),
            Entry::Vacant(place) => place.insert(sender(target.local).await?),
        };
        let sent = sender.try_send_to(packet, to);
        if sent
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
        {
            self.senders.remove(&target.local); // its address may have gone, and come again
        }
        sent.map(drop)
    }

    /// The next answer to a probe of ours.
    pub(super) async fn answer(&self, cookie: Cookie) -> io::Result<(Ipv4Addr, u16)> {
        self.echoes.next(|packet| answer(packet, cookie)).await
    }
}

async fn sender(local: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0)).await?;
    if local.is_ipv4() {
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    } else {
        set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
    }
    Ok(socket)
}
