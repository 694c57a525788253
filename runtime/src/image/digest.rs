//! Content digests: what names a blob, and what identifies a stack of layers.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::Sha256;

/// The sha256 of some content, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes already in memory.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// What a finished hasher found.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 64 hexadecimal digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        }
        hex
    }

    /// The twelve digits that Docker prints.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut raw = [0; 32];
        for (byte, pair) in raw.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(raw))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no sha256 digest.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not a digest this store takes: write sha256: and 64 lower-case hexadecimal digits"
)]
pub struct InvalidDigest(pub String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| InvalidDigest(text.to_owned()))
    }
}

/// A layer on top of all those below it: the chain ID of the OCI image specification.
///
/// Two images share a layer's files only where everything beneath is the same too, since a layer may
/// lean on it (a hard link to a lower file, a directory it does not describe).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LayerId(pub(crate) Digest);

impl LayerId {
    /// The identity of the layer whose uncompressed tar has the digest `diff`, stacked on `below`.
    #[must_use]
    pub fn stacked(below: Option<Self>, diff: Digest) -> Self {
        match below {
            None => Self(diff),
            Some(Self(below)) => Self(Digest::of(format!("{below} {diff}").as_bytes())),
        }
    }

    /// The identities of a whole stack, lowest first.
    pub(crate) fn chain(diffs: &[Digest]) -> Vec<Self> {
        let mut below = None;
        diffs
            .iter()
            .map(|&diff| *below.insert(Self::stacked(below, diff)))
            .collect()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"nuncio");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), digest.hex()[..12]);
    }

    #[test]
    fn other_algorithms_and_spellings_are_refused_by_name() {
        for text in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:ABCD",
            &"0".repeat(64),
            &format!("sha256:{}", "G".repeat(64)),
        ] {
            let refused = text.parse::<Digest>();
            assert_eq!(refused, Err(InvalidDigest(text.to_owned())));
        }
    }

    #[test]
    fn the_lowest_layer_is_its_own_chain() {
        let (low, high) = (Digest::of(b"low"), Digest::of(b"high"));
        let chain = LayerId::chain(&[low, high]);
        assert_eq!(chain[0], LayerId(low));
        assert_eq!(
            chain[1],
            LayerId(Digest::of(format!("{low} {high}").as_bytes()))
        );
    }
}
