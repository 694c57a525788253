//! Gives a network namespace an address on a VXLAN segment across hosts.

mod address_book;
mod attach;
mod firewall;
mod host;
mod kernel;
mod mac;
mod mtu;
mod names;
mod netlink;
mod netns;
mod nft;
mod paths;
mod probe;
mod segment;
mod sys;
mod tun;
mod vni;
mod walk;

pub use address_book::{AddressBook, AllocateError, KeepBook, OpenBookError, WriteBookError};
pub use attach::{AttachError, AttachRequest, DetachError, Place, attach, detach};
pub use host::{
    HostBridge, HostBridgeError, HostError, MtuError, UnderlayError, default_underlay_address,
    has_ipv6, host_bridge, host_routes, mtu_of_address,
};
pub use kernel::{
    Kernel, Object, OpenKernelError, PeerTraffic, ReconcileError, ReconcileFailure, Report,
    ShortcutState, Standing, is_link_name, peer_traffic,
};
pub use mac::{MacAddr, NotAMac};
pub use mtu::{LEAST_MTU_V6, MtuTooSmall, inner_mtu, sealed_mtu};
pub use names::{
    AnswerStats, ApplyNamesError, ListenError, NameServer, NameStats, NamesDocument, Offer, Served,
    Subscriber, Zone,
};
pub use netlink::ChangeWatch;
pub use netns::{CreateNetNsError, NetNs, OpenNetNsError};
pub use nft::NftError;
pub use paths::{OpenPathsError, PathState, PathStates, PathTarget, Paths};
pub use probe::{Probe, probe};
pub use segment::{
    Carrier, Fallback, Gate, HostAccess, HostState, LinkDoor, Linked, Member, Peer, Protocol,
    Published, Reach, Segment, Vxlan, bridge_name, fallback_name, gateway, gateway_of, gateway6_of,
    veth_name, vxlan_name,
};
pub use tun::{NoTunError, can_make_tun};
pub use vni::{Vni, VniTooLarge};
pub use walk::{Finding, Hop, Listener, Verdict, WalkRequest, listeners, resolve, walk};
