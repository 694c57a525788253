//! `search`: Docker Hub's, which few other registries have.

use reqwest::StatusCode;
use serde::Deserialize;

use super::endpoint::{Endpoint, EndpointError};
use super::settings::RegistrySettings;
use super::{RegistryAuth, body};

/// A repository that a registry found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default)]
#[derive(Default)]
pub struct FoundImage {
    /// Its name.
    pub name: String,
    /// What it is about, in a line.
    pub description: String,
    /// How many people like it.
    pub star_count: i64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Whether it was built there.
    pub is_automated: bool,
}

/// Why nothing was looked for.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The registry cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody answers there.
    #[error("search at registry {host}")]
    Unreachable {
        /// The registry.
        host: String,
        /// With the errno at its end.
        source: reqwest::Error,
    },
    /// It cannot search.
    #[error(
        "registry {host} cannot be searched: it answers {status} to /v1/search, which is Docker Hub's"
    )]
    NoSearch {
        /// The registry.
        host: String,
        /// What it answered.
        status: StatusCode,
    },
    /// It answered with something else.
    #[error("registry {host} answers a search with what is no list of images")]
    Malformed {
        /// The registry.
        host: String,
        /// Where and how.
        source: serde_json::Error,
    },
}

/// Looks for repositories with `term` in their name or description, at most `limit` of them.
///
/// What stands before the first slash of `term` is a registry if it looks like one; else Docker Hub is asked.
///
/// # Errors
///
/// See [`SearchError`].
pub async fn search(
    term: &str,
    limit: u32,
    auth: &RegistryAuth,
    settings: &RegistrySettings,
) -> Result<Vec<FoundImage>, SearchError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        results: Option<Vec<FoundImage>>,
    }
    let (host, term) = split(term);
    let endpoint = Endpoint::find(host, settings).await?;
    let unreachable = |source| SearchError::Unreachable {
        host: host.to_owned(),
        source,
    };
    let limit = limit.to_string();
    let mut request = endpoint
        .http()?
        .get(endpoint.url("/v1/search"))
        .query(&[("q", term), ("n", &limit)]);
    if let RegistryAuth::Basic { username, password } = auth {
        request = request.basic_auth(username, Some(password));
    }
    let answer = request.send().await.map_err(unreachable)?;
    if answer.status() != StatusCode::OK {
        return Err(SearchError::NoSearch {
            host: host.to_owned(),
            status: answer.status(),
        });
    }
    let content = body(answer).await.map_err(unreachable)?;
    let answer: Answer =
        serde_json::from_slice(&content).map_err(|source| SearchError::Malformed {
            host: host.to_owned(),
            source,
        })?;
    Ok(answer.results.unwrap_or_default())
}

/// The registry and what to look for there.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "index.docker.io" => ("docker.io", rest),
            host => (host, rest),
        },
        _ => ("docker.io", term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_registry() {
        assert_eq!(split("redis"), ("docker.io", "redis"));
        assert_eq!(split("team/redis"), ("docker.io", "team/redis"));
        assert_eq!(split("docker.io/redis"), ("docker.io", "redis"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000", "a/b"));
    }
}
