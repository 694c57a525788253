//! Admits hosts to a mesh, and nobody else.
//!
//! A mesh has one [`Authority`], which knows its members and signs their certificates. A host becomes a member by a
//! [`JoinToken`] ([`join`]), keeps what that gave it in its [`Home`], and has its certificate renewed by its key
//! ([`Home::renew`]). Certificates are short-lived, and what the authority no longer [admits](Authority::admit) is cut off
//! before they end.

mod authority;
mod certificate;
mod client;
mod files;
mod gateway;
mod hex;
mod home;
mod key;
mod ledger;
mod names;
mod pin;
mod server;
mod token;
mod wire;

pub use authority::{
    Authority, AuthorityError, CertifyError, NodeError, OperatorPapers, TokenRefusal,
};
pub use client::{JoinError, Welcome, join};
pub use gateway::{
    Caller, Following, Gateway, GatewayError, GatewayKeyError, Introduction, Lending, Lent,
    NotAPeerToken, PeerToken, Pinned as PinnedGateway,
};
pub use home::{Draft, Home, HomeError, Membership, RenewError};
pub use key::{Key, KeyError};
pub use ledger::{Member, TokenEntry, TooManyTokens};
pub use names::{MeshId, NodeId, NotAMeshId, NotANodeId};
pub use server::{ALPN, AnswerError};
pub use token::{JoinToken, NotAToken};
