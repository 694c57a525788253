use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use rtnetlink::AddressMessageBuilder;

use super::{Netlink, OURS, to_io};

/// An address of a link.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: IpNetwork,
    /// It may be used beyond this host and its wires.
    pub(crate) global: bool,
    /// It was put there by this crate.
    pub(crate) ours: bool,
}

impl Netlink {
    pub(crate) async fn addresses(&self) -> io::Result<Vec<Address>> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<_> = dump.try_collect().await.map_err(to_io)?;
        Ok(messages.iter().filter_map(Address::read).collect())
    }

    /// One of IPv6 is good at once: nobody else is asked whether he has it (RFC 4862 §5.4), since addresses are
    /// handed out, and a container would start without it meanwhile.
    pub(crate) async fn add_address(&self, link: u32, address: IpNetwork) -> io::Result<()> {
        let mut request = self
            .handle
            .address()
            .add(link, address.ip(), address.prefix())
            .replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OURS)));
        if address.is_ipv6() {
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(to_io)
    }

    pub(crate) async fn delete_address(&self, link: u32, address: IpNetwork) -> io::Result<()> {
        let prefix = address.prefix();
        let message = match address {
            IpNetwork::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(link)
                .address(address.ip(), prefix)
                .build(),
            IpNetwork::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(link)
                .address(address.ip(), prefix)
                .build(),
        };
        self.handle
            .address()
            .del(message)
            .execute()
            .await
            .map_err(to_io)
    }
}

impl Address {
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut peer = None;
        let mut ours = false;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Protocol(protocol) => {
                    ours = *protocol == AddressProtocol::Other(OURS);
                }
                _ => {}
            }
        }
        let address: IpAddr = local.or(peer)?; // IPv6 has only IFA_ADDRESS, unless it is point to point
        Some(Self {
            link: message.header.index,
            address: IpNetwork::new(address, message.header.prefix_len).ok()?,
            global: message.header.scope == AddressScope::Universe,
            ours,
        })
    }
}
