//! Percent-encoding (RFC 3986 §2.1).

use std::fmt::Write as _;

/// `text` as the value of a query parameter.
pub(super) fn query_value(text: &str) -> String {
    encode(text, b"-._~")
}

/// `text` as a path; slashes stay, and what stands in image references.
pub(super) fn path(text: &str) -> String {
    encode(text, b"-._~/:@")
}

fn encode(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes all");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_addresses_is_encoded() {
        assert_eq!(query_value("a b&c=d/é%"), "a%20b%26c%3Dd%2F%C3%A9%25");
        assert_eq!(
            path("/images/a.b:5000/c@sha256:0/json"),
            "/images/a.b:5000/c@sha256:0/json"
        );
        assert_eq!(
            path("/containers/x?force=1#/json"),
            "/containers/x%3Fforce%3D1%23/json"
        );
    }
}
