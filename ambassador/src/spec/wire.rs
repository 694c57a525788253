//! The one wire form of a forward, in TOML and in JSON.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::balance::{ParsedCheck, WireEject};
use super::edge::{self, Network, WireSide, WireVersion};
use super::text::{self, Cgroup, Span, Upstream};
use super::{ForwardSpec, Host, ParseError, Target};
use crate::{Allowed, Balance, Eject, Limits, Listen, OnRemove, Policy, RelayMode};

/// Why a configuration file makes no forwards.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be had.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{}:{line}: {}{message}", .path.display(), key.as_deref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key that the line sets.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// The file asks for nothing.
    #[error(
        "{} has no [[forward]]; write one, with listen = \"tcp://ADDRESS:PORT\" and to = [\"tcp://HOST:PORT\"]",
        .0.display()
    )]
    Empty(PathBuf),
}

/// Reads a TOML file with one `[[forward]]` for each forward.
///
/// # Errors
///
/// [`FileError`], which names file, line and key.
pub fn from_file(path: &Path) -> Result<Vec<ForwardSpec>, FileError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    from_toml(path, &text)
}

/// As [`from_file`], from the text itself; `path` is for messages.
///
/// # Errors
///
/// [`FileError::Syntax`] or [`FileError::Empty`].
pub fn from_toml(path: &Path, text: &str) -> Result<Vec<ForwardSpec>, FileError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let begin = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text.as_bytes()[..begin];
        let line = before.iter().filter(|byte| **byte == b'\n').count();
        let key = text.lines().nth(line).and_then(|line| line.split_once('='));
        FileError::Syntax {
            path: path.to_owned(),
            line: line + 1,
            key: key.map(|(key, _)| text::printable(key.trim())),
            message: text::printable(&error.message().lines().collect::<Vec<_>>().join(", ")),
        }
    })?;
    if file.forward.is_empty() {
        return Err(FileError::Empty(path.to_owned()));
    }
    Ok(file.forward.into_iter().map(|Parsed(spec)| spec).collect())
}

/// Reads a JSON list, as `PUT /config` takes it.
///
/// # Errors
///
/// What serde_json says, with line and column.
pub fn from_json(json: &[u8]) -> Result<Vec<ForwardSpec>, serde_json::Error> {
    let parsed: Vec<Parsed> = serde_json::from_slice(json)?;
    Ok(parsed.into_iter().map(|Parsed(spec)| spec).collect())
}

