use std::{io, net::IpAddr};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};
use nix::errno::Errno;

use super::{Netlink, to_io};
use crate::MacAddr;

/// A permanent entry of the neighbour table: which MAC an address of the link has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: MacAddr,
}

/// A row of a VXLAN device's forwarding table: behind which VTEP a MAC is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct FdbRow {
    pub(crate) link: u32,
    pub(crate) mac: MacAddr,
    pub(crate) vtep: IpAddr,
}

impl Netlink {
    pub(crate) async fn neighbours(&self) -> io::Result<Vec<Neighbour>> {
        let mut messages = self.neighbour_messages(AddressFamily::Inet).await?;
        messages.extend(self.neighbour_messages(AddressFamily::Inet6).await?);
        let permanent = messages
            .iter()
            .filter(|message| message.header.state == NeighbourState::Permanent);
        Ok(permanent.filter_map(Neighbour::read).collect())
    }

    pub(crate) async fn replace_neighbour(&self, neighbour: Neighbour) -> io::Result<()> {
        let table = self.handle.neighbours();
        let request = table
            .add(neighbour.link, neighbour.address)
            .link_layer_address(&neighbour.mac.0)
            .replace();
        request.execute().await.map_err(to_io)
    }

    /// Forgets what MAC an address has; that it was not known is no error.
    pub(crate) async fn delete_neighbour(&self, link: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = link;
        message.attributes = vec![NeighbourAttribute::Destination(address.into())];
        match self
            .handle
            .neighbours()
            .del(message)
            .execute()
            .await
            .map_err(to_io)
        {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn fdb(&self) -> io::Result<Vec<FdbRow>> {
        let messages = self.neighbour_messages(AddressFamily::Bridge).await?;
        Ok(messages.iter().filter_map(FdbRow::read).collect())
    }

    pub(crate) async fn replace_fdb(&self, row: FdbRow) -> io::Result<()> {
        let request = self.handle.neighbours().add_bridge(row.link, &row.mac.0);
        let request = request
            .destination(row.vtep)
            .flags(NeighbourFlags::Own)
            .replace();
        request.execute().await.map_err(to_io)
    }

    /// The same, and what it leads to is network `vni` there, whatever the device's own.
    pub(crate) async fn replace_fdb_into(&self, row: FdbRow, vni: u32) -> io::Result<()> {
        let request = self.handle.neighbours().add_bridge(row.link, &row.mac.0);
        let mut request = request
            .destination(row.vtep)
            .flags(NeighbourFlags::Own)
            .replace();
        let message = request.message_mut();
        message.attributes.push(NeighbourAttribute::Vni(vni));
        request.execute().await.map_err(to_io)
    }

    pub(crate) async fn delete_fdb(&self, row: FdbRow) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = row.link;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(row.mac.0.to_vec()),
            NeighbourAttribute::Destination(row.vtep.into()),
        ];
        self.handle
            .neighbours()
            .del(message)
            .execute()
            .await
            .map_err(to_io)
    }

    async fn neighbour_messages(&self, family: AddressFamily) -> io::Result<Vec<NeighbourMessage>> {
        let dump = self
            .handle
            .neighbours()
            .get()
            .set_address_family(family)
            .execute();
        dump.try_collect().await.map_err(to_io)
    }
}

impl Neighbour {
    fn read(message: &NeighbourMessage) -> Option<Self> {
        let address = match destination(message)? {
            NeighbourAddress::Inet(address) => (*address).into(),
            NeighbourAddress::Inet6(address) => (*address).into(),
            _ => return None,
        };
        Some(Self {
            link: message.header.ifindex,
            address,
            mac: mac(message)?,
        })
    }
}

impl FdbRow {
    fn read(message: &NeighbourMessage) -> Option<Self> {
        let vtep = match destination(message)? {
            NeighbourAddress::Inet(address) => (*address).into(),
            NeighbourAddress::Inet6(address) => (*address).into(),
            // The family is AF_BRIDGE, so the length alone tells which address it is.
            NeighbourAddress::Other(bytes) => match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?),
                _ => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
            },
            _ => return None,
        };
        Some(Self {
            link: message.header.ifindex,
            mac: mac(message)?,
            vtep,
        })
    }
}

fn destination(message: &NeighbourMessage) -> Option<&NeighbourAddress> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(address) => Some(address),
            _ => None,
        })
}

fn mac(message: &NeighbourMessage) -> Option<MacAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                bytes.as_slice().try_into().ok().map(MacAddr)
            }
            _ => None,
        })
}
