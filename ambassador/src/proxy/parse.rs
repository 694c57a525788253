//! Tells the versions apart.

use super::{Header, v1, v2};

/// What is wrong with the beginning of a connection that should be a header.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error(
        "it begins with {0:?}, which is no PROXY header; let the client send one, or leave out accept_proxy"
    )]
    Absent(String),
    #[error(
        "no end of line in the first {} bytes of a version 1 header",
        v1::LONGEST
    )]
    LineTooLong,
    #[error(
        "version 1 header {0:?} is malformed; expected PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT, or PROXY UNKNOWN"
    )]
    Line(String),
    #[error("version {0} of the binary header is unknown; expected 2")]
    Version(u8),
    #[error("command {0:#x} of a version 2 header is unknown; expected 0 (LOCAL) or 1 (PROXY)")]
    Command(u8),
    #[error("address family and protocol {0:#04x} of a version 2 header are unknown")]
    Family(u8),
    #[error("a version 2 header of {0} bytes is longer than the {longest} that are taken", longest = v2::LONGEST)]
    TooLong(usize),
    #[error("a version 2 header has {found} bytes for addresses that take {needed}")]
    Addresses { found: usize, needed: usize },
    #[error("an extension at byte {0} of a version 2 header does not end within it")]
    Extension(usize),
}

/// The longest header that [`parse`] takes, of either version.
pub(crate) const LONGEST: usize = v2::LONGEST;

/// Reads a header at the beginning of `bytes`, and tells how long it is. None if it is not whole
/// yet; what is wrong is told as early as it shows, and never later than after [`LONGEST`] bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, right)| byte == right);
    if begins(v2::SIGNATURE) {
        v2::parse(bytes)
    } else if begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(HeaderError::Absent(shown(bytes, v2::SIGNATURE.len())))
    }
}

/// The beginning of what came, fit for a log line.
pub(super) fn shown(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}