/// Writes what [`from_json`] reads.
#[must_use]
pub fn to_json(specs: &[ForwardSpec]) -> serde_json::Value {
    let wire = specs.iter().map(WireForward::from);
    // Every key is a string.
    let values = wire.map(|wire| serde_json::to_value(wire).expect("strings make JSON"));
    serde_json::Value::Array(values.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    forward: Vec<Parsed>,
}

/// Converted while it is read, so that an error still has its place in the text.
#[derive(Deserialize)]
#[serde(try_from = "WireForward")]
struct Parsed(ForwardSpec);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireForward {
    name: Option<String>,
    listen: Text<Listen>,
    #[serde(default)]
    to: Vec<Text<Upstream>>,
    #[serde(default)]
    mode: WireMode,
    connect_timeout: Option<Text<Span>>,
    idle: Option<Text<Span>>,
    max_connections: Option<NonZeroU32>,
    max_pending: Option<NonZeroU32>,
    max_per_endpoint: Option<NonZeroU32>,
    retries: Option<u32>,
    balance: Option<Text<Policy>>,
    on_remove: Option<Text<OnRemove>>,
    eject: Option<WireEject>,
    check: Option<ParsedCheck>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    direct: Vec<Text<Cgroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_direct: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<WireVersion>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    accept_proxy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_proxy_from: Option<Vec<Text<Network>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_proxy_timeout: Option<Text<Span>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<BTreeMap<String, Vec<Text<Upstream>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<WireSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_bundle: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<Text<Allowed>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WireMode {
    #[default]
    Auto,
    Copy,
    Splice,
}

/// A value that is written as a word.
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl TryFrom<WireForward> for Parsed {
    type Error = ParseError;

    fn try_from(wire: WireForward) -> Result<Self, ParseError> {
        let Text(listen) = wire.listen;
        let target = |to: Vec<Text<Upstream>>| {
            let upstreams = to.into_iter().map(|Text(upstream)| upstream);
            text::target(listen.protocol, upstreams.collect())
        };
        let sni = wire.sni.map(|sni| {
            let routes = sni.into_iter().map(|(name, to)| Ok((name, target(to)?)));
            routes.collect::<Result<Vec<_>, ParseError>>()
        });
        // Those whose name is not listed may have nowhere to go.
        let own = match (&sni, wire.to.is_empty()) {
            (Some(_), true) => Target::Host(Vec::new()),
            _ => target(wire.to)?,
        };
        let default = Limits::default();
        let from = wire.accept_proxy_from;
        let edge = edge::Keys {
            proxy_protocol: wire.proxy_protocol,
            accept_proxy: wire.accept_proxy,
            accept_proxy_from: from.map(|from| from.into_iter().map(|Text(n)| n.0).collect()),
            accept_proxy_timeout: wire.accept_proxy_timeout.map(|timeout| timeout.0.0),
            sni: sni.transpose()?,
            tls: wire.tls,
            tls_certificate: wire.tls_certificate,
            tls_key: wire.tls_key,
            tls_bundle: wire.tls_bundle,
            tls_server_name: wire.tls_server_name,
            allow: wire
                .allow
                .map(|allow| allow.into_iter().map(|Text(allowed)| allowed).collect()),
        };
        let most = |most: Option<NonZeroU32>| usize::try_from(most?.get()).ok();
        Ok(Self(ForwardSpec {
            name: wire.name.unwrap_or_else(|| listen.to_string()),
            listen,
            target: own,
            limits: Limits {
                mode: match wire.mode {
                    WireMode::Auto => RelayMode::Auto,
                    WireMode::Copy => RelayMode::Copy,
                    WireMode::Splice => RelayMode::Splice,
                },
                connect_timeout: wire
                    .connect_timeout
                    .map_or(default.connect_timeout, |t| t.0.0),
                idle: wire.idle.map_or(default.idle, |idle| idle.0.0),
                max_connections: most(wire.max_connections).unwrap_or(default.max_connections),
                max_pending: most(wire.max_pending).unwrap_or(default.max_pending),
                max_per_endpoint: most(wire.max_per_endpoint).unwrap_or(default.max_per_endpoint),
                retries: (wire.retries.and_then(|n| usize::try_from(n).ok()))
                    .unwrap_or(default.retries),
            },
            balance: Balance {
                policy: wire.balance.map(|policy| policy.0).unwrap_or_default(),
                eject: wire.eject.map(Eject::from).unwrap_or_default(),
                on_remove: wire.on_remove.map(|fate| fate.0).unwrap_or_default(),
                check: wire.check.map(|ParsedCheck(check)| check),
            },
            direct: (wire.direct.into_iter())
                .map(|Text(Cgroup(path))| path)
                .collect(),
            not_direct: wire.not_direct,
            edge: edge.check(listen.protocol).map_err(ParseError::Edge)?,
        }))
    }
}

impl From<&ForwardSpec> for WireForward {
    fn from(spec: &ForwardSpec) -> Self {
        let protocol = Some(spec.listen.protocol);
        let host = |host: &Host| Upstream::Host(protocol, host.clone());
        let to = |target: &Target| match target {
            Target::Host(hosts) => hosts.iter().map(host).map(Text).collect(),
            Target::Service(name, port) => vec![Text(Upstream::Service(name.clone(), *port))],
        };
        let edge = edge::Keys::from(&spec.edge);
        let from = edge.accept_proxy_from;
        let limits = &spec.limits;
        let most = |most| u32::try_from(most).ok().and_then(NonZeroU32::new);
        Self {
            name: Some(spec.name.clone()),
            listen: Text(spec.listen),
            to: to(&spec.target),
            mode: match spec.limits.mode {
                RelayMode::Auto => WireMode::Auto,
                RelayMode::Copy => WireMode::Copy,
                RelayMode::Splice => WireMode::Splice,
            },
            connect_timeout: Some(Text(Span(spec.limits.connect_timeout))),
            idle: Some(Text(Span(spec.limits.idle))),
            max_connections: most(limits.max_connections).or(Some(NonZeroU32::MAX)),
            max_pending: most(limits.max_pending),
            max_per_endpoint: most(limits.max_per_endpoint),
            retries: u32::try_from(limits.retries).ok(),
            balance: Some(Text(spec.balance.policy)),
            on_remove: Some(Text(spec.balance.on_remove)),
            eject: Some(WireEject::from(&spec.balance.eject)),
            check: spec.balance.check.clone().map(ParsedCheck),
            direct: (spec.direct.iter().cloned().map(Cgroup).map(Text)).collect(),
            not_direct: spec.not_direct.clone(),
            proxy_protocol: edge.proxy_protocol,
            accept_proxy: edge.accept_proxy,
            accept_proxy_from: from.map(|from| from.into_iter().map(Network).map(Text).collect()),
            accept_proxy_timeout: edge.accept_proxy_timeout.map(Span).map(Text),
            sni: edge.sni.map(|sni| {
                let sni = sni.into_iter();
                sni.map(|(name, target)| (name, to(&target))).collect()
            }),
            tls: edge.tls,
            tls_certificate: edge.tls_certificate,
            tls_key: edge.tls_key,
            tls_bundle: edge.tls_bundle,
            tls_server_name: edge.tls_server_name,
            allow: (edge.allow).map(|allow| allow.into_iter().map(Text).collect()),
        }
    }
}
