//! Keys: ECDSA on P-256. A private one is shown by nothing but [`Key::to_pem`].

use std::fmt;

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::hex;

/// A private key with its public one.
pub struct Key(KeyPair);

/// A point on the curve, uncompressed; whether it is one shows when it is to verify something.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PublicKey([u8; 65]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none in it.
    #[error("no private key in PEM")]
    Pem(#[from] pem::Error),
    /// It is of another kind.
    #[error("no private key of ECDSA on P-256")]
    Kind(#[from] rcgen::Error),
}

/// Bytes by chance.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    filled.expect("the kernel has random bytes");
    bytes
}

impl Key {
    /// A new one.
    ///
    /// # Panics
    ///
    /// If the kernel has no random bytes.
    #[must_use]
    pub fn generate() -> Self {
        Self(KeyPair::generate().expect("the kernel has random bytes"))
    }

    /// Reads what [`Key::to_pem`] made, whatever else is before or after it.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for anything else.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())?;
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm)?;
        Ok(Self(pair))
    }

    /// PKCS #8 in PEM, for a file that is root's alone.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    pub(crate) fn public(&self) -> PublicKey {
        let raw = self.0.public_key_raw().try_into();
        PublicKey(raw.expect("a point of P-256 has 65 bytes"))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signed = SigningKey::sign(&self.0, message);
        signed.expect("the kernel has random bytes")
    }

    /// The public one, as [`Authority::certify`](crate::Authority::certify) takes it.
    #[must_use]
    pub fn to_public(&self) -> String {
        self.public().into()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.public()).finish()
    }
}

impl PublicKey {
    /// Whether the holder of the private key has signed `message`.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0);
        key.verify(message, signature).is_ok()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl TryFrom<String> for PublicKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode_array(&text)
            .map(Self)
            .ok_or("a public key has 130 hexadecimal digits")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        hex::encode(&key.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn signatures_are_of_one_key_and_one_message() {
        let (key, other) = (Key::generate(), Key::generate());
        let signature = key.sign(b"message");
        assert!(key.public().has_signed(b"message", &signature));
        assert!(!key.public().has_signed(b"massage", &signature));
        assert!(!other.public().has_signed(b"message", &signature));
        assert!(!PublicKey([4; 65]).has_signed(b"message", &signature));
    }

    #[test]
    fn a_key_goes_round_and_is_not_shown() {
        let key = Key::generate();
        let pem = key.to_pem();
        assert_eq!(Key::from_pem(&pem).unwrap().public(), key.public());
        let private: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(!format!("{key:?}").contains(&private[20..60]));
        assert!(Key::from_pem("-----BEGIN PRIVATE KEY-----").is_err());
    }
}
