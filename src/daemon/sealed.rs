//! What is confidential, as the registry keeps it: encrypted under a key of its own, which is sealed to each host that
//! may read it.
//!
//! The data is encrypted by XChaCha20-Poly1305 together with what it is for, so that nobody who writes to the registry
//! passes off one secret as another. Its key is sealed as libsodium's `crypto_box_seal` does (X25519, XSalsa20-Poly1305).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use crypto_box::aead::OsRng;
use crypto_box::aead::rand_core::RngCore as _;
use crypto_box::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::state_file;

const FILE: &str = "seal.json";
/// Bytes of every key.
const KEY: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 24;

/// The key pair by which a host reads what is sealed to it.
pub(crate) struct NodeKey(SecretKey);

#[derive(Deserialize, Serialize)]
struct KeyFile {
    v: u32,
    private: Zeroizing<String>,
}

impl NodeKey {
    fn generate() -> Self {
        Self(SecretKey::generate(&mut OsRng))
    }

    /// Reads this host's key pair, for root alone, making it at the first start.
    pub(super) fn open(data_root: &Path) -> anyhow::Result<Self> {
        let path = data_root.join(FILE);
        let there: Option<KeyFile> =
            state_file::read(&path).context("this host's key for secrets")?;
        if let Some(file) = there {
            let key = Zeroizing::new(STANDARD.decode(file.private.as_bytes()).ok());
            let key = key
                .as_deref()
                .and_then(|key| <[u8; KEY]>::try_from(key).ok());
            let key = key.map(Zeroizing::new).with_context(|| {
                format!("{}: the key is not base64 of {KEY} bytes", path.display())
            })?;
            return Ok(Self(SecretKey::from(*key)));
        }
        let made = Self::generate();
        let private = STANDARD.encode(Zeroizing::new(made.0.to_bytes()));
        let private = Zeroizing::new(private);
        state_file::write(&path, &KeyFile { v: 1, private })?;
        Ok(made)
    }

    /// The public one, in base64.
    pub(crate) fn public(&self) -> String {
        STANDARD.encode(self.0.public_key().as_bytes())
    }
}

/// Hosts, by id, with their public keys.
pub(crate) type Recipients = BTreeMap<String, String>;

/// Data that only some hosts can read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Sealed {
    nonce: String,
    data: String,
    /// By host.
    keys: BTreeMap<String, SealedKey>,
}

/// The data's key, sealed to a host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct SealedKey {
    /// The host's public key.
    to: String,
    key: String,
}

/// Why something cannot be sealed or read. It never says what of it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("it is not sealed to this host yet")]
    NotForThis,
    #[error("what the registry has of it is damaged, or meant for something else")]
    Damaged,
    #[error("it cannot be encrypted")]
    Encrypt,
}

