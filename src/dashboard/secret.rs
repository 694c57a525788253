//! What those show who may open the page.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A token, which is typed or clicked, and what a browser gets for it and sends from then on.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Secret {
    token: String,
    /// Other than the token, so that who sees a cookie can open no page elsewhere.
    cookie: String,
    /// Instead of the token, and no longer once it was shown.
    #[serde(skip)]
    once: Mutex<Option<String>>,
}

impl Secret {
    /// A new one, by chance.
    pub(crate) fn new() -> Self {
        Self {
            token: by_chance(),
            cookie: by_chance(),
            once: Mutex::default(),
        }
    }

    /// What opens the page.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// What a browser keeps.
    pub(super) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// A token that opens the page once: for the arguments of a browser, which others on this machine can see.
    pub(crate) fn token_for_once(&self) -> String {
        let token = by_chance();
        *self.once.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        token
    }

    pub(super) fn is_token(&self, shown: &str) -> bool {
        if same(shown, &self.token) {
            return true;
        }
        let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = once.as_deref().is_some_and(|once| same(shown, once));
        if is_it {
            *once = None;
        }
        is_it
    }

    pub(super) fn is_cookie(&self, shown: &str) -> bool {
        same(shown, &self.cookie)
    }
}

/// Takes as long whatever is shown, but for its length.
fn same(shown: &str, secret: &str) -> bool {
    shown.as_bytes().ct_eq(secret.as_bytes()).into()
}

/// 64 hexadecimal digits.
fn by_chance() -> String {
    [Uuid::new_v4(), Uuid::new_v4()]
        .map(|half| half.simple().to_string())
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opens_only_what_it_is_for() {
        let (secret, other) = (Secret::new(), Secret::new());
        assert!(secret.is_token(secret.token()));
        assert!(secret.is_cookie(secret.cookie()));
        for wrong in ["", secret.cookie(), other.token(), &secret.token()[1..]] {
            assert!(!secret.is_token(wrong), "{wrong:?}");
        }
        assert!(!secret.is_cookie(secret.token()));
        let once = secret.token_for_once();
        assert!(secret.is_token(&once));
        assert!(!secret.is_token(&once), "it was for once");
        assert!(secret.is_token(secret.token()));
    }
}
