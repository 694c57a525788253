//! Mutual TLS between ambassadors: who the peer is, and whether it may speak, for as long as it
//! speaks.

mod credentials;
mod files;
mod handshake;
mod identity;
mod live;
mod raw;
mod relay;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::DnsName;
use tokio::sync::watch;

pub use credentials::{Credentials, CredentialsError, Part};
pub(crate) use files::FileSource;
pub use files::{TlsFiles, TlsFilesError};
pub(crate) use handshake::{HandshakeError, accept, connect};
pub use identity::{Allowed, Identity, IdentityError};
pub(crate) use relay::{Stream, relay};
pub use verify::PeerError;

/// Which end of a forward is encrypted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TlsSide {
    /// Towards upstreams, each of which is the server.
    Originate,
    /// Towards clients: this is the server.
    Terminate,
}

/// One end of a forward speaks TLS 1.3, and both peers show certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Which end.
    pub side: TlsSide,
    /// What this one shows, and whom it trusts, live: newcomers get what is current, and open flows
    /// whose peer a new bundle does not vouch for are reset.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Which peers may speak. A change concerns open flows too.
    pub allow: Arc<[Allowed]>,
    /// What upstreams are asked for by, which whoever is on the way can read; who they are is not judged by it.
    pub server_name: Option<DnsName<'static>>,
}

/// The one place that names who does the cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
