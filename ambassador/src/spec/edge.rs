//! The edge of a forward as configurations have it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use rustls::pki_types::DnsName;
use serde::{Deserialize, Serialize};

use super::{ParseError, Target};
use crate::edge::first_given;
use crate::tls::FileSource;
use crate::{
    AcceptProxy, Allowed, Edge, NameError, NamePattern, Protocol, ProxyVersion, Tls, TlsFiles,
    TlsFilesError, TlsSide,
};

/// What is said and asked at either end of a TCP flow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeSpec {
    /// As [`crate::Edge::accept_proxy`].
    pub accept_proxy: Option<AcceptProxy>,
    /// As [`crate::Edge::send_proxy`].
    pub send_proxy: Option<ProxyVersion>,
    /// As [`crate::Edge::sni`]; empty for none. With it [`super::ForwardSpec::target`] may be an
    /// empty list of hosts, and then other clients are refused.
    pub sni: Vec<(NamePattern, Target)>,
    /// As [`crate::Edge::tls`], from files.
    pub tls: Option<TlsSpec>,
}

/// One end speaks TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSpec {
    /// As [`crate::Tls::side`].
    pub side: TlsSide,
    /// Where [`crate::Tls::credentials`] are.
    pub files: TlsFiles,
    /// As [`crate::Tls::allow`].
    pub allow: Vec<Allowed>,
    /// As [`crate::Tls::server_name`].
    pub server_name: Option<DnsName<'static>>,
}

impl EdgeSpec {
    /// As [`Edge::asks`].
    pub(crate) fn asks(&self) -> Option<&'static str> {
        first_given([
            ("accept_proxy", self.accept_proxy.is_some()),
            ("proxy_protocol", self.send_proxy.is_some()),
            ("sni", !self.sni.is_empty()),
            ("tls", self.tls.is_some()),
        ])
    }

    /// What can run.
    ///
    /// Server names are left to who can find their upstreams.
    pub(crate) fn edge(&self, source: &FileSource) -> Result<Edge, TlsFilesError> {
        let tls = self.tls.as_ref().map(|tls| {
            Ok(Tls {
                side: tls.side,
                credentials: source.watch(&tls.files)?,
                allow: tls.allow.clone().into(),
                server_name: tls.server_name.clone(),
            })
        });
        Ok(Edge {
            accept_proxy: self.accept_proxy.clone(),
            send_proxy: self.send_proxy,
            sni: None,
            tls: tls.transpose()?,
        })
    }
}

/// What is wrong with the keys of an edge, and what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EdgeError {
    /// A datagram has no beginning of a connection.
    #[error("{0} is for TCP; leave it out, or let the forward listen on tcp://")]
    Datagrams(&'static str),
    /// A key that means something only beside another one.
    #[error("{key} means nothing without {needed}; write that too, or leave {key} out")]
    Alone {
        /// The key that is there.
        key: &'static str,
        /// What is missing.
        needed: &'static str,
    },
    /// Nobody would be sent anywhere.
    #[error(
        "sni is empty; write \"db.example.org\" = [\"tcp://HOST:PORT\"] in it, or leave it out"
    )]
    NoNames,
    /// One of the two would never be used.
    #[error("sni has {0} twice; let each name stand once")]
    NameTwice(NamePattern),
    /// Not the name of a server.
    #[error("sni: {0}")]
    Name(#[from] NameError),
    /// Those who come say what they ask for; those who are gone to are asked.
    #[error(
        "tls_server_name is what upstreams are asked for; write tls = \"originate\", or leave it out"
    )]
    NothingToAsk,
    /// Not what a server can be asked for by.
    #[error("tls_server_name: {0:?} is not a server name; write one such as db.example.org")]
    ServerName(String),
    /// An end that speaks TLS must know with whom.
    #[error("tls needs {0} too; encryption that knows no peers protects nobody")]
    TlsNeeds(&'static str),
    /// Nobody could ever speak.
    #[error("allow is empty; write who may speak, such as \"spiffe://MESH/NETWORK/*\"")]
    NobodyAllowed,
    /// Nobody could ever connect.
    #[error(
        "accept_proxy_from is empty; write networks such as \"10.0.0.0/8\", or leave it out to take every source"
    )]
    NobodyTrusted,
}

/// The keys of an edge, as read from a configuration and not yet checked.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) proxy_protocol: Option<WireVersion>,
    pub(super) accept_proxy: bool,
    pub(super) accept_proxy_from: Option<Vec<IpNetwork>>,
    pub(super) accept_proxy_timeout: Option<Duration>,
    pub(super) sni: Option<Vec<(String, Target)>>,
    pub(super) tls: Option<WireSide>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_bundle: Option<PathBuf>,
    pub(super) allow: Option<Vec<Allowed>>,
    pub(super) tls_server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireSide {
    Originate,
    Terminate,
}

