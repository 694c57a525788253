use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteScope, RouteType,
    },
};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, OURS, to_io};

/// A route of the main table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Route {
    pub(crate) destination: IpNetwork,
    pub(crate) gateway: Option<IpAddr>,
    /// Source address of connections from this host itself.
    pub(crate) source: Option<IpAddr>,
    pub(crate) link: u32,
    /// Bytes of the greatest IP packet that goes there; `None`: as the link has it.
    pub(crate) mtu: Option<u32>,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Way {
    pub(crate) link: u32,
    pub(crate) gateway: Option<IpAddr>,
    /// Bytes of the greatest IP packet that the route takes, if it says so.
    pub(crate) mtu: Option<u32>,
}

impl Netlink {
    /// Asks the kernel which way packets to `address` go. The errors are those that a sender gets: `ENETUNREACH` without a
    /// route, `EINVAL` of a black hole.
    pub(crate) async fn way_to(&self, address: IpAddr) -> io::Result<Way> {
        let message = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let mut found = std::pin::pin!(self.handle.route().get(message).execute());
        let found = found.try_next().await.map_err(to_io)?;
        let none = || io::Error::from(Errno::ENETUNREACH);
        found.as_ref().and_then(Way::read).ok_or_else(none)
    }

    /// The unicast routes that leave through one link, of IPv4 and then of IPv6.
    pub(crate) async fn routes(&self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for all in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let dump = self.handle.route().get(all).execute();
            let messages: Vec<_> = dump.try_collect().await.map_err(to_io)?;
            routes.extend(messages.iter().filter_map(Route::read));
        }
        Ok(routes)
    }

    /// Adds the route, or puts it in the place of the one to the same destination.
    pub(crate) async fn replace_route(&self, route: Route) -> io::Result<()> {
        let request = self.handle.route().add(route.message());
        request.replace().execute().await.map_err(to_io)
    }

    pub(crate) async fn delete_route(&self, route: Route) -> io::Result<()> {
        let mut message = route.message();
        // Of any protocol and scope: what is on our links is ours to delete.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        self.handle
            .route()
            .del(message)
            .execute()
            .await
            .map_err(to_io)
    }
}

impl Way {
    fn read(message: &RouteMessage) -> Option<Self> {
        let mut way = Self {
            link: 0,
            gateway: None,
            mtu: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => way.link = *index,
                RouteAttribute::Gateway(address) => way.gateway = ip(address),
                RouteAttribute::Metrics(metrics) => way.mtu = mtu_of(metrics),
                _ => {}
            }
        }
        (way.link != 0).then_some(way)
    }
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

impl Route {
    fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return None;
        }
        let mut destination = match header.address_family {
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let (mut gateway, mut source, mut link, mut mtu) = (None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => gateway = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(index) => link = Some(*index),
                RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
                _ => {}
            }
        }
        Some(Self {
            destination: IpNetwork::new(destination, header.destination_prefix_length).ok()?,
            gateway,
            source,
            link: link?,
            mtu,
        })
    }

    /// A gateway is taken to be on the link, whatever the addresses of the link are. One of IPv6 that is not
    /// link-local has to be on one of its networks.
    fn message(self) -> RouteMessage {
        let mut message = match self.destination {
            IpNetwork::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpNetwork::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        message.header.destination_prefix_length = self.destination.prefix();
        message.header.protocol = RouteProtocol::Other(OURS);
        message.attributes = vec![
            RouteAttribute::Destination(self.destination.network().into()),
            RouteAttribute::Oif(self.link),
        ];
        if let Some(gateway) = self.gateway {
            let attribute = RouteAttribute::Gateway(gateway.into());
            message.attributes.push(attribute);
            if gateway.is_ipv4() {
                message.header.flags |= RouteFlags::Onlink;
            }
        }
        let source = self.source.map(RouteAddress::from);
        let source = source.map(RouteAttribute::PrefSource);
        let mtu = self.mtu.map(RouteMetric::Mtu);
        let metrics = mtu.map(|mtu| RouteAttribute::Metrics(vec![mtu]));
        message.attributes.extend(source.into_iter().chain(metrics));
        message
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
