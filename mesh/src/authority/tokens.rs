//! The tokens by which hosts become members.

use std::time::Duration;

use super::{Authority, TokenRefusal, now};
use crate::ledger::{Ledger, TokenEntry};
use crate::token::JoinToken;

impl Authority {
    /// Makes a token that lets in `uses` hosts within `ttl`; `None`: any number, and for ever.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal`] if there are too many, or the disk takes no more.
    pub fn create_token(
        &self,
        ttl: Option<Duration>,
        uses: Option<u32>,
    ) -> Result<JoinToken, TokenRefusal> {
        self.new_token(ttl, uses, |_| {})
    }

    /// Makes a token and has all others let in nobody any more.
    ///
    /// # Errors
    ///
    /// As [`Authority::create_token`].
    pub fn rotate_tokens(
        &self,
        ttl: Option<Duration>,
        uses: Option<u32>,
    ) -> Result<JoinToken, TokenRefusal> {
        self.new_token(ttl, uses, Ledger::remove_tokens)
    }

    fn new_token(
        &self,
        ttl: Option<Duration>,
        uses: Option<u32>,
        before: impl Fn(&mut Ledger),
    ) -> Result<JoinToken, TokenRefusal> {
        let expires = ttl.map(|ttl| now().saturating_add(ttl.as_secs()));
        let (id, secret) = self.change(|ledger| {
            before(ledger);
            let added = ledger.add_token(now(), expires, uses);
            added.map_err(TokenRefusal::from)
        })?;
        Ok(JoinToken {
            mesh: self.mesh(),
            authority: self.fingerprint(),
            id,
            secret,
        })
    }

    /// The tokens, without their secrets, which nobody knows but who was given them.
    pub fn tokens(&self) -> Vec<TokenEntry> {
        self.lock().ledger.tokens()
    }

    /// Has a token let in nobody any more.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::NotFound`] if there is none of this id.
    pub fn remove_token(&self, id: &str) -> Result<(), TokenRefusal> {
        self.change(|ledger| match ledger.remove_token(id) {
            true => Ok(()),
            false => Err(TokenRefusal::NotFound(id.to_owned())),
        })
    }
}
