//! Who a host is over TLS: a key of Ed25519 (RFC 8032) that stands for itself, without a certificate (RFC 7250).

use std::{fmt, str::FromStr, sync::Arc};

use rustls::{
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use crate::{NotAKey, PrivateKey, PublicKey};

/// What stands in front of the 32 bytes of a private key in PKCS #8 (RFC 8410 §7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// What stands in front of the 32 bytes of a public key as TLS sends it (RFC 8410 §4).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What a host proves by that it is itself; only it has it. It is never printed but by who serialises it on purpose.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Identity(PrivateKey);

/// What others know a host by over TLS; as text, 32 bytes in base64.
#[derive(Clone, Copy, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub struct IdentityKey(PublicKey);

impl Identity {
    /// One by chance.
    #[must_use]
    pub fn generate() -> Self {
        Self(PrivateKey::generate())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> IdentityKey {
        let certified = self.certified();
        let spki = certified
            .cert
            .first()
            .and_then(|cert| IdentityKey::read(cert));
        spki.expect("it was made of such a key")
    }

    /// The pair of keys as TLS takes it.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        let der = [&PKCS8[..], &self.0.to_bytes()].concat();
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).expect("any 32 bytes are a key");
        let public = key.public_key().expect("it has a public half");
        let public = CertificateDer::from(public.to_vec());
        Arc::new(CertifiedKey::new(vec![public], key))
    }
}

impl IdentityKey {
    /// Reads what the other side of a connection sent.
    pub(crate) fn read(spki: &[u8]) -> Option<Self> {
        let key = spki.strip_prefix(&SPKI[..])?;
        Some(Self(PublicKey::from_bytes(key.try_into().ok()?)))
    }
}

impl FromStr for IdentityKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        text.parse().map(Self)
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identity of {}", self.public())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn public_keys_are_what_the_rfc_says() {
        // RFC 8032 §7.1, test 1.
        let hex = |text: &str| -> Vec<u8> {
            let digits = text.as_bytes().chunks(2);
            digits
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect()
        };
        let private = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let identity = format!("\"{}\"", STANDARD.encode(private));
        let identity: Identity = serde_json::from_str(&identity).unwrap();
        assert_eq!(identity.public().to_string(), STANDARD.encode(public));
        assert_eq!(identity.public().to_string().parse(), Ok(identity.public()));
    }

    #[test]
    fn what_is_no_such_key_is_not_read() {
        let sent = Identity::generate().certified();
        let sent = sent.cert.first().unwrap();
        assert!(IdentityKey::read(sent).is_some());
        for length in 0..sent.len() {
            assert_eq!(IdentityKey::read(&sent[..length]), None);
        }
        assert_eq!(IdentityKey::read(&[sent, &[0][..]].concat()), None);
    }
}
