//! Flows of UDP that connection tracking knows, and their end.

use std::{io, net::SocketAddr};

use futures_util::StreamExt as _;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rtnetlink::proto::{self, ConnectionHandle};
use tokio_util::task::AbortOnDropHandle;

/// A socket to connection tracking in one network namespace.
pub(crate) struct Conntrack {
    handle: ConnectionHandle<NetfilterMessage>,
    _connection: AbortOnDropHandle<()>,
}

/// Datagrams between the same two ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UdpFlow {
    /// Where the client sends to.
    pub(crate) asked: SocketAddr,
    /// Who answers: another one if the target was rewritten.
    pub(crate) answers: SocketAddr,
    /// What the kernel knows it by.
    original: Vec<Tuple>,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = proto::new_connection(NETLINK_NETFILTER)?;
        Ok(Self {
            handle,
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    /// All flows of UDP, over IPv4 and IPv6.
    pub(crate) async fn udp_flows(&self) -> io::Result<Vec<UdpFlow>> {
        let mut flows = Vec::new();
        for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
            let all = ConntrackMessage::Get(Vec::new());
            self.request(family, all, NLM_F_DUMP, |attributes| {
                flows.extend(UdpFlow::read(attributes));
            })
            .await?;
        }
        Ok(flows)
    }

    /// Forgets a flow: the next datagram of its client begins a new one, by the rules there are then.
    pub(crate) async fn forget(&self, flow: &UdpFlow) -> io::Result<()> {
        let original = ConntrackAttribute::CtaTupleOrig(flow.original.clone());
        let delete = ConntrackMessage::Delete(vec![original]);
        let family = match flow.asked {
            SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
            SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        match self.request(family, delete, NLM_F_ACK, |_| {}).await {
            // It has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    async fn request(
        &self,
        family: NetfilterProtoFamily,
        message: ConntrackMessage,
        flags: u16,
        mut take: impl FnMut(&[ConntrackAttribute]),
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let family = NetfilterHeader::new(family, 0, 0);
        let message = NetfilterMessage::new(family, message);
        let request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        let answers = self
            .handle
            .request(request, netlink_sys::SocketAddr::new(0, 0));
        let mut answers = answers.map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => take(&attributes),
                _ => {}
            }
        }
        Ok(())
    }
}

impl UdpFlow {
    fn read(attributes: &[ConntrackAttribute]) -> Option<Self> {
        let original = attributes.iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
            _ => None,
        })?;
        let reply = attributes.iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
            _ => None,
        })?;
        Some(Self {
            asked: ends(original)?.1,
            answers: ends(reply)?.0,
            original: original.clone(),
        })
    }
}

/// Source and destination, if it is UDP.
fn ends(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port) = (None, None);
    let mut is_udp = false;
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => is_udp = *protocol == Protocol::Udp,
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        ProtoTuple::Other(_) => {}
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    is_udp.then_some(())?;
    Some((
        SocketAddr::new(source?, source_port?),
        SocketAddr::new(destination?, destination_port?),
    ))
}
