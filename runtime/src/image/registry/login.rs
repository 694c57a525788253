//! `login`: whether a registry takes an account.

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Response, StatusCode};

use super::RegistryAuth;
use super::challenge::Challenge;
use super::endpoint::{Endpoint, EndpointError};
use super::settings::RegistrySettings;
use super::token::{self, TokenError};

/// Why an account was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The registry cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody answers there.
    #[error("get {url:?}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// With the errno at its end.
        source: reqwest::Error,
    },
    /// The account does not exist, or the password is another.
    #[error("get {url:?}: unauthorized: incorrect username or password")]
    Refused {
        /// What was asked for.
        url: String,
    },
    /// The registry wants something that is not known here.
    #[error("get {url:?}: the registry wants neither a password nor a token, but {wanted:?}")]
    Challenge {
        /// What was asked for.
        url: String,
        /// What it wants.
        wanted: String,
    },
    /// The server answered otherwise than registries do.
    #[error("get {url:?}: {status}: is that a registry?")]
    Status {
        /// What was asked for.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The identity token was not taken.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Asks the registry `host` whether it takes this account.
///
/// # Errors
///
/// See [`LoginError`].
pub async fn login(
    host: &str,
    auth: &RegistryAuth,
    settings: &RegistrySettings,
) -> Result<(), LoginError> {
    let endpoint = Endpoint::find(host, settings).await?;
    let client = endpoint.http()?;
    let url = endpoint.url("/v2/");
    let unreachable = |source| LoginError::Unreachable {
        url: url.clone(),
        source,
    };
    let asked = client.get(&url).send().await.map_err(unreachable)?;
    if asked.status() == StatusCode::OK {
        return Ok(());
    }
    if asked.status() != StatusCode::UNAUTHORIZED {
        return Err(LoginError::Status {
            status: asked.status(),
            url,
        });
    }
    let wanted = asked.headers().get(WWW_AUTHENTICATE);
    let wanted = wanted
        .and_then(|header| header.to_str().ok())
        .unwrap_or_default();
    let answer = match (Challenge::parse(wanted), auth) {
        (Some(Challenge::Bearer { .. }), RegistryAuth::Identity(identity)) => {
            token::exchange(&endpoint, identity, "").await?;
            return Ok(());
        }
        (Some(Challenge::Basic), RegistryAuth::Basic { username, password }) => {
            let request = client.get(&url).basic_auth(username, Some(password));
            request.send().await.map_err(unreachable)?
        }
        (
            Some(Challenge::Bearer { realm, service }),
            RegistryAuth::Basic { username, password },
        ) => {
            let service = service.unwrap_or_default();
            let query = [
                ("account", username.as_str()),
                ("client_id", "docker"),
                ("offline_token", "true"),
                ("service", &service),
            ];
            let request = client.get(&realm).query(&query);
            let request = request.basic_auth(username, Some(password));
            request.send().await.map_err(unreachable)?
        }
        (Some(_), _) => return Err(LoginError::Refused { url }),
        (None, _) => {
            let wanted = wanted.to_owned();
            return Err(LoginError::Challenge { url, wanted });
        }
    };
    taken(&answer, url)
}

fn taken(answer: &Response, url: String) -> Result<(), LoginError> {
    match answer.status() {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(LoginError::Refused { url }),
        status => Err(LoginError::Status { url, status }),
    }
}
