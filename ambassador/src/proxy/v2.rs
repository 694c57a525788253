//! Version 2: binary.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::parse::HeaderError;
use super::{Ends, Header};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub(super) const FIXED: usize = 16;
/// Addresses take at most 216 bytes, and senders keep to 536 in all unless they add certificates.
pub(super) const LONGEST: usize = 4096;
/// An extension whose content is nothing.
const NOTHING: u8 = 0x04;
/// An extension that covers the whole header, and so holds for no other one.
const CHECKSUM: u8 = 0x03;

pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;
pub(super) const TCP4: u8 = 0x11;
pub(super) const TCP6: u8 = 0x21;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let command = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(byte) if byte >> 4 != 2 => return Err(HeaderError::Version(byte >> 4)),
        Some(byte @ (&LOCAL | &PROXY)) => *byte,
        Some(byte) => return Err(HeaderError::Command(byte & 0xf)),
    };
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let end = FIXED + length;
    if end > LONGEST {
        return Err(HeaderError::TooLong(end));
    }
    let Some(body) = bytes.get(FIXED..end) else {
        return Ok(None);
    };
    // LOCAL is for the proxy's own connections: whatever follows is to be skipped.
    let header = match command {
        LOCAL => Header::default(),
        _ => proxied(fixed[13], body)?,
    };
    Ok(Some((header, end)))
}

fn proxied(family: u8, body: &[u8]) -> Result<Header, HeaderError> {
    let needed = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        other => return Err(HeaderError::Family(other)),
    };
    let found = body.len();
    let Some((addresses, extensions)) = body.split_at_checked(needed) else {
        return Err(HeaderError::Addresses { found, needed });
    };
    let ends = match family {
        TCP4 => ends::<4>(addresses, |octets| Ipv4Addr::from(octets).into()),
        TCP6 => ends::<16>(addresses, |octets| Ipv6Addr::from(octets).into()),
        // Unknown, UNIX and datagrams say nothing of who is behind this connection.
        _ => None,
    };
    check(extensions, FIXED + needed)?;
    Ok(Header {
        ends,
        extensions: extensions.to_vec(),
    })
}

fn ends<const N: usize>(bytes: &[u8], ip: fn([u8; N]) -> std::net::IpAddr) -> Option<Ends> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    let with = |ip, port: &[u8; 2]| SocketAddr::new(ip, u16::from_be_bytes(*port));
    Some(Ends {
        source: with(ip(*source), source_port),
        destination: with(ip(*destination), destination_port),
    })
}

/// The extensions in `bytes`, each with its type; where one does not end, the place of that one.
fn extensions(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let whole = || {
            let [kind, high, low] = *rest.first_chunk::<3>()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            Some((kind, rest.get(..3 + length)?))
        };
        let Some((kind, whole)) = whole() else {
            let broken = at;
            at = bytes.len();
            return Some(Err(broken));
        };
        at += whole.len();
        Some(Ok((kind, whole)))
    })
}

fn check(bytes: &[u8], begin: usize) -> Result<(), HeaderError> {
    let broken = extensions(bytes).find_map(Result::err);
    broken.map_or(Ok(()), |at| Err(HeaderError::Extension(begin + at)))
}

/// The extensions that another header may carry too.
pub(super) fn passed_on(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = extensions(bytes).map_while(Result::ok);
    all.filter(|(kind, _)| !matches!(*kind, NOTHING | CHECKSUM))
        .map(|(_, whole)| whole)
}
