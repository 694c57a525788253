//! The words that all forms share: listeners, upstreams, durations.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Host, Target};
use crate::{Listen, Protocol};

/// As HAProxy has it.
const MOST_WEIGHT: u16 = 256;

/// What is wrong with a word of a configuration, and what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// Neither TCP nor UDP, nor a service where one may stand.
    #[error("{text:?} begins with no known scheme; write {expected}")]
    Scheme {
        /// What was given.
        text: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Not a port number.
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// No port where one must stand.
    #[error("{0:?} has no port; write HOST:PORT, and an IPv6 address in brackets, as in [::1]:80")]
    NoPort(String),
    /// Not a host name and not an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    /// A listener needs an address.
    #[error("{0:?} is not an IP address to listen on; write one such as 127.0.0.1, [::1] or *")]
    Address(String),
    /// Not a weight.
    #[error("{0:?} is not a weight; write weight=N, with N from 1 to {MOST_WEIGHT}")]
    Weight(String),
    /// A service whose endpoints are not known yet.
    #[error("service {0:?} has a weight; only hosts can have one, as in tcp://HOST:PORT weight=3")]
    ServiceWeight(String),
    /// Not a way to choose.
    #[error(
        "{0:?} is no way to balance; write p2c, round_robin, least_connections, source_hash or random"
    )]
    Policy(String),
    /// Not a fate of flows.
    #[error(
        "{0:?} says not what becomes of flows; write keep, drain:30s (or another time) or reset"
    )]
    OnRemove(String),
    /// Not a share.
    #[error("{0:?} is not a share; write 0% to 100%")]
    Percent(String),
    /// Not a range of HTTP status codes.
    #[error("{0:?} is no range of HTTP status codes; write one such as 200-399, or 204")]
    Status(String),
    /// Not bytes.
    #[error(r#"{0:?} has an unknown escape; known are \r \n \t \0 \\ \" \' and \x00 to \xff"#)]
    Bytes(String),
    /// More bytes than a check has.
    #[error("{0} bytes are too many; a check sends and expects at most {1}")]
    TooManyBytes(usize, usize),
    /// Not a part of an HTTP request.
    #[error(
        "{0:?} does not fit into an HTTP request; write visible ASCII characters, at least one"
    )]
    Visible(String),
    /// Not an absolute path.
    #[error("path {0:?} does not begin with a slash; write one such as /health")]
    Path(String),
    /// A key that means nothing to this kind of check.
    #[error("{key} is for checks of kind = {kind:?}")]
    CheckKey {
        /// The key.
        key: &'static str,
        /// The kind that has it.
        kind: &'static str,
    },
    /// Nothing is expected.
    #[error("a check of kind = \"send_expect\" needs expect; write one such as expect = \"+PONG\"")]
    NoExpect,
    /// Not a duration.
    #[error("{0:?} is not a duration; write a number and its unit, as in 250ms, 10s or 5m")]
    Duration(String),
    /// A cgroup is named by its directory.
    #[error(
        "{0:?} is not the absolute path of a cgroup; write one such as /sys/fs/cgroup/unified/NAME"
    )]
    Cgroup(String),
    /// UDP does not become TCP on the way.
    #[error("the listener speaks {listen}, its upstream {upstream}; both must speak the same")]
    Protocols {
        /// The listener's protocol.
        listen: Protocol,
        /// The upstream's protocol.
        upstream: Protocol,
    },
    /// A list cannot have both.
    #[error("a service stands alone; give either one service://NAME or a list of HOST:PORT")]
    Mixed,
    /// Not a network.
    #[error("{0:?} is not a network; write one such as 10.0.0.0/8, fd00::/8 or 192.0.2.1")]
    Network(String),
    /// The keys of an edge contradict each other.
    #[error(transparent)]
    Edge(super::EdgeError),
    /// There is nowhere to go.
    #[error("no upstream is given; write tcp://HOST:PORT, udp://HOST:PORT or service://NAME")]
    NoUpstream,
}

/// The directory of a cgroup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cgroup(pub(super) PathBuf);

impl FromStr for Cgroup {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let path = PathBuf::from(text);
        if path.is_absolute() && !text.contains('\0') {
            Ok(Self(path))
        } else {
            Err(ParseError::Cgroup(text.to_owned()))
        }
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// One element of `to`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Upstream {
    /// Without a protocol, the listener's.
    Host(Option<Protocol>, Host),
    Service(String, Option<u16>),
}

/// All of IPv6, which includes IPv4.
pub(super) fn everywhere(protocol: Protocol, port: u16) -> Listen {
    Listen {
        protocol,
        address: (Ipv6Addr::UNSPECIFIED, port).into(),
        only_v6: false,
    }
}

/// `text` with escapes in the place of control characters, so that whoever wrote it says nothing to
/// a terminal, and a message stays one line.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

pub(super) fn target(protocol: Protocol, upstreams: Vec<Upstream>) -> Result<Target, ParseError> {
    let mut hosts = Vec::with_capacity(upstreams.len());
    let alone = upstreams.len() == 1;
    for upstream in upstreams {
        match upstream {
            Upstream::Service(name, port) if alone => return Ok(Target::Service(name, port)),
            Upstream::Service(..) => return Err(ParseError::Mixed),
            Upstream::Host(Some(upstream), ..) if upstream != protocol => {
                let listen = protocol;
                return Err(ParseError::Protocols { listen, upstream });
            }
            Upstream::Host(_, host) => hosts.push(host),
        }
    }
    if hosts.is_empty() {
        return Err(ParseError::NoUpstream);
    }
    Ok(Target::Host(hosts))
}

