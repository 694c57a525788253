//! What is said to upstreams.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Ends, ProxyVersion, v2};

/// A header for a client that connected from `ends.source` to `ends.destination`. Extensions that
/// came with it go on in version 2, but for those that hold only for the header they were in.
pub(crate) fn encode(version: ProxyVersion, ends: Ends, extensions: &[u8]) -> Vec<u8> {
    let ends = alike(ends);
    match version {
        ProxyVersion::V1 => v1(ends),
        ProxyVersion::V2 => v2(ends, extensions),
    }
}

/// Both addresses of one family, which is all that a header can say.
fn alike(
    Ends {
        source,
        destination,
    }: Ends,
) -> Ends {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return Ends {
            source,
            destination,
        };
    }
    let mapped = |at: SocketAddr| SocketAddr::new(six(at.ip()).into(), at.port());
    Ends {
        source: mapped(source),
        destination: mapped(destination),
    }
}

fn six(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn v1(
    Ends {
        source,
        destination,
    }: Ends,
) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (source, destination) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
}

fn v2(
    Ends {
        source,
        destination,
    }: Ends,
    extensions: &[u8],
) -> Vec<u8> {
    let mut body = Vec::with_capacity(36);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    for extension in v2::passed_on(extensions) {
        // IPv6 addresses may have taken the place of shorter ones.
        if v2::FIXED + body.len() + extension.len() <= v2::LONGEST {
            body.extend(extension);
        }
    }
    let family = if source.is_ipv4() { v2::TCP4 } else { v2::TCP6 };
    let length = u16::try_from(body.len()).expect("at most LONGEST");
    let mut header = Vec::with_capacity(v2::FIXED + body.len());
    header.extend(v2::SIGNATURE);
    header.extend([v2::PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}
