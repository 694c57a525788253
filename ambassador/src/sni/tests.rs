#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::fuzz::server_name;

/// What a client that asks for `name` sends first.
fn hello(name: &str, fragment: Option<usize>) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.max_fragment_size = fragment;
    let name = name.to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Option<String>, NoName> {
    Hello::default().read(bytes)
}

#[test]
fn a_name_is_read_as_soon_as_it_is_whole() {
    // In one record, and in many of the smallest size there is.
    for fragment in [None, Some(32)] {
        let bytes = hello("db.example.org", fragment);
        assert_eq!(read(&bytes).unwrap().unwrap(), "db.example.org");
        for cut in 0..bytes.len() {
            let mut hello = Hello::default();
            assert!(hello.read(&bytes[..cut]).unwrap().is_none(), "{cut}");
            assert_eq!(hello.read(&bytes).unwrap().unwrap(), "db.example.org");
        }
        let mut byte_by_byte = Hello::default();
        for end in 0..bytes.len() {
            assert!(byte_by_byte.read(&bytes[..end]).unwrap().is_none());
        }
        assert!(byte_by_byte.read(&bytes).unwrap().is_some());
    }
}

#[test]
fn an_address_is_no_name() {
    assert!(matches!(
        read(&hello("192.0.2.1", None)),
        Err(NoName::Absent)
    ));
    for plain in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n"] {
        assert!(matches!(read(plain), Err(NoName::NotTls(_))));
    }
}

#[test]
fn the_closest_pattern_fits_best() {
    let patterns = ["db.example.org", "*.example.org", "*.b.example.org"];
    let patterns: Vec<NamePattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
    for (name, best) in [
        ("db.example.org", Some(0)),
        ("a.example.org", Some(1)),
        ("a.b.example.org", Some(2)),
        ("b.example.org", Some(1)),
        ("example.org", None),
        ("notexample.org", None),
        ("db.example.org.evil", None),
    ] {
        let fits = patterns.iter().enumerate();
        let fits = fits.filter_map(|(at, pattern)| Some((pattern.fits(name)?, at)));
        assert_eq!(fits.max().map(|(_, at)| at), best, "{name}");
    }
    for wrong in [
        "", "*", "*.", "a.*.b", "*.*.b", "a b", "a..b", ".a", "a.", "http://a",
    ] {
        let error = wrong.parse::<NamePattern>().unwrap_err().to_string();
        assert!(error.contains("*.example.org"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = server_name(&bytes);
    }

    #[test]
    fn a_hello_with_wrong_bytes_is_read_or_refused(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = hello("db.example.org", None);
        for (at, byte) in wrong {
            *at.get_mut(&mut bytes) = byte;
        }
        let cut = cut.index(bytes.len());
        let _ = server_name(&bytes[..cut]) || server_name(&bytes);
    }

    #[test]
    fn patterns_go_round(text in "(\\*\\.)?[a-z0-9_-]{1,9}(\\.[a-z0-9-]{1,9}){0,3}|.{0,20}") {
        if let Ok(pattern) = text.parse::<NamePattern>() {
            prop_assert_eq!(pattern.to_string(), text.to_ascii_lowercase());
        }
    }
}
