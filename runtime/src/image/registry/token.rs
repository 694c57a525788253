//! Identity tokens: what a login gave in a password's place is exchanged for a token of one repository.

use oci_client::secrets;
use reqwest::StatusCode;
use reqwest::header::WWW_AUTHENTICATE;
use serde::Deserialize;

use super::challenge::Challenge;
use super::endpoint::{Endpoint, EndpointError};
use super::{RegistryAuth, body};

/// What clients of registries call themselves, as Docker's does.
const CLIENT_ID: &str = "docker";

/// Why no token was given.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The registry cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody answers, or not as is due.
    #[error("ask {host} for a token")]
    Request {
        /// The registry.
        host: String,
        /// With the errno at its end.
        source: reqwest::Error,
    },
    /// It does not take such tokens.
    #[error("registry {host} takes no identity token: log in again with a name and a password")]
    NotTaken {
        /// The registry.
        host: String,
    },
    /// It did not like this one.
    #[error("registry {host} refuses the identity token: log in again")]
    Refused {
        /// The registry.
        host: String,
    },
}

/// What the protocol's client is to show for `actions` on a repository, such as `pull,push`.
pub(crate) async fn secret(
    endpoint: &Endpoint,
    auth: &RegistryAuth,
    repository: &str,
    actions: &str,
) -> Result<secrets::RegistryAuth, TokenError> {
    Ok(match auth {
        RegistryAuth::Anonymous => secrets::RegistryAuth::Anonymous,
        RegistryAuth::Basic { username, password } => {
            secrets::RegistryAuth::Basic(username.clone(), password.clone())
        }
        RegistryAuth::Token(token) => secrets::RegistryAuth::Bearer(token.clone()),
        RegistryAuth::Identity(token) => {
            let scope = format!("repository:{repository}:{actions}");
            secrets::RegistryAuth::Bearer(exchange(endpoint, token, &scope).await?)
        }
    })
}

/// Gets a token for `scope` (RFC 6749 §6). An empty scope tells only whether the identity token holds.
pub(super) async fn exchange(
    endpoint: &Endpoint,
    identity: &str,
    scope: &str,
) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Given {
        access_token: String,
    }
    let host = || endpoint.host.clone();
    let failed = |source| TokenError::Request {
        host: host(),
        source,
    };
    let client = endpoint.http()?;
    let asked = client
        .get(endpoint.url("/v2/"))
        .send()
        .await
        .map_err(failed)?;
    let header = asked.headers().get(WWW_AUTHENTICATE);
    let challenge = header.and_then(|header| Challenge::parse(header.to_str().ok()?));
    let Some(Challenge::Bearer { realm, service }) = challenge else {
        return Err(TokenError::NotTaken { host: host() });
    };
    let service = service.unwrap_or_default();
    let form = form(&[
        ("grant_type", "refresh_token"),
        ("service", &service),
        ("client_id", CLIENT_ID),
        ("scope", scope),
        ("refresh_token", identity),
    ]);
    let answer = client
        .post(&realm)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(TokenError::Refused { host: host() });
    }
    let given = body(answer).await.map_err(failed)?;
    let given: Given =
        serde_json::from_slice(&given).map_err(|_| TokenError::Refused { host: host() })?;
    Ok(given.access_token)
}

/// A form's body.
fn form(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_its_fields_apart() {
        let text = form(&[("a", "x&y=z"), ("scope", "repository:a/b:pull,push")]);
        assert_eq!(text, "a=x%26y%3Dz&scope=repository%3Aa%2Fb%3Apull%2Cpush");
    }
}