impl Sealed {
    /// Seals `data` to `recipients`; those whose key is none are left out.
    pub(crate) fn new(
        data: &[u8],
        purpose: &str,
        recipients: &Recipients,
    ) -> Result<Self, SealError> {
        let (mut key, mut nonce) = (Zeroizing::new([0; KEY]), [0; NONCE]);
        OsRng.fill_bytes(&mut *key);
        OsRng.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: data,
            aad: purpose.as_bytes(),
        };
        let encrypted = cipher(&key).encrypt(XNonce::from_slice(&nonce), payload);
        let mut sealed = Self {
            nonce: STANDARD.encode(nonce),
            data: STANDARD.encode(encrypted.map_err(|_| SealError::Encrypt)?),
            keys: BTreeMap::new(),
        };
        sealed.give(&key, recipients);
        Ok(sealed)
    }

    /// Reads it as host `node`, which has `key`.
    pub(crate) fn open(
        &self,
        purpose: &str,
        node: &str,
        key: &NodeKey,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let data_key = self.key_of(node, key)?;
        let nonce = bytes::<NONCE>(&self.nonce).ok_or(SealError::Damaged)?;
        let data = STANDARD
            .decode(&self.data)
            .map_err(|_| SealError::Damaged)?;
        let payload = Payload {
            msg: &data,
            aad: purpose.as_bytes(),
        };
        let opened = cipher(&data_key).decrypt(XNonce::from_slice(&nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| SealError::Damaged)
    }

    /// Whether exactly `recipients` can read it, as far as their keys are keys.
    pub(crate) fn is_for(&self, recipients: &Recipients) -> bool {
        let able = recipients
            .iter()
            .filter(|(_, public)| parse(public).is_some());
        let wanted: BTreeMap<&String, &String> = able.collect();
        let is: BTreeMap<&String, &String> = self
            .keys
            .iter()
            .map(|(node, sealed)| (node, &sealed.to))
            .collect();
        is == wanted
    }

    /// Those of `recipients` who can read it, in the order of their ids.
    pub(crate) fn readers<'a>(
        &'a self,
        recipients: &'a Recipients,
    ) -> impl Iterator<Item = &'a str> {
        let able = self.keys.iter();
        able.filter(|(node, sealed)| recipients.get(*node) == Some(&sealed.to))
            .map(|(node, _)| node.as_str())
    }

    /// Lets exactly `recipients` read it from now on, done by host `node`, which can.
    pub(crate) fn hand_on(
        &mut self,
        node: &str,
        key: &NodeKey,
        recipients: &Recipients,
    ) -> Result<(), SealError> {
        let data_key = self.key_of(node, key)?;
        self.give(&data_key, recipients);
        Ok(())
    }

    fn give(&mut self, data_key: &[u8; KEY], recipients: &Recipients) {
        self.keys
            .retain(|node, sealed| recipients.get(node) == Some(&sealed.to));
        for (node, public) in recipients {
            if self.keys.contains_key(node) {
                continue;
            }
            let sealed = parse(public).and_then(|to| to.seal(&mut OsRng, data_key).ok());
            if let Some(sealed) = sealed {
                let (to, key) = (public.clone(), STANDARD.encode(sealed));
                self.keys.insert(node.clone(), SealedKey { to, key });
            }
        }
    }

    fn key_of(&self, node: &str, key: &NodeKey) -> Result<Zeroizing<[u8; KEY]>, SealError> {
        let sealed = self.keys.get(node).ok_or(SealError::NotForThis)?;
        if sealed.to != key.public() {
            return Err(SealError::NotForThis);
        }
        let sealed = STANDARD
            .decode(&sealed.key)
            .map_err(|_| SealError::Damaged)?;
        let opened = key.0.unseal(&sealed).map_err(|_| SealError::Damaged)?;
        let opened = Zeroizing::new(opened);
        let opened = <[u8; KEY]>::try_from(opened.as_slice());
        opened.map(Zeroizing::new).map_err(|_| SealError::Damaged)
    }
}

