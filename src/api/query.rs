//! The query string, read as Docker reads it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use super::error::ApiError;
use crate::daemon::refusal::Refusal;

/// The parameters of a request; what does not parse is answered with 400.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}

impl<T: DeserializeOwned> Params<T> {
    /// Those of a request to `uri`.
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        match Query::try_from_uri(uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

/// A boolean: absent, empty, `0`, `no`, `false` and `none` are false in any case of letters, the rest is true.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text = text.trim().to_ascii_lowercase();
        Ok(Self(!matches!(
            text.as_str(),
            "" | "0" | "no" | "false" | "none"
        )))
    }
}

/// A parameter that may be absent or, which means the same, empty. For `#[serde(default, deserialize_with)]`.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| D::Error::custom(format_args!("{text:?}: {error}")))
}

/// Seconds since 1970, perhaps with a fraction, or RFC 3339; nothing and 0 are no bound.
pub(crate) fn moment(name: &str, text: &str) -> Result<Option<SystemTime>, Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid value for {name:?}: {text:?}: expected seconds since 1970, or an RFC 3339 time"
        ))
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return SystemTime::try_from(time).map(Some).map_err(|_| wrong());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = seconds
        .bytes()
        .chain(fraction.bytes())
        .all(|byte| byte.is_ascii_digit());
    if !is_number || fraction.len() > 9 || (seconds.is_empty() && !text.is_empty()) {
        return Err(wrong());
    }
    let seconds: u64 = if text.is_empty() {
        0
    } else {
        seconds.parse().map_err(|_| wrong())?
    };
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, nanos))
        .map(Some)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Stop {
        #[serde(default, deserialize_with = "optional")]
        t: Option<i64>,
        #[serde(default)]
        force: Flag,
    }

    fn parse(query: &str) -> Result<Stop, String> {
        let uri: Uri = format!("/x?{query}").parse().expect("a valid URI");
        Query::try_from_uri(&uri)
            .map(|Query(stop)| stop)
            .map_err(|error| error.body_text())
    }

    #[test]
    fn booleans_come_in_many_spellings() {
        for yes in ["1", "true", "True", "yes"] {
            assert!(parse(&format!("force={yes}")).expect(yes).force.0, "{yes}");
        }
        for no in ["", "0", "false", "False", "no", "none"] {
            assert!(!parse(&format!("force={no}")).expect(no).force.0, "{no}");
        }
        assert!(!parse("").expect("no parameter at all").force.0);
    }

    #[test]
    fn an_empty_number_is_an_absent_one() {
        assert_eq!(parse("t=").expect("empty").t, None);
        assert_eq!(parse("t=-1").expect("a number").t, Some(-1));
        let error = parse("t=soon").expect_err("not a number");
        assert!(error.contains("soon"), "{error}");
    }

    #[test]
    fn moments_come_as_seconds_or_as_dates() {
        let after = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        for (text, expected) in [
            ("", None),
            ("0", None),
            ("0.000000000", None),
            ("5", Some(after(5, 0))),
            ("5.25", Some(after(5, 250_000_000))),
            ("1970-01-01T00:00:07Z", Some(after(7, 0))),
        ] {
            assert_eq!(moment("since", text).expect(text), expected, "{text}");
        }
        for text in [
            "yesterday",
            "-1",
            "1.",
            "1.0000000001",
            ".5",
            "99999999999999999999",
        ] {
            let found = moment("since", text);
            assert!(found.is_err() || text == "1.", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_moment_is_parsed_or_refused(text in "[0-9.TZ:-]{0,30}") {
            let _ = moment("since", &text);
        }
    }
}