/// Addresses with one beginning; an address alone is a network of one.
pub(super) struct Network(pub(super) IpNetwork);

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let network = text.parse().map(Self);
        network.map_err(|_| ParseError::Network(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireVersion {
    V1,
    V2,
}

impl Keys {
    pub(super) fn check(self, protocol: Protocol) -> Result<EdgeSpec, EdgeError> {
        if protocol == Protocol::Udp {
            self.refuse_datagrams()?;
        }
        Ok(EdgeSpec {
            accept_proxy: self.accept_proxy()?,
            sni: self.sni()?,
            tls: self.tls()?,
            send_proxy: self.proxy_protocol.map(|version| match version {
                WireVersion::V1 => ProxyVersion::V1,
                WireVersion::V2 => ProxyVersion::V2,
            }),
        })
    }

    fn refuse_datagrams(&self) -> Result<(), EdgeError> {
        let given = [
            ("proxy_protocol", self.proxy_protocol.is_some()),
            ("accept_proxy", self.accept_proxy),
            ("sni", self.sni.is_some()),
            ("tls", self.tls.is_some()),
        ];
        first_given(given).map_or(Ok(()), |key| Err(EdgeError::Datagrams(key)))
    }

    fn sni(&self) -> Result<Vec<(NamePattern, Target)>, EdgeError> {
        let Some(sni) = &self.sni else {
            return Ok(Vec::new());
        };
        if sni.is_empty() {
            return Err(EdgeError::NoNames);
        }
        let mut routes: Vec<(NamePattern, Target)> = Vec::with_capacity(sni.len());
        for (name, target) in sni {
            let pattern: NamePattern = name.parse()?;
            if routes.iter().any(|(known, _)| *known == pattern) {
                return Err(EdgeError::NameTwice(pattern));
            }
            routes.push((pattern, target.clone()));
        }
        Ok(routes)
    }

    fn tls(&self) -> Result<Option<TlsSpec>, EdgeError> {
        let Some(side) = self.tls else {
            let given = [
                ("tls_certificate", self.tls_certificate.is_some()),
                ("tls_key", self.tls_key.is_some()),
                ("tls_bundle", self.tls_bundle.is_some()),
                ("allow", self.allow.is_some()),
                ("tls_server_name", self.tls_server_name.is_some()),
            ];
            let needed = "tls = \"originate\" or \"terminate\"";
            return first_given(given)
                .map_or(Ok(None), |key| Err(EdgeError::Alone { key, needed }));
        };
        let file = |file: &Option<PathBuf>, key| file.clone().ok_or(EdgeError::TlsNeeds(key));
        let allow = self.allow.clone().ok_or(EdgeError::TlsNeeds("allow"))?;
        if allow.is_empty() {
            return Err(EdgeError::NobodyAllowed);
        }
        let server_name = match (&self.tls_server_name, side) {
            (None, _) => None,
            (Some(_), WireSide::Terminate) => return Err(EdgeError::NothingToAsk),
            (Some(name), WireSide::Originate) => {
                let parsed = DnsName::try_from(name.clone());
                Some(parsed.map_err(|_| EdgeError::ServerName(name.clone()))?)
            }
        };
        Ok(Some(TlsSpec {
            side: match side {
                WireSide::Originate => TlsSide::Originate,
                WireSide::Terminate => TlsSide::Terminate,
            },
            files: TlsFiles {
                certificate: file(&self.tls_certificate, "tls_certificate")?,
                key: file(&self.tls_key, "tls_key")?,
                bundle: file(&self.tls_bundle, "tls_bundle")?,
            },
            allow,
            server_name,
        }))
    }

    fn accept_proxy(&self) -> Result<Option<AcceptProxy>, EdgeError> {
        if !self.accept_proxy {
            let given = [
                ("accept_proxy_from", self.accept_proxy_from.is_some()),
                ("accept_proxy_timeout", self.accept_proxy_timeout.is_some()),
            ];
            let needed = "accept_proxy = true";
            return first_given(given)
                .map_or(Ok(None), |key| Err(EdgeError::Alone { key, needed }));
        }
        let mut rules = AcceptProxy::from_everybody();
        if let Some(from) = &self.accept_proxy_from {
            if from.is_empty() {
                return Err(EdgeError::NobodyTrusted);
            }
            rules.from.clone_from(from);
        }
        if let Some(timeout) = self.accept_proxy_timeout {
            rules.timeout = timeout;
        }
        Ok(Some(rules))
    }
}

impl From<&EdgeSpec> for Keys {
    fn from(spec: &EdgeSpec) -> Self {
        let (tls, files) = (spec.tls.as_ref(), spec.tls.as_ref().map(|tls| &tls.files));
        let accept = spec.accept_proxy.as_ref();
        Self {
            proxy_protocol: spec.send_proxy.map(|version| match version {
                ProxyVersion::V1 => WireVersion::V1,
                ProxyVersion::V2 => WireVersion::V2,
            }),
            accept_proxy: accept.is_some(),
            accept_proxy_from: accept.map(|rules| rules.from.clone()),
            accept_proxy_timeout: accept.map(|rules| rules.timeout),
            sni: (!spec.sni.is_empty()).then(|| {
                let sni = spec.sni.iter();
                sni.map(|(pattern, target)| (pattern.to_string(), target.clone()))
                    .collect()
            }),
            tls: tls.map(|tls| match tls.side {
                TlsSide::Originate => WireSide::Originate,
                TlsSide::Terminate => WireSide::Terminate,
            }),
            tls_certificate: files.map(|files| files.certificate.clone()),
            tls_key: files.map(|files| files.key.clone()),
            tls_bundle: files.map(|files| files.bundle.clone()),
            allow: tls.map(|tls| tls.allow.clone()),
            tls_server_name: tls
                .and_then(|tls| tls.server_name.as_ref())
                .map(|name| name.as_ref().to_owned()),
        }
    }
}
