//! Gives a network namespace an address on a VXLAN segment across hosts.

mod firewall;
mod kernel;
mod mac;
mod mtu;
mod netlink;
mod netns;
mod nft;
mod segment;
mod vni;

pub use kernel::{Kernel, Object, OpenKernelError, ReconcileError, ReconcileFailure, Report};
pub use mac::{MacAddr, NotAMac};
pub use mtu::{MtuTooSmall, inner_mtu};
pub use netns::{CreateNetNsError, NetNs, OpenNetNsError};
pub use nft::NftError;
pub use segment::{
    HostState, Peer, Protocol, Published, Reach, Segment, Vxlan, bridge_name, gateway_of,
    veth_name, vxlan_name,
};
pub use vni::{Vni, VniTooLarge};
