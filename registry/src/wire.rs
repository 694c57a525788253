//! Records as JSON values, the one place that knows how they are written.
//!
//! Each value has `"v": 1`. Fields this version does not know are kept when a value is rewritten, so an
//! older daemon does not undo what a newer one wrote.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{
    AddressingV6, BlockRecord, FallbackRecord, LinksRecord, MachineRecord, NetworkRecord,
    NodeRecord, PeekRecord, WireguardRecord,
};

const VERSION: u64 = 1;

/// Why a value was set aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// It is not a JSON object of the right shape.
    #[error("not a valid record")]
    Json(#[from] serde_json::Error),
    /// It lacks a version, or is of another one.
    #[error("version {found} is not {VERSION}, the one this daemon reads")]
    Version {
        /// The `v` field as JSON.
        found: Value,
    },
    /// A field has a value the record cannot have.
    #[error("field {field} has the value {value:?}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it held.
        value: String,
    },
}

/// A record with a wire form.
pub(crate) trait Record: Sized {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong; the caller sets the value aside and carries on.
    fn decode(value: &[u8]) -> Result<Self, DecodeError>;

    /// The record's own fields.
    fn fields(&self) -> Map<String, Value>;

    /// The record as JSON, with those fields of `previous` that this version does not know.
    fn encode(&self, previous: Option<&[u8]>) -> Vec<u8> {
        let mut object = Map::new();
        object.insert("v".to_owned(), VERSION.into());
        object.extend(self.fields());
        let previous = previous.and_then(|bytes| serde_json::from_slice(bytes).ok());
        if let Some(Value::Object(previous)) = previous {
            for (field, value) in previous {
                object.entry(field).or_insert(value);
            }
        }
        Value::Object(object).to_string().into_bytes()
    }
}

pub(crate) fn parse<'de, W: Deserialize<'de>>(value: &'de [u8]) -> Result<W, DecodeError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        v: Value,
    }
    let Versioned { v } = serde_json::from_slice(value)?;
    if v.as_u64() != Some(VERSION) {
        return Err(DecodeError::Version { found: v });
    }
    Ok(serde_json::from_slice(value)?)
}

pub(crate) fn fields_of<W: Serialize>(wire: &W) -> Map<String, Value> {
    match serde_json::to_value(wire) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("wire structs are JSON objects with string keys: {other:?}"),
    }
}

/// Refuses a network with host bits set, so that each has one spelling and one key.
fn check_canonical(field: &'static str, cidr: IpNetwork) -> Result<(), DecodeError> {
    if cidr.ip() == cidr.network() {
        Ok(())
    } else {
        let value = cidr.to_string();
        Err(DecodeError::Field { field, value })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut octets = text.split(':');
    let mut mac = [0; 6];
    for octet in &mut mac {
        let digits = octets.next().filter(|digits| digits.len() == 2)?;
        *octet = u8::from_str_radix(digits, 16).ok()?;
    }
    octets.next().is_none().then_some(mac)
}

#[derive(Deserialize, Serialize)]
struct NodeWire {
    id: String,
    name: String,
    address: IpAddr,
    mac: String,
    port: u16,
    incarnation: u64,
    #[serde(default)]
    wireguard: Option<WireguardWire>,
    #[serde(default)]
    fallback: Option<FallbackWire>,
    #[serde(default)]
    links: Option<LinksWire>,
    #[serde(default)]
    machine: Option<MachineRecord>,
    peek: Option<PeekWire>,
}

#[derive(Deserialize, Serialize)]
struct PeekWire {
    port: u16,
    #[serde(default)]
    plain: bool,
}

#[derive(Deserialize, Serialize)]
struct LinksWire {
    port: u16,
    #[serde(default)]
    plain: bool,
}

#[derive(Deserialize, Serialize)]
struct WireguardWire {
    port: u16,
    keys: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct FallbackWire {
    port: u16,
    key: String,
    #[serde(default)]
    former: Option<String>,
}

impl Record for NodeRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let wire: NodeWire = parse(value)?;
        let Some(mac) = parse_mac(&wire.mac) else {
            return Err(DecodeError::Field {
                field: "mac",
                value: wire.mac,
            });
        };
        let NodeWire {
            id,
            name,
            address,
            port,
            incarnation,
            wireguard,
            fallback,
            links,
            peek,
            machine,
            ..
        } = wire;
        let wireguard =
            wireguard.map(|WireguardWire { port, keys }| WireguardRecord { port, keys });
        let fallback = fallback.map(|wire| FallbackRecord {
            port: wire.port,
            key: wire.key,
            former: wire.former,
        });
        let links = links.map(|LinksWire { port, plain }| LinksRecord { port, plain });
        let peek = peek.map(|PeekWire { port, plain }| PeekRecord { port, plain });
        Ok(Self {
            id,
            name,
            address,
            mac,
            port,
            incarnation,
            wireguard,
            fallback,
            links,
            peek,
            machine,
        })
    }

    fn fields(&self) -> Map<String, Value> {
        let [a, b, c, d, e, f] = self.mac;
        fields_of(&NodeWire {
            id: self.id.clone(),
            name: self.name.clone(),
            address: self.address,
            mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            port: self.port,
            incarnation: self.incarnation,
            wireguard: self.wireguard.as_ref().map(|record| WireguardWire {
                port: record.port,
                keys: record.keys.clone(),
            }),
            fallback: self.fallback.as_ref().map(|record| FallbackWire {
                port: record.port,
                key: record.key.clone(),
                former: record.former.clone(),
            }),
            links: self.links.as_ref().map(|record| LinksWire {
                port: record.port,
                plain: record.plain,
            }),
            peek: self.peek.as_ref().map(|record| PeekWire {
                port: record.port,
                plain: record.plain,
            }),
            machine: self.machine.clone(),
        })
    }
}