/// A port that is not 0.
pub(super) fn port(text: &str) -> Result<u16, ParseError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| ParseError::Port(text.to_owned()))
}

/// A host name or an address without brackets.
pub(super) fn host(text: &str) -> Result<String, ParseError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_name = text.len() <= 253
        && text.bytes().all(allowed)
        && labels
            .split('.')
            .all(|label| (1..=63).contains(&label.len()));
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(ParseError::Host(text.to_owned()))
    }
}

/// Parts `HOST:PORT` or `[IPV6]:PORT`; the host may be empty.
fn part(text: &str) -> Result<(&str, &str), ParseError> {
    let no_port = || ParseError::NoPort(text.to_owned());
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or_else(no_port)?;
        return match host.parse::<Ipv6Addr>() {
            Ok(_) => Ok((host, port)),
            Err(_) => Err(ParseError::Host(host.to_owned())),
        };
    }
    let (host, port) = text.split_once(':').ok_or_else(no_port)?;
    // More colons are an IPv6 address without brackets, whose end nobody can tell.
    if port.contains(':') {
        return Err(no_port());
    }
    Ok((host, port))
}

/// `HOST:PORT` as an environment variable or a list has it.
pub(super) fn host_port(text: &str) -> Result<(String, u16), ParseError> {
    let (name, number) = part(text)?;
    Ok((host(name)?, port(number)?))
}

/// Parts `… weight=N`, if there is a weight.
fn weight(text: &str) -> Result<Option<(&str, NonZeroU16)>, ParseError> {
    let Some((upstream, word)) = text.split_once(' ') else {
        return Ok(None);
    };
    let word = word.trim_start();
    let number = word.strip_prefix("weight=");
    let digits = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let weight = digits.and_then(|digits| digits.parse::<NonZeroU16>().ok());
    let weight = weight.filter(|weight| weight.get() <= MOST_WEIGHT);
    let weight = weight.ok_or_else(|| ParseError::Weight(word.to_owned()))?;
    Ok(Some((upstream, weight)))
}

fn scheme(text: &str) -> Option<(Protocol, &str)> {
    let tcp = text
        .strip_prefix("tcp://")
        .map(|rest| (Protocol::Tcp, rest));
    tcp.or_else(|| Some((Protocol::Udp, text.strip_prefix("udp://")?)))
}

impl FromStr for Listen {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let only_v6 = ["tcp6://", "udp6://"].iter().any(|of| text.starts_with(of));
        let usual = match only_v6 {
            true => text.replacen("6://", "://", 1),
            false => text.to_owned(),
        };
        let (protocol, rest) = scheme(&usual).ok_or_else(|| ParseError::Scheme {
            text: text.to_owned(),
            expected: "tcp://ADDRESS:PORT or udp://ADDRESS:PORT",
        })?;
        let (address, number) = part(rest)?;
        let port = if number == "0" { 0 } else { port(number)? };
        if matches!(address, "" | "*") {
            return Ok(Self {
                only_v6,
                ..everywhere(protocol, port)
            });
        }
        let wrong = || ParseError::Address(address.to_owned());
        let ip: IpAddr = address.parse().map_err(|_| wrong())?;
        if only_v6 && ip.is_ipv4() {
            return Err(wrong());
        }
        Ok(Self {
            protocol,
            address: SocketAddr::new(ip, port),
            only_v6,
        })
    }
}

impl FromStr for Upstream {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::NoUpstream);
        }
        let (whole, weight) = (text, weight(text)?);
        let text = weight.map_or(whole, |(text, _)| text);
        if let Some(service) = text.strip_prefix("service://") {
            if weight.is_some() {
                return Err(ParseError::ServiceWeight(service.to_owned()));
            }
            let (name, port) = match service.split_once(':') {
                Some((name, number)) => (name, Some(port(number)?)),
                None => (service, None),
            };
            return Ok(Self::Service(host(name)?, port));
        }
        let weight = weight.map_or(NonZeroU16::MIN, |(_, weight)| weight);
        let host = |text| {
            let (name, port) = host_port(text)?;
            Ok(Host { name, port, weight })
        };
        if let Some((protocol, rest)) = scheme(text) {
            return Ok(Self::Host(Some(protocol), host(rest)?));
        }
        if text.contains("://") {
            return Err(ParseError::Scheme {
                text: text.to_owned(),
                expected: "tcp://HOST:PORT, udp://HOST:PORT or service://NAME",
            });
        }
        Ok(Self::Host(None, host(text)?))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name, None) => write!(f, "service://{name}"),
            Self::Service(name, Some(port)) => write!(f, "service://{name}:{port}"),
            Self::Host(protocol, Host { name, port, weight }) => {
                if let Some(protocol) = protocol {
                    write!(f, "{protocol}://")?;
                }
                if name.contains(':') {
                    write!(f, "[{name}]:{port}")?;
                } else {
                    write!(f, "{name}:{port}")?;
                }
                if weight.get() != 1 {
                    write!(f, " weight={weight}")?;
                }
                Ok(())
            }
        }
    }
}

/// A duration as configurations have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let end = text.bytes().position(|byte| !byte.is_ascii_digit());
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(ParseError::Duration(text.to_owned())),
        };
        // A year is as good as for ever, and no deadline overflows.
        let most = 365 * 24 * 3_600_000;
        let total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        let total = total.filter(|total| (1..=most).contains(total));
        total
            .map(|total| Self(Duration::from_millis(total)))
            .ok_or_else(|| ParseError::Duration(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            whole if whole % 1_000 == 0 => write!(f, "{}s", whole / 1_000),
            part => write!(f, "{part}ms"),
        }
    }
}
