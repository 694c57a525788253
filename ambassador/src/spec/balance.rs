//! How endpoints are chosen and checked, as TOML and JSON have it.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseError;
use super::text::Span;
use super::wire::Text;
use crate::{Check, CheckKind, Eject, OnRemove, Policy};

/// Bytes that a check sends or expects, at most.
const MOST_BYTES: usize = 4 << 10;

impl FromStr for Policy {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = Self::ALL.into_iter().find(|policy| policy.name() == text);
        named.ok_or_else(|| ParseError::Policy(text.to_owned()))
    }
}

impl FromStr for OnRemove {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match (text, text.strip_prefix("drain:")) {
            ("keep", _) => Ok(Self::Keep),
            ("reset", _) => Ok(Self::Reset),
            (_, Some(most)) => Ok(Self::Drain(most.parse::<Span>()?.0)),
            _ => Err(ParseError::OnRemove(text.to_owned())),
        }
    }
}

impl fmt::Display for OnRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Drain(most) => write!(f, "drain:{}", Span(*most)),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// `eject = { after = 1, first = "1s", longest = "60s", panic = 50 }`, each with its default.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireEject {
    after: Option<NonZeroU32>,
    first: Option<Text<Span>>,
    longest: Option<Text<Span>>,
    panic: Option<Text<Percent>>,
}

impl From<WireEject> for Eject {
    fn from(wire: WireEject) -> Self {
        let default = Self::default();
        Self {
            after: wire.after.unwrap_or(default.after),
            first: wire.first.map_or(default.first, |first| first.0.0),
            longest: wire.longest.map_or(default.longest, |longest| longest.0.0),
            panic: wire.panic.map_or(default.panic, |panic| panic.0.0),
        }
    }
}

impl From<&Eject> for WireEject {
    fn from(eject: &Eject) -> Self {
        Self {
            after: Some(eject.after),
            first: Some(Text(Span(eject.first))),
            longest: Some(Text(Span(eject.longest))),
            panic: Some(Text(Percent(eject.panic))),
        }
    }
}

/// `50%`.
struct Percent(u8);

impl FromStr for Percent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = text.strip_suffix('%').and_then(digits);
        let share = number.filter(|number| *number <= 100);
        share
            .and_then(|share| u8::try_from(share).ok())
            .map(Self)
            .ok_or_else(|| ParseError::Percent(text.to_owned()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

fn digits(text: &str) -> Option<u16> {
    let only = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| only)
}

/// `200-399`, or one status alone.
struct Status(RangeInclusive<u16>);

impl FromStr for Status {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (digits(low), digits(high)) {
            (Some(low @ 100..=599), Some(high @ 100..=599)) if low <= high => Ok(Self(low..=high)),
            _ => Err(ParseError::Status(text.to_owned())),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.clone().into_inner() {
            (low, high) if low == high => write!(f, "{low}"),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

/// Bytes with the escapes of Rust's byte strings: `\r`, `\n`, `\t`, `\0`, `\\`, `\"`, `\'`, `\x7f`.
struct Bytes(Vec<u8>);

impl FromStr for Bytes {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Bytes(text.to_owned());
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes().iter());
        while let Some(&byte) = rest.next() {
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            bytes.push(match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(quoted @ (b'\\' | b'"' | b'\'')) => *quoted,
                Some(b'x') => {
                    let mut digit = || char::from(*rest.next()?).to_digit(16);
                    let value = digit().and_then(|high| Some(high * 16 + digit()?));
                    let byte = value.and_then(|value| u8::try_from(value).ok());
                    byte.ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            });
        }
        if bytes.len() > MOST_BYTES {
            return Err(ParseError::TooManyBytes(bytes.len(), MOST_BYTES));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A part of an HTTP request, which it must not break out of.
struct Visible(String);

impl FromStr for Visible {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = (1..=MOST_BYTES).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::Visible(text.to_owned()))
    }
}

impl fmt::Display for Visible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Converted while it is read, so that an error still has its place in the text.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "WireCheck", into = "WireCheck")]
pub(super) struct ParsedCheck(pub(super) Check);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireCheck {
    kind: WireKind,
    port: Option<NonZeroU16>,
    interval: Option<Text<Span>>,
    timeout: Option<Text<Span>>,
    rise: Option<NonZeroU32>,
    fall: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Text<Visible>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Text<Visible>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text<Status>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<Text<Bytes>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Text<Bytes>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    Tcp,
    Http,
    SendExpect,
}

impl TryFrom<WireCheck> for ParsedCheck {
    type Error = ParseError;

    fn try_from(wire: WireCheck) -> Result<Self, ParseError> {
        wire.refuse_foreign_keys()?;
        let kind = match wire.kind {
            WireKind::Tcp => CheckKind::Tcp,
            WireKind::Http => {
                let path = wire.path.map_or_else(|| "/".to_owned(), |path| path.0.0);
                if !path.starts_with('/') {
                    return Err(ParseError::Path(path));
                }
                CheckKind::Http {
                    path,
                    host: wire.host.map(|host| host.0.0),
                    status: wire.status.map_or(200..=399, |status| status.0.0),
                }
            }
            WireKind::SendExpect => CheckKind::SendExpect {
                send: wire.send.map(|send| send.0.0).unwrap_or_default(),
                expect: (wire.expect.map(|expect| expect.0.0))
                    .filter(|expect| !expect.is_empty())
                    .ok_or(ParseError::NoExpect)?,
            },
        };
        let default = Check::new(kind);
        Ok(Self(Check {
            port: wire.port,
            interval: wire.interval.map_or(default.interval, |span| span.0.0),
            timeout: wire.timeout.map_or(default.timeout, |span| span.0.0),
            rise: wire.rise.unwrap_or(default.rise),
            fall: wire.fall.unwrap_or(default.fall),
            ..default
        }))
    }
}

impl WireCheck {
    fn refuse_foreign_keys(&self) -> Result<(), ParseError> {
        let keys = [
            ("path", WireKind::Http, self.path.is_some()),
            ("host", WireKind::Http, self.host.is_some()),
            ("status", WireKind::Http, self.status.is_some()),
            ("send", WireKind::SendExpect, self.send.is_some()),
            ("expect", WireKind::SendExpect, self.expect.is_some()),
        ];
        for (key, of, given) in keys {
            if given && of != self.kind {
                let kind = if of == WireKind::Http {
                    "http"
                } else {
                    "send_expect"
                };
                return Err(ParseError::CheckKey { key, kind });
            }
        }
        Ok(())
    }
}

impl From<ParsedCheck> for WireCheck {
    fn from(ParsedCheck(check): ParsedCheck) -> Self {
        let mut wire = Self {
            kind: WireKind::Tcp,
            port: check.port,
            interval: Some(Text(Span(check.interval))),
            timeout: Some(Text(Span(check.timeout))),
            rise: Some(check.rise),
            fall: Some(check.fall),
            path: None,
            host: None,
            status: None,
            send: None,
            expect: None,
        };
        match check.kind {
            CheckKind::Tcp => {}
            CheckKind::Http { path, host, status } => {
                wire.kind = WireKind::Http;
                wire.path = Some(Text(Visible(path)));
                wire.host = host.map(|host| Text(Visible(host)));
                wire.status = Some(Text(Status(status)));
            }
            CheckKind::SendExpect { send, expect } => {
                wire.kind = WireKind::SendExpect;
                wire.send = Some(Text(Bytes(send)));
                wire.expect = Some(Text(Bytes(expect)));
            }
        }
        wire
    }
}
