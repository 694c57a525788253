//! Version 1: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::parse::{HeaderError, shown};
use super::{Ends, Header};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Its end of line included, as the specification says.
pub(super) const LONGEST: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST {
            Ok(None)
        } else {
            Err(HeaderError::LineTooLong)
        };
    };
    let malformed = || HeaderError::Line(shown(bytes, end));
    let line = bytes[..end].strip_suffix(b"\r").ok_or_else(malformed)?;
    let rest = line.strip_prefix(SIGNATURE).ok_or_else(malformed)?;
    // What follows UNKNOWN is to be ignored.
    let ends = if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        None
    } else {
        let words = std::str::from_utf8(rest).ok();
        Some(words.and_then(ends).ok_or_else(malformed)?)
    };
    let extensions = Vec::new();
    Ok(Some((Header { ends, extensions }, end + 1)))
}

fn ends(words: &str) -> Option<Ends> {
    match words.split_once(' ')? {
        ("TCP4", rest) => ends_of::<Ipv4Addr>(rest),
        ("TCP6", rest) => ends_of::<Ipv6Addr>(rest),
        _ => None,
    }
}

fn ends_of<A: FromStr + Into<IpAddr>>(words: &str) -> Option<Ends> {
    let mut words = words.split(' ');
    let mut address = || words.next()?.parse::<A>().ok().map(Into::into);
    let (source, destination) = (address()?, address()?);
    let mut port = || port(words.next()?);
    let (source, destination) = ((source, port()?), (destination, port()?));
    words.next().is_none().then(|| Ends {
        source: source.into(),
        destination: destination.into(),
    })
}

/// Digits without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let canonical = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    text.parse().ok().filter(|_| canonical)
}
