//! The version prefix of paths, and the headers that every answer carries.

use std::fmt;
use std::str::FromStr;

use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// A version of Docker's API.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct ApiVersion {
    major: u16,
    minor: u16,
}

/// What is announced, and meant when a path has no version.
pub(crate) const CURRENT: ApiVersion = ApiVersion {
    major: 1,
    minor: 49,
};
/// The oldest that is answered.
pub(crate) const MINIMUM: ApiVersion = ApiVersion {
    major: 1,
    minor: 24,
};
/// From here on streams of frames have a media type of their own.
pub(crate) const MULTIPLEXED_TYPE: ApiVersion = ApiVersion {
    major: 1,
    minor: 42,
};

/// From here on an image without names has an empty list of them.
pub(crate) const EMPTY_NAMES: ApiVersion = ApiVersion {
    major: 1,
    minor: 43,
};
/// From here on there is one size of an image only.
pub(crate) const ONE_SIZE: ApiVersion = ApiVersion {
    major: 1,
    minor: 44,
};
/// From here on the aliases that are shown of a container are those it was given.
pub(crate) const GIVEN_ALIASES: ApiVersion = ApiVersion {
    major: 1,
    minor: 45,
};
/// From here on a prune of volumes leaves those that have a name, unless it is asked for all.
pub(crate) const ANONYMOUS_PRUNE: ApiVersion = ApiVersion {
    major: 1,
    minor: 42,
};

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Not `MAJOR.MINOR`.
#[derive(Debug)]
pub(crate) struct InvalidVersion;

impl FromStr for ApiVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let (major, minor) = text.split_once('.').ok_or(InvalidVersion)?;
        let number = |digits: &str| match digits.bytes().all(|digit| digit.is_ascii_digit()) {
            true => digits.parse().map_err(|_| InvalidVersion),
            false => Err(InvalidVersion),
        };
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

/// Takes the version off the path, refuses those that are not spoken here, and adds the headers.
pub(crate) async fn negotiate(mut request: Request, next: Next) -> Response {
    let mut response = match strip(request.uri()) {
        Ok(None) => {
            request.extensions_mut().insert(CURRENT);
            next.run(request).await
        }
        Ok(Some((version, uri))) => {
            request.extensions_mut().insert(version);
            *request.uri_mut() = uri;
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let announced =
        HeaderValue::from_str(&CURRENT.to_string()).expect("digits and a dot are a valid header");
    for (name, value) in [
        (HeaderName::from_static("api-version"), announced),
        (
            HeaderName::from_static("ostype"),
            HeaderValue::from_static("linux"),
        ),
        (
            HeaderName::from_static("docker-experimental"),
            HeaderValue::from_static("false"),
        ),
        (
            HeaderName::from_static("server"),
            HeaderValue::from_static(concat!("nuncio/", env!("CARGO_PKG_VERSION"), " (linux)")),
        ),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The version in front of the path and the address without it; `None`: there is no version.
fn strip(uri: &Uri) -> Result<Option<(ApiVersion, Uri)>, ApiError> {
    let Some((version, rest)) = uri
        .path()
        .strip_prefix("/v")
        .and_then(|path| path.split_once('/'))
    else {
        return Ok(None);
    };
    let Ok(version) = version.parse::<ApiVersion>() else {
        return Ok(None); // such as /volumes/x
    };
    if version > CURRENT {
        let message = format!(
            "client version {version} is too new. Maximum supported API version is {CURRENT}"
        );
        return Err(ApiError::bad_request(message));
    }
    if version < MINIMUM {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {MINIMUM}, \
             please upgrade your client to a newer version"
        )));
    }
    let path = match uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    let path: PathAndQuery = path
        .parse()
        .map_err(|error| ApiError::bad_request(format!("invalid path {path:?}: {error}")))?;
    Ok(Some((version, Uri::from(path))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(path: &str) -> Result<Option<(String, String)>, String> {
        let uri: Uri = path.parse().expect("a valid URI");
        strip(&uri)
            .map(|found| found.map(|(version, uri)| (version.to_string(), uri.to_string())))
            .map_err(|error| error.message)
    }

    #[test]
    fn a_version_is_taken_off_and_the_query_stays() {
        let expected = (
            "1.49".to_owned(),
            "/images/docker.io%2Fx/json?a=b%20c".to_owned(),
        );
        assert_eq!(
            stripped("/v1.49/images/docker.io%2Fx/json?a=b%20c"),
            Ok(Some(expected))
        );
        assert_eq!(stripped("/volumes/x"), Ok(None));
        assert_eq!(stripped("/_ping"), Ok(None));
        assert_eq!(stripped("/v1.x/_ping"), Ok(None));
        assert_eq!(stripped("/v1.49"), Ok(None));
    }

    #[test]
    fn versions_that_are_not_spoken_get_dockers_words() {
        assert_eq!(
            stripped("/v1.20/info"),
            Err(
                "client version 1.20 is too old. Minimum supported API version is 1.24, \
                 please upgrade your client to a newer version"
                    .to_owned()
            )
        );
        assert_eq!(
            stripped("/v1.99/info"),
            Err("client version 1.99 is too new. Maximum supported API version is 1.49".to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_path_is_stripped_or_left(path in "/[!-~]*") {
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = strip(&uri);
            }
        }
    }
}
