//! Carries networks between hosts encrypted: WireGuard over TUN devices, in user space.
//!
//! A [`Tunnel`] reads packets from the TUN devices it is told of, seals each for the host that has its destination,
//! and sends it there by UDP; what comes in is opened, checked against what its sender may send, and written to the
//! device of its network. Who the peers are, what keys they have and which addresses are theirs comes in a
//! [`TunnelDocument`], as a whole, and can be replaced while packets flow.
//!
//! Where UDP does not get through, the same is sent by TLS over TCP. Packets of networks that are not encrypted, which the
//! kernel carries otherwise, can be sent that way too.

mod batch;
mod control;
mod document;
mod fallback;
mod identity;
mod inbound;
mod joiner;
mod key;
mod link;
mod outbound;
mod pair;
mod ranges;
mod segment;
mod socket;
mod status;
mod table;
mod tunnel;

pub use control::{AskError, ask};
pub use document::{FallbackDocument, LinkDocument, PeerDocument, TunnelDocument};
pub use identity::{Identity, IdentityKey};
pub use key::{KeyRing, NotAKey, PrivateKey, PublicKey};
pub use status::{FallbackStatus, PeerStatus, TunnelStatus};
pub use tunnel::{ConfigureError, OpenTunnelError, Tunnel};