#[derive(Deserialize, Serialize)]
struct NetworkWire {
    id: String,
    name: String,
    driver: String,
    vni: u32,
    subnet: Ipv4Network,
    #[serde(default)]
    subnet_v6: Option<Ipv6Network>,
    #[serde(default)]
    range: Option<Ipv4Network>,
    #[serde(default)]
    gateway: Option<Ipv4Addr>,
    #[serde(default)]
    reserved: BTreeMap<String, Ipv4Addr>,
    #[serde(default)]
    addressing_v6: AddressingV6,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachable: bool,
    #[serde(default)]
    mtu: Option<u16>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    created: String,
}

impl Record for NetworkRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let wire: NetworkWire = parse(value)?;
        if wire.vni >> 24 != 0 {
            let value = wire.vni.to_string();
            return Err(DecodeError::Field {
                field: "vni",
                value,
            });
        }
        check_canonical("subnet", wire.subnet.into())?;
        if let Some(range) = wire.range {
            check_canonical("range", range.into())?;
        }
        if let Some(subnet) = wire.subnet_v6 {
            check_canonical("subnet_v6", subnet.into())?;
        }
        if let Some(range) = wire.addressing_v6.range {
            check_canonical("addressing_v6.range", range.into())?;
        }
        Ok(Self {
            subnet: wire.subnet,
            subnet_v6: wire.subnet_v6,
            range: wire.range,
            gateway: wire.gateway,
            reserved: wire.reserved,
            addressing_v6: wire.addressing_v6,
            id: wire.id,
            name: wire.name,
            driver: wire.driver,
            vni: wire.vni,
            internal: wire.internal,
            attachable: wire.attachable,
            mtu: wire.mtu,
            options: wire.options,
            labels: wire.labels,
            created: wire.created,
        })
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(&NetworkWire {
            id: self.id.clone(),
            name: self.name.clone(),
            driver: self.driver.clone(),
            vni: self.vni,
            subnet: self.subnet,
            subnet_v6: self.subnet_v6,
            range: self.range,
            gateway: self.gateway,
            reserved: self.reserved.clone(),
            addressing_v6: self.addressing_v6.clone(),
            internal: self.internal,
            attachable: self.attachable,
            mtu: self.mtu,
            options: self.options.clone(),
            labels: self.labels.clone(),
            created: self.created.clone(),
        })
    }
}

#[derive(Deserialize, Serialize)]
struct BlockWire {
    network: String,
    cidr: IpNetwork,
    node: String,
    incarnation: u64,
}

impl Record for BlockRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let BlockWire {
            network,
            cidr,
            node,
            incarnation,
        } = parse(value)?;
        check_canonical("cidr", cidr)?;
        Ok(Self {
            network,
            cidr,
            node,
            incarnation,
        })
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(&BlockWire {
            network: self.network.clone(),
            cidr: self.cidr,
            node: self.node.clone(),
            incarnation: self.incarnation,
        })
    }
}

mod endpoint;
mod service;

#[cfg(test)]
mod tests;
