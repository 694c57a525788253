//! Registries: how they are reached, and what their errors mean.

mod challenge;
mod endpoint;
mod error;
mod login;
mod search;
mod settings;
mod token;

use std::time::Duration;

pub(crate) use endpoint::Endpoint;
pub use endpoint::EndpointError;
pub(crate) use error::{Trouble, trouble};
pub use login::{LoginError, login};
pub use search::{FoundImage, SearchError, search};
pub use settings::{InsecureRegistry, InvalidInsecure, InvalidMirror, Mirror, RegistrySettings};
pub use token::TokenError;
pub(crate) use token::secret;

/// How long a registry may take to accept a connection, and to send the next bytes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// What registries are told of who asks.
const AGENT: &str = concat!("nuncio/", env!("CARGO_PKG_VERSION"));
/// More than any answer that is read as a whole has.
const ANSWER_LIMIT: usize = 4 << 20;

/// How a registry is told who asks.
#[derive(Clone, Default, Eq, PartialEq)]
pub enum RegistryAuth {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A name and a password, or an access token in its place.
    Basic {
        /// The account.
        username: String,
        /// Its secret.
        password: String,
    },
    /// What an earlier login gave in the password's place.
    Identity(String),
    /// A bearer token that the registry itself has given.
    Token(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// The body of an answer, at most [`ANSWER_LIMIT`] bytes of it.
async fn body(mut response: reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_LIMIT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_LIMIT {
            break;
        }
    }
    Ok(body)
}

/// Whether a `WWW-Authenticate` header asks for something that can be given.
#[cfg(any(test, fuzzing))]
pub(super) fn is_challenge(header: &str) -> bool {
    challenge::Challenge::parse(header).is_some()
}
