//! Services outside of the mesh as they are written, and what is known of them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::endpoint::ProtocolWire;
use super::{DecodeError, Record, fields_of, parse};
use crate::model::{CheckRecord, ImportRecord, ServiceHealthRecord, ServiceRecord, Upstream};

#[derive(Deserialize, Serialize)]
struct ServiceWire {
    name: String,
    upstreams: Vec<UpstreamWire>,
    #[serde(default)]
    protocol: ProtocolWire,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    check: Option<CheckWire>,
}

#[derive(Deserialize, Serialize)]
struct CheckWire {
    #[serde(default)]
    http: Option<String>,
    interval_ms: u64,
    timeout_ms: u64,
}

#[derive(Deserialize, Serialize)]
struct UpstreamWire {
    host: String,
    port: u16,
    #[serde(default = "usual_weight", skip_serializing_if = "is_usual")]
    weight: u16,
}

fn usual_weight() -> u16 {
    1
}

fn is_usual(weight: &u16) -> bool {
    *weight == usual_weight()
}

impl TryFrom<UpstreamWire> for Upstream {
    type Error = DecodeError;

    fn try_from(wire: UpstreamWire) -> Result<Self, DecodeError> {
        let weight =
            NonZeroU16::new(wire.weight).filter(|weight| weight.get() <= Self::MOST_WEIGHT);
        Ok(Self {
            host: wire.host,
            port: wire.port,
            weight: weight.ok_or_else(|| DecodeError::Field {
                field: "weight",
                value: wire.weight.to_string(),
            })?,
        })
    }
}

impl TryFrom<ServiceWire> for ServiceRecord {
    type Error = DecodeError;

    fn try_from(wire: ServiceWire) -> Result<Self, DecodeError> {
        let upstreams = wire.upstreams.into_iter().map(Upstream::try_from);
        Ok(Self {
            name: wire.name,
            upstreams: upstreams.collect::<Result<_, _>>()?,
            protocol: wire.protocol.into(),
            tags: wire.tags,
            check: wire.check.map(|check| CheckRecord {
                http: check.http,
                interval: Duration::from_millis(check.interval_ms),
                timeout: Duration::from_millis(check.timeout_ms),
            }),
        })
    }
}

impl From<&ServiceRecord> for ServiceWire {
    fn from(record: &ServiceRecord) -> Self {
        let upstream = |upstream: &Upstream| UpstreamWire {
            host: upstream.host.clone(),
            port: upstream.port,
            weight: upstream.weight.get(),
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: record.name.clone(),
            upstreams: record.upstreams.iter().map(upstream).collect(),
            protocol: record.protocol.into(),
            tags: record.tags.clone(),
            check: record.check.as_ref().map(|check| CheckWire {
                http: check.http.clone(),
                interval_ms: millis(check.interval),
                timeout_ms: millis(check.timeout),
            }),
        }
    }
}

impl Record for ServiceRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        parse::<ServiceWire>(value)?.try_into()
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(&ServiceWire::from(self))
    }
}

#[derive(Deserialize, Serialize)]
struct ServiceHealthWire {
    name: String,
    node: String,
    places: BTreeMap<String, String>,
}

impl Record for ServiceHealthRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let ServiceHealthWire { name, node, places } = parse(value)?;
        Ok(Self { name, node, places })
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(&ServiceHealthWire {
            name: self.name.clone(),
            node: self.node.clone(),
            places: self.places.clone(),
        })
    }
}

#[derive(Deserialize, Serialize)]
struct ImportWire {
    node: String,
    peer: String,
    service: ServiceWire,
}

impl Record for ImportRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let ImportWire {
            node,
            peer,
            service,
        } = parse(value)?;
        Ok(Self {
            node,
            peer,
            service: service.try_into()?,
        })
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(&ImportWire {
            node: self.node.clone(),
            peer: self.peer.clone(),
            service: (&self.service).into(),
        })
    }
}
