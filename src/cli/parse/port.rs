//! `-p` and `--expose`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Not a port, or ports that do not fit each other. The first words are Docker's.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidPort {
    #[error("no port specified: {0}: expected [[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]")]
    NoPort(String),
    #[error(
        "invalid containerPort: {0}: expected a number from 1 to 65535, or a range as 8000-8010"
    )]
    Container(String),
    #[error("invalid hostPort: {0}: expected a number from 0 to 65535, or a range as 8000-8010")]
    Host(String),
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid proto: {0}: expected tcp or udp")]
    Protocol(String),
    #[error(
        "invalid ranges specified for container and host ports: {container} and {host}: they differ in length"
    )]
    Lengths { container: String, host: String },
    #[error("invalid range format for --expose: {0}: expected PORT[-PORT][/PROTOCOL]")]
    Expose(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl FromStr for Protocol {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(InvalidPort::Protocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// `[[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]`, where ports may be ranges of equal length.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Publish {
    address: Option<IpAddr>,
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: Protocol,
}

/// One published port, as the API names them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Binding {
    /// As `6379/tcp`.
    pub(crate) port: String,
    /// Empty: every address.
    pub(crate) address: String,
    /// A port, a range to choose from, or empty: any.
    pub(crate) host_port: String,
}

impl Publish {
    pub(crate) fn bindings(&self) -> impl Iterator<Item = Binding> {
        let several = self.container.len() > 1;
        self.container
            .clone()
            .zip(0..)
            .map(move |(port, offset)| Binding {
                port: format!("{port}/{}", self.protocol),
                address: self
                    .address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                host_port: match &self.host {
                    None => String::new(),
                    Some(host) if several => (host.start() + offset).to_string(),
                    Some(host) => range_text(host),
                },
            })
    }
}

impl FromStr for Publish {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (front, container_text) = match ports.rsplit_once(':') {
            Some((front, container)) => (Some(front), container),
            None => (None, ports),
        };
        let (address, host_text) = match front {
            None => ("", ""),
            Some(front) => front.rsplit_once(':').unwrap_or(("", front)),
        };
        if container_text.is_empty() {
            return Err(InvalidPort::NoPort(text.to_owned()));
        }
        let container = range(container_text)
            .filter(|range| *range.start() > 0)
            .ok_or_else(|| InvalidPort::Container(container_text.to_owned()))?;
        let protocol = protocol.parse()?;
        let host = match host_text {
            "" => None,
            text => Some(range(text).ok_or_else(|| InvalidPort::Host(text.to_owned()))?),
        };
        // one container port may take any of several host ports
        if let Some(host) = &host
            && container.len() > 1
            && host.len() != container.len()
        {
            return Err(InvalidPort::Lengths {
                container: container_text.to_owned(),
                host: host_text.to_owned(),
            });
        }
        Ok(Self {
            address: parse_address(address)?,
            host,
            container,
            protocol,
        })
    }
}

/// An address, an IPv6 one in brackets; empty: every one.
fn parse_address(text: &str) -> Result<Option<IpAddr>, InvalidPort> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare
        .unwrap_or(text)
        .parse()
        .map_err(|_| InvalidPort::Address(text.to_owned()))?;
    Ok(Some(address))
}

/// `PORT` or `PORT-PORT`, the second not below the first.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// Digits only: Rust's own parser would take a sign.
fn number(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn range_text(range: &RangeInclusive<u16>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// `PORT[-PORT][/PROTOCOL]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Expose {
    ports: RangeInclusive<u16>,
    protocol: Protocol,
}

impl Expose {
    /// The ports as the API names them: `6379/tcp`.
    pub(crate) fn ports(&self) -> impl Iterator<Item = String> {
        self.ports
            .clone()
            .map(|port| format!("{port}/{}", self.protocol))
    }
}

impl FromStr for Expose {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let ports = range(ports)
            .filter(|range| *range.start() > 0)
            .ok_or_else(|| InvalidPort::Expose(text.to_owned()))?;
        Ok(Self {
            ports,
            protocol: protocol.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bindings(text: &str) -> Vec<(String, String, String)> {
        let publish: Publish = text.parse().expect(text);
        publish
            .bindings()
            .map(|b| (b.port, b.address, b.host_port))
            .collect()
    }

    fn binding(port: &str, address: &str, host_port: &str) -> (String, String, String) {
        (port.to_owned(), address.to_owned(), host_port.to_owned())
    }

    #[test]
    fn published_ports() {
        assert_eq!(bindings("80"), [binding("80/tcp", "", "")]);
        assert_eq!(bindings("8080:80"), [binding("80/tcp", "", "8080")]);
        assert_eq!(bindings("53:53/UDP"), [binding("53/udp", "", "53")]);
        assert_eq!(
            bindings("127.0.0.1::80"),
            [binding("80/tcp", "127.0.0.1", "")]
        );
        assert_eq!(
            bindings("[::1]:8080:80"),
            [binding("80/tcp", "::1", "8080")]
        );
        assert_eq!(
            bindings("8000-8010:80"),
            [binding("80/tcp", "", "8000-8010")]
        );
        let two = [binding("80/tcp", "", "8000"), binding("81/tcp", "", "8001")];
        assert_eq!(bindings("8000-8001:80-81"), two);
    }

    #[test]
    fn malformed_ports_are_named() {
        let wrong = |text: &str| text.parse::<Publish>().expect_err(text).to_string();
        assert!(wrong("abc").starts_with("invalid containerPort: abc"));
        assert!(wrong("80:").starts_with("no port specified: 80:"));
        assert!(wrong("80:0").starts_with("invalid containerPort: 0"));
        assert!(wrong("80:65536").starts_with("invalid containerPort: 65536"));
        assert!(wrong("80:+1").starts_with("invalid containerPort: +1"));
        assert!(wrong("x:80").starts_with("invalid hostPort: x"));
        assert!(wrong("9-8:80").starts_with("invalid hostPort: 9-8"));
        assert!(wrong("1.2.3:1:2").starts_with("invalid IP address: 1.2.3"));
        assert!(wrong("80/icmp").starts_with("invalid proto: icmp"));
        assert!(
            wrong("1-3:80-81").starts_with("invalid ranges specified for container and host ports")
        );
    }

    #[test]
    fn exposed_ports() {
        let expose: Expose = "7000-7002/udp".parse().expect("a range");
        assert_eq!(
            expose.ports().collect::<Vec<_>>(),
            ["7000/udp", "7001/udp", "7002/udp"]
        );
        for wrong in ["", "0", "x", "80:81", "5-4"] {
            let error = wrong.parse::<Expose>().expect_err(wrong).to_string();
            assert!(
                error.starts_with("invalid range format for --expose:"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,24}") {
            let _ = (text.parse::<Publish>(), text.parse::<Expose>());
        }

        #[test]
        fn what_is_written_is_bound(ip: std::net::Ipv4Addr, host in 1u16.., first in 1u16..60000, more in 0u16..20) {
            let host = host.min(u16::MAX - more);
            let text = format!("{ip}:{host}-{}:{first}-{}", host + more, first + more);
            let bound = bindings(&text);
            prop_assert_eq!(bound.len(), usize::from(more) + 1);
            for (offset, bound) in (0..).zip(bound) {
                let expected = binding(
                    &format!("{}/tcp", first + offset), &ip.to_string(), &(host + offset).to_string());
                prop_assert_eq!(bound, expected);
            }
        }
    }
}