fn cipher(key: &[u8; KEY]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

fn parse(public: &str) -> Option<PublicKey> {
    bytes::<KEY>(public).map(PublicKey::from)
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    fn hosts<const N: usize>() -> ([NodeKey; N], Recipients) {
        let keys = std::array::from_fn(|_| NodeKey::generate());
        let recipients = keys
            .iter()
            .enumerate()
            .map(|(number, key): (_, &NodeKey)| (number.to_string(), key.public()));
        let recipients = recipients.collect();
        (keys, recipients)
    }

    #[test]
    fn a_host_that_joins_is_given_it_and_one_that_leaves_is_not() {
        let ([a, b, c], all) = hosts();
        let mut first = all.clone();
        first.remove("2");
        let mut sealed = Sealed::new(b"pw", "secret/1", &first).expect("it is sealed");
        assert_eq!(sealed.open("secret/1", "2", &c), Err(SealError::NotForThis));
        assert!(sealed.is_for(&first) && !sealed.is_for(&all));
        sealed.hand_on("1", &b, &all).expect("it can read it");
        assert_eq!(**sealed.open("secret/1", "2", &c).expect("it can"), *b"pw");
        assert!(sealed.is_for(&all));
        let only = Recipients::from([("2".to_owned(), c.public())]);
        sealed.hand_on("0", &a, &only).expect("it can read it");
        assert_eq!(sealed.open("secret/1", "0", &a), Err(SealError::NotForThis));
        assert_eq!(sealed.hand_on("0", &a, &all), Err(SealError::NotForThis));
        assert_eq!(sealed.readers(&all).collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn a_host_that_lost_its_key_is_given_it_anew() {
        let ([a, _], mut all) = hosts();
        let mut sealed = Sealed::new(b"pw", "x", &all).expect("it is sealed");
        let new = NodeKey::generate();
        all.insert("1".to_owned(), new.public());
        assert_eq!(sealed.open("x", "1", &new), Err(SealError::NotForThis));
        assert_eq!(sealed.readers(&all).collect::<Vec<_>>(), ["0"]);
        sealed.hand_on("0", &a, &all).expect("it can read it");
        assert_eq!(**sealed.open("x", "1", &new).expect("it can"), *b"pw");
    }

    #[test]
    fn it_is_read_only_as_what_it_was_meant_for() {
        let ([a], all) = hosts();
        let sealed = Sealed::new(b"pw", "secret/1", &all).expect("it is sealed");
        assert_eq!(sealed.open("secret/2", "0", &a), Err(SealError::Damaged));
        let other = NodeKey::generate();
        assert_eq!(
            sealed.open("secret/1", "0", &other),
            Err(SealError::NotForThis)
        );
    }

    #[test]
    fn hosts_whose_key_is_none_are_left_out() {
        let ([a], mut all) = hosts();
        all.insert("1".to_owned(), "no key".to_owned());
        all.insert("2".to_owned(), String::new());
        let sealed = Sealed::new(b"pw", "x", &all).expect("it is sealed");
        assert!(sealed.is_for(&all), "nothing more can be done");
        assert_eq!(**sealed.open("x", "0", &a).expect("it can"), *b"pw");
    }

    #[test]
    fn a_hosts_key_is_kept_for_root_alone() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let made = NodeKey::open(root.path())?;
        assert_eq!(NodeKey::open(root.path())?.public(), made.public());
        let path = root.path().join(FILE);
        assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, r#"{"v":1,"private":"c2hvcnQ="}"#)?;
        let error = NodeKey::open(root.path()).err().context("it is no key")?;
        assert!(!format!("{error:#}").contains("c2hvcnQ"), "{error:#}");
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_sealed_is_read_and_not_told(data in prop::collection::vec(any::<u8>(), 16..2000)) {
            let ([a, b], all) = hosts();
            let sealed = Sealed::new(&data, "x", &all).expect("it is sealed");
            let written = serde_json::to_string(&sealed).expect("JSON");
            prop_assert!(!written.contains(&STANDARD.encode(&data)));
            let read: Sealed = serde_json::from_str(&written).expect("JSON");
            for (node, key) in [("0", &a), ("1", &b)] {
                prop_assert_eq!(&*read.open("x", node, key).expect("it can"), &data);
            }
        }

        #[test]
        fn garbage_is_refused(nonce in ".{0,40}", data in ".{0,40}", key in "[A-Za-z0-9+/]{0,120}={0,2}") {
            let ([a], all) = hosts();
            let keys = BTreeMap::from([("0".to_owned(), SealedKey { to: a.public(), key })]);
            let mut sealed = Sealed { nonce, data, keys };
            prop_assert!(sealed.open("x", "0", &a).is_err());
            prop_assert!(sealed.hand_on("0", &a, &all).is_err());
        }

        #[test]
        fn what_was_changed_is_refused(at in 0usize..1000, bit in 0u8..8) {
            let ([a], all) = hosts();
            let mut sealed = Sealed::new(b"a password", "x", &all).expect("it is sealed");
            let mut data = STANDARD.decode(&sealed.data).expect("base64");
            let at = at % data.len();
            data[at] ^= 1 << bit;
            sealed.data = STANDARD.encode(&data);
            prop_assert_eq!(sealed.open("x", "0", &a), Err(SealError::Damaged));
        }
    }
}
