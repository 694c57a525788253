//! `--since` and `--until`.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};

/// A point in time: RFC 3339, seconds since 1970, or how long ago (`1h30m`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Moment(Timestamp);

impl Moment {
    /// Seconds since 1970 with nine decimals, as the API wants it.
    pub(crate) fn api(self) -> String {
        let nanoseconds = self.0.as_nanosecond();
        format!(
            "{}.{:09}",
            nanoseconds.div_euclid(1_000_000_000),
            nanoseconds.rem_euclid(1_000_000_000)
        )
    }

    /// What a flag was given; nothing is no bound.
    ///
    /// # Errors
    ///
    /// In Docker's words, if it is no time: it is found out when the command runs, not among its flags.
    pub(crate) fn asked(flag: &str, text: Option<&str>) -> anyhow::Result<Option<Self>> {
        let parse = |text: &str| {
            let moment = text.parse::<Self>();
            moment.with_context(|| format!("invalid value for {flag:?}"))
        };
        text.filter(|text| !text.is_empty()).map(parse).transpose()
    }

    /// So long ago.
    pub(crate) fn before_now(ago: Duration) -> Self {
        Self(Timestamp::now().saturating_sub(ago).unwrap_or_default())
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        self.0
    }

    fn parse(text: &str, now: Timestamp) -> Option<Self> {
        let local = |time: civil::DateTime| TimeZone::system().to_timestamp(time).ok();
        let ago = |duration| now.checked_sub(duration).ok();
        parse_seconds(text)
            .or_else(|| parse_duration(text).and_then(ago))
            .or_else(|| text.parse().ok())
            .or_else(|| text.parse().ok().and_then(local))
            .or_else(|| {
                text.parse::<civil::Date>()
                    .ok()
                    .and_then(|date| local(date.at(0, 0, 0, 0)))
            })
            .map(Self)
    }
}

/// Not a point in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid time {0:?}: expected a time as 2026-01-31T12:00:00Z, seconds since 1970, or how long ago as 1h30m"
)]
pub(crate) struct InvalidMoment(String);

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        Self::parse(text, Timestamp::now()).ok_or_else(|| InvalidMoment(text.to_owned()))
    }
}

/// A span of time, as `1m30s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span(i64);

impl Span {
    pub(crate) fn nanoseconds(self) -> i64 {
        self.0
    }
}

/// Not a span of time.
#[derive(Debug, thiserror::Error)]
#[error("invalid duration {0:?}: expected numbers with units, as 1m30s or 500ms")]
pub(crate) struct InvalidSpan(String);

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let duration = match text {
            "0" => Some(SignedDuration::ZERO), // the one that needs no unit
            text => parse_duration(text),
        };
        duration
            .and_then(|duration| i64::try_from(duration.as_nanos()).ok())
            .map(Self)
            .ok_or_else(|| InvalidSpan(text.to_owned()))
    }
}

/// `SECONDS[.FRACTION]`.
fn parse_seconds(text: &str) -> Option<Timestamp> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{part:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanoseconds).ok()
}

/// A duration as Go writes them: numbers with the units h, m, s, ms, us and ns.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit_at].parse().ok()?;
        rest = &rest[unit_at..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn api(text: &str) -> Option<String> {
        let now = Timestamp::from_second(1_000_000).expect("in range");
        Moment::parse(text, now).map(Moment::api)
    }

    #[test]
    fn moments() {
        assert_eq!(api("1700000000").as_deref(), Some("1700000000.000000000"));
        assert_eq!(api("1700000000.5").as_deref(), Some("1700000000.500000000"));
        assert_eq!(api("1h30m").as_deref(), Some("994600.000000000"));
        assert_eq!(api("250ms").as_deref(), Some("999999.750000000"));
        assert_eq!(
            api("1970-01-02T00:00:00Z").as_deref(),
            Some("86400.000000000")
        );
        assert_eq!(
            api("1970-01-02T01:00:00+01:00").as_deref(),
            Some("86400.000000000")
        );
        assert!(api("2026-01-31").is_some());
        assert!(api("2026-01-31T12:00:00").is_some());
        for wrong in ["", "yesterday", "1x", "h", "-1", "1.2.3"] {
            assert_eq!(api(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn spans() {
        let nanoseconds = |text: &str| text.parse().ok().map(Span::nanoseconds);
        assert_eq!(nanoseconds("1m30s"), Some(90_000_000_000));
        assert_eq!(nanoseconds("500ms"), Some(500_000_000));
        assert_eq!(nanoseconds("0"), Some(0));
        for wrong in ["", "5", "-1s", "soon", "99999999h"] {
            assert_eq!(nanoseconds(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,24}") {
            let _ = api(&text);
        }
    }
}
