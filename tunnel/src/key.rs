//! Keys of X25519 (RFC 7748), written as WireGuard's tools do: in base64.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boringtun::x25519;
use serde::{Deserialize, Serialize};

use crate::{Identity, IdentityKey};

/// Not a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a key: expected 32 bytes in base64, 44 characters that end in `=`")]
pub struct NotAKey;

/// What others know a host by.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// What only the host itself knows. It is never printed but by who serialises it on purpose.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateKey([u8; 32]);

/// A host's own keys, the newest first. The others are still accepted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyRing {
    v: u32,
    keys: Vec<PrivateKey>,
    /// For the fall-back; a ring from before there was one has none.
    #[serde(default)]
    identity: Option<Identity>,
    /// The one before it, by which others may still know this host.
    #[serde(default)]
    former_identity: Option<Identity>,
}

/// The newest key, and the one before it, which others may still use who have not heard of the newest.
const KEPT: usize = 2;

impl KeyRing {
    /// A ring with one key, by chance.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            v: 1,
            keys: vec![PrivateKey::generate()],
            identity: Some(Identity::generate()),
            former_identity: None,
        }
    }

    /// The same with an identity, and whether it had none.
    #[must_use]
    pub fn identified(self) -> (Self, bool) {
        let lacks = self.identity.is_none();
        let identity = self.identity.or_else(|| Some(Identity::generate()));
        (Self { identity, ..self }, lacks)
    }

    /// What the host is known by over TLS, the newest first.
    #[must_use]
    pub fn identity_keys(&self) -> Vec<IdentityKey> {
        self.identities().iter().map(Identity::public).collect()
    }

    /// The same with a new key, and a new identity, in front. The newest until now go on being accepted, those before do not.
    #[must_use]
    pub fn rotated(&self) -> Self {
        let newest = std::iter::once(PrivateKey::generate());
        Self {
            v: self.v,
            keys: newest.chain(self.keys.iter().cloned()).take(KEPT).collect(),
            identity: Some(Identity::generate()),
            former_identity: self.identity.clone(),
        }
    }

    /// The newest first.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.keys.iter().map(PrivateKey::public).collect()
    }

    pub(crate) fn private(&self) -> &[PrivateKey] {
        &self.keys
    }

    pub(crate) fn identities(&self) -> Vec<Identity> {
        let all = self.identity.iter().chain(&self.former_identity);
        all.cloned().collect()
    }
}

impl PrivateKey {
    /// A key by chance, from the kernel.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut bytes[filled..], flags) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => unreachable!("every kernel since 3.17 has getrandom(2): {error}"),
            }
        }
        Self(bytes)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    pub(crate) fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    pub(crate) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }
}

impl PublicKey {
    pub(crate) fn point(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

fn parse(text: &str) -> Result<[u8; 32], NotAKey> {
    let bytes = STANDARD.decode(text).map_err(|_| NotAKey)?;
    bytes.try_into().map_err(|_| NotAKey)
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        parse(text).map(Self)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl TryFrom<String> for PrivateKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        parse(&text).map(Self)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl From<PrivateKey> for String {
    fn from(key: PrivateKey) -> Self {
        STANDARD.encode(key.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private key of {}", self.public())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn public_keys_are_what_the_rfc_says() {
        // RFC 7748 §6.1, Alice.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let private = PrivateKey::try_from(private.to_owned()).unwrap();
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(private.public().to_string(), public);
        assert_eq!(public.parse(), Ok(private.public()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [
            "",
            "AAAA",
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo",
            "~",
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(NotAKey), "{bad}");
        }
    }

    #[test]
    fn a_ring_keeps_the_newest_and_the_one_before() {
        let first = KeyRing::generate();
        let second = first.rotated();
        let third = second.rotated();
        assert_eq!(second.public()[1], first.public()[0]);
        assert_eq!(third.public()[1], second.public()[0]);
        assert_eq!(third.public().len(), 2);
        assert_eq!(second.identity_keys()[1..], first.identity_keys());
        assert_eq!(third.identity_keys()[1], second.identity_keys()[0]);
        assert_eq!(third.identity_keys().len(), 2);
        let file = serde_json::to_string(&third).unwrap();
        assert_eq!(serde_json::from_str::<KeyRing>(&file).unwrap(), third);
    }

    #[test]
    fn printing_a_ring_tells_no_secret() {
        let ring = KeyRing::generate();
        let secret = String::from(ring.private()[0].clone());
        let identity = serde_json::to_string(&ring.identity).unwrap();
        let printed = format!("{ring:?}");
        assert!(!printed.contains(&secret));
        assert!(!printed.contains(identity.trim_matches('"')));
    }

    #[test]
    fn a_ring_without_an_identity_is_given_one() {
        let key = String::from(PrivateKey::generate());
        let file = format!("{{\"v\":1,\"keys\":[\"{key}\"]}}");
        let ring: KeyRing = serde_json::from_str(&file).unwrap();
        assert_eq!(ring.identity_keys(), []);
        let (ring, lacked) = ring.identified();
        assert!(lacked && ring.identity_keys().len() == 1);
        assert_eq!(ring.clone().identified(), (ring, false));
    }
}
