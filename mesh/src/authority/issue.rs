//! The certificates that an authority signs.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{Issuer, SanType};
use rustls::pki_types::CertificateDer;

use super::{Authority, AuthorityError, now};
use crate::certificate::{SKEW, leaf, operator, root};
use crate::key::{Key, PublicKey};
use crate::names::{MeshId, NodeId};
use crate::wire::Papers;

/// For how long the certificate is good that is made for one conversation: clocks of others may be ahead by this much.
const ROLE_LIFETIME: Duration = SKEW;
/// Bytes of an operator's name.
const LONGEST_NAME: usize = 64;

/// What makes somebody an operator of the mesh.
#[derive(Clone, Debug)]
pub struct OperatorPapers {
    /// In PEM.
    pub certificate: String,
    /// The certificate of the authority that vouches for all members, in PEM.
    pub authority: String,
    /// Seconds since 1970.
    pub expires: u64,
}

/// Why there is no certificate for an operator.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// It would not be one identity.
    #[error("{0:?} is no name of an operator: expected 1 to 64 letters, digits, '.', '-' and '_'")]
    Name(String),
    /// Something else than a public key.
    #[error("{0}")]
    Key(&'static str),
    /// It could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authority {
    /// A key and the certificate by which hosts know this authority before they have its own.
    pub(crate) fn role(&self) -> Result<(Key, [CertificateDer<'static>; 2]), AuthorityError> {
        let key = Key::generate();
        let validity = (now(), now().saturating_add(ROLE_LIFETIME.as_secs()));
        let mesh = self.mesh();
        let leaf = leaf(&mesh.authority(), validity)?;
        let signed = leaf.signed_by(&key.public(), &self.issuer(mesh))?;
        Ok((key, [signed.der().clone(), self.certificate.clone()]))
    }

    /// A certificate for a member, which was seen at `address`: to clients of its API that is what it is called.
    pub(super) fn issue(
        &self,
        node: &NodeId,
        key: PublicKey,
        address: IpAddr,
    ) -> Result<Papers, AuthorityError> {
        let (mesh, manager, lifetime) = {
            let state = self.lock();
            let ledger = &state.ledger;
            (ledger.mesh, ledger.manager.clone(), ledger.lifetime)
        };
        let issued = now();
        let expires = issued.saturating_add(lifetime);
        let mut leaf = leaf(&mesh.member(node), (issued, expires))?;
        let address = address.to_canonical();
        if !address.is_unspecified() {
            leaf.subject_alt_names.push(SanType::IpAddress(address));
        }
        let signed = leaf.signed_by(&key, &self.issuer(mesh))?;
        Ok(Papers {
            certificate: signed.pem(),
            authority: self.pem.clone(),
            manager,
            issued,
            expires,
        })
    }

    fn issuer(&self, mesh: MeshId) -> Issuer<'static, &rcgen::KeyPair> {
        Issuer::new(root(mesh, 0), self.key.pair())
    }

    /// A certificate for an operator, who may use the API of all members, by the public key in `request`.
    ///
    /// # Errors
    ///
    /// [`CertifyError`] if the name or the key is none.
    pub fn certify(
        &self,
        name: &str,
        key: &str,
        lifetime: Duration,
    ) -> Result<OperatorPapers, CertifyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(CertifyError::Name(
                name.chars().take(LONGEST_NAME).collect(),
            ));
        }
        let key = PublicKey::try_from(key.to_owned()).map_err(CertifyError::Key)?;
        let (mesh, issued) = (self.mesh(), now());
        let expires = issued.saturating_add(lifetime.as_secs());
        let certified = || -> Result<String, AuthorityError> {
            let leaf = operator(name, &mesh.operator(name), (issued, expires))?;
            Ok(leaf.signed_by(&key, &self.issuer(mesh))?.pem())
        };
        Ok(OperatorPapers {
            certificate: certified()?,
            authority: self.pem.clone(),
            expires,
        })
    }
}
