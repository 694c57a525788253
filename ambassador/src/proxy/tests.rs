#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader, Tlv};

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// A version 2 header with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn reads_the_specifications_examples() {
    let local = binary(0x20, 0, &[]);
    // The family of LOCAL is to be ignored, whatever it promises.
    let odd_local = binary(0x20, 0x11, &[1, 2, 3]);
    let unix = binary(0x21, 0x31, &[7; 216]);
    let cases: [(&[u8], Option<Ends>); 9] = [
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some(ends("255.255.255.255:65535", "255.255.255.255:65535")),
        ),
        (
            b"PROXY TCP6 ffff:f:f:f:f:f:f:ffff ::1 0 65535\r\n",
            Some(ends("[ffff:f:f:f:f:f:f:ffff]:0", "[::1]:65535")),
        ),
        (
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            None,
        ),
        (b"PROXY UNKNOWN\r\n", None),
        (&local, None),
        (&odd_local, None),
        (&unix, None),
        (
            &binary(0x21, 0x11, &[10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 187]),
            Some(ends("10.0.0.1:80", "10.0.0.2:443")),
        ),
        (
            &binary(0x21, 0x12, &[10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 187]),
            None,
        ),
    ];
    for (bytes, ends) in cases {
        let mut sent = bytes.to_vec();
        sent.extend(b"payload");
        let (header, length) = parse(&sent).unwrap().unwrap();
        assert_eq!((header.ends, length), (ends, bytes.len()), "{sent:?}");
    }
}

#[test]
fn says_what_is_wrong_as_soon_as_it_shows() {
    let v1 = |line: &str| line.as_bytes().to_vec();
    let cases = [
        (v1("GET / HTTP/1.1"), "\"GET / HTTP/1.1\""[..8].to_owned()),
        (v1("PROXX"), "no PROXY header".to_owned()),
        (
            v1("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"),
            "malformed".to_owned(),
        ),
        (v1("PROXY TCP4 1.2.3.4 ::1 1 2\r\n"), "malformed".to_owned()),
        (
            v1("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"),
            "malformed".to_owned(),
        ),
        (
            v1("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"),
            "malformed".to_owned(),
        ),
        (
            v1("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"),
            "malformed".to_owned(),
        ),
        (
            v1("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n"),
            "malformed".to_owned(),
        ),
        (
            v1("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"),
            "malformed".to_owned(),
        ),
        (
            v1("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"),
            "malformed".to_owned(),
        ),
        (v1("PROXY UNKNOWNS\r\n"), "malformed".to_owned()),
        (
            v1(&format!("PROXY UNKNOWN {}", "x".repeat(93))),
            "first 107 bytes".to_owned(),
        ),
        (
            binary(0x11, 0, &[])[..13].to_vec(),
            "version 1 of".to_owned(),
        ),
        (
            binary(0x22, 0, &[])[..13].to_vec(),
            "command 0x2".to_owned(),
        ),
        (binary(0x21, 0x41, &[]), "0x41".to_owned()),
        (
            binary(0x21, 0x11, &[0; 11]),
            "11 bytes for addresses that take 12".to_owned(),
        ),
        (
            binary(0x21, 0, &[4, 0, 1]),
            "extension at byte 16".to_owned(),
        ),
        (
            binary(0x21, 0, &[4, 0, 0, 5]),
            "extension at byte 19".to_owned(),
        ),
        (
            binary(0x21, 0, &[0; 5000])[..16].to_vec(),
            "5016 bytes".to_owned(),
        ),
    ];
    for (bytes, wrong) in cases {
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(&wrong), "{bytes:?}: {error}");
    }
}

fn any_ends() -> impl Strategy<Value = Ends> {
    let address = || (any::<SocketAddr>(),);
    (address(), address(), any::<bool>()).prop_map(|((source,), (destination,), _)| Ends {
        source: (source.ip(), source.port()).into(),
        destination: (destination.ip(), destination.port()).into(),
    })
}

fn any_version() -> impl Strategy<Value = ProxyVersion> {
    prop::sample::select(vec![ProxyVersion::V1, ProxyVersion::V2])
}

fn any_extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    prop::collection::vec(
        (0xe0_u8.., prop::collection::vec(any::<u8>(), 0..300)),
        0..4,
    )
}

fn extensions(all: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in all {
        bytes.push(*kind);
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

/// Bytes that get far into the parser.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let text =
        r"PROXY (TCP4|TCP6|UNKNOWN|) ?[0-9a-f:. ]{0,100}(\r\n|\n|)".prop_map(String::into_bytes);
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let selected = prop::sample::select(vec![0, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x51]);
    let two = (0x1f_u8..0x23, selected, any::<u16>(), body).prop_map(
        |(command, family, length, body)| {
            let mut bytes = binary(command, family, &body);
            if length % 4 == 0 {
                bytes[14..16].copy_from_slice(&length.to_be_bytes());
            }
            bytes
        },
    );
    prop_oneof![text, two, prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in nearly_a_header()) {
        let _ = crate::fuzz::proxy_header(&bytes);
    }

    #[test]
    fn no_length_makes_it_wait_for_ever(mut bytes in nearly_a_header(), fill: u8) {
        bytes.resize(LONGEST, fill);
        prop_assert!(!matches!(parse(&bytes), Ok(None)));
    }

    #[test]
    fn what_is_written_is_read_and_read_by_others(
        version in any_version(),
        said in any_ends(),
        all in any_extensions(),
    ) {
        let mut bytes = encode(version, said, &extensions(&all));
        let length = bytes.len();
        bytes.extend(b"payload");
        let (header, read) = parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(read, length);
        let told = header.ends.unwrap();
        let same = |told: SocketAddr, said: SocketAddr| {
            (told.ip().to_canonical(), told.port()) == (said.ip().to_canonical(), said.port())
        };
        prop_assert!(same(told.source, said.source) && same(told.destination, said.destination));

        let (theirs, read) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
        prop_assert_eq!(read, length);
        let address = theirs.proxied_address().unwrap();
        prop_assert_eq!((address.source, address.destination), (told.source, told.destination));
        let values: Vec<_> = theirs.tlvs().map(|tlv| match tlv.unwrap() {
            Tlv::Custom(kind, value) => (kind, value.into_owned()),
            other => panic!("{other:?}"),
        }).collect();
        let expected = if version == ProxyVersion::V2 { all } else { Vec::new() };
        prop_assert_eq!(values, expected);
    }
}

#[test]
fn what_holds_only_for_one_header_is_not_passed_on() {
    let came = extensions(&[
        (0x03, vec![1, 2, 3, 4]),
        (0x05, b"unique".to_vec()),
        (0x04, vec![0; 9]),
        (0xe1, Vec::new()),
    ]);
    let sent = encode(ProxyVersion::V2, ends("10.0.0.1:1", "10.0.0.2:2"), &came);
    let (header, _) = parse(&sent).unwrap().unwrap();
    let expected = extensions(&[(0x05, b"unique".to_vec()), (0xe1, Vec::new())]);
    assert_eq!(header.extensions, expected);
}

#[test]
fn ends_of_two_families_are_told_as_ipv6() {
    let said = ends("10.0.0.1:1", "[2001:db8::1]:2");
    let line = encode(ProxyVersion::V1, said, &[]);
    assert_eq!(line, b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n");
    let mapped = ends("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:2");
    let line = encode(ProxyVersion::V1, mapped, &[]);
    assert_eq!(line, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
}
