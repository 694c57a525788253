//! Join tokens: one line that lets a host in.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::hex;
use crate::names::MeshId;
use crate::pin::Fingerprint;

/// How a token begins, with the version of what follows.
const PREFIX: &str = "NUNCIO-1-";
/// Of `NUNCIO-1-<mesh>-<authority>-<id>-<secret>`.
const LONGEST: usize = 160;

/// What a host needs to join: which mesh, by whom it is to be admitted, and a secret to be admitted by.
///
/// Its text is [`JoinToken::reveal`]ed on purpose only.
#[derive(Clone, Eq, PartialEq)]
pub struct JoinToken {
    pub(crate) mesh: MeshId,
    /// Of the authority's public key. Nothing is told to anybody else.
    pub(crate) authority: Fingerprint,
    pub(crate) id: TokenId,
    pub(crate) secret: Secret,
}

/// What a token is called by, which is no secret.
pub(crate) type TokenId = [u8; 6];

/// What only holders of the token know.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Secret(pub(crate) [u8; 16]);

/// Not a join token. The text is not repeated, since it may be nearly one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAToken {
    /// It is something else.
    #[error(
        "this is no join token: expected NUNCIO-1-MESH-AUTHORITY-ID-SECRET, as `nuncio token create` prints it"
    )]
    Form,
    /// It is of a later version.
    #[error("this join token is of a later version: update nuncio on this host")]
    Version,
}

impl JoinToken {
    /// The token as one line, to be given to whoever is to join.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!(
            "{PREFIX}{}-{}-{}-{}",
            self.mesh,
            self.authority,
            hex::encode(&self.id),
            hex::encode(&self.secret.0)
        )
    }

    /// What it is called by, which is no secret.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(&self.id)
    }

    /// The mesh it is for.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }
}

impl FromStr for JoinToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix("NUNCIO-").and_then(|rest| {
                let (version, _) = rest.split_once('-')?;
                version.parse::<u32>().ok()
            });
            return Err(match version {
                Some(2..) => NotAToken::Version,
                _ => NotAToken::Form,
            });
        };
        let parse = || {
            let mut parts = rest.split('-');
            let mut part = || parts.next();
            let token = Self {
                mesh: part()?.parse().ok()?,
                authority: part()?.parse().ok()?,
                id: hex::decode_array(part()?)?,
                secret: Secret(hex::decode_array(part()?)?),
            };
            parts.next().is_none().then_some(token)
        };
        let token = (text.len() <= LONGEST).then(parse).flatten();
        token.ok_or(NotAToken::Form)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("mesh", &self.mesh)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// What the authority keeps in its place. It is too long to be guessed, so one round is enough.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            mesh: MeshId::generate(),
            authority: Fingerprint([7; 32]),
            id: [1; 6],
            secret: Secret([9; 16]),
        }
    }

    #[test]
    fn a_token_goes_round_and_does_not_show_its_secret() {
        let token = token();
        let text = token.reveal();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        let shown = format!("{token:?}");
        assert!(!shown.contains(&hex::encode(&token.secret.0)), "{shown}");
        assert!(shown.contains("010101010101"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_told_what_would_be() {
        let text = token().reveal();
        for wrong in [
            "",
            "SWMTKN-1-abc-def",
            "NUNCIO-1-",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &format!("{text}-00"),
            &text.to_uppercase(),
        ] {
            assert_eq!(wrong.parse::<JoinToken>(), Err(NotAToken::Form), "{wrong}");
        }
        let later = text.replacen("NUNCIO-1-", "NUNCIO-2-", 1);
        assert_eq!(later.parse::<JoinToken>(), Err(NotAToken::Version));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_taken_goes_round(
            text in "(NUNCIO-1-)?[0-9a-f]{14,16}(-[0-9a-f]{64}-[0-9a-f]{12}-[0-9a-f]{32})?|\\PC{0,60}",
        ) {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.reveal(), text);
            }
        }
    }
}
