//! `--network`, short or with options.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `NAME`, or `name=NAME,alias=ALIAS,ip=IP,..`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NetworkFlag {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) link_local: Vec<IpAddr>,
    pub(crate) mac: Option<String>,
    pub(crate) gateway_priority: Option<i64>,
    pub(crate) driver_opts: Vec<(String, String)>,
}

/// Not a network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidNetwork {
    #[error(
        "network name/id is not specified in {0:?}: expected NAME or name=NAME,alias=ALIAS,ip=IP"
    )]
    NoName(String),
    #[error(
        "invalid field key {key} in {text:?}: expected name, alias, ip, ip6, link-local-ip, mac-address, gw-priority or driver-opt"
    )]
    Key { key: String, text: String },
    #[error("invalid value {value:?} of {key} in {text:?}")]
    Value {
        key: String,
        value: String,
        text: String,
    },
}

impl FromStr for NetworkFlag {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        if !text.contains('=') {
            return match text {
                "" => Err(InvalidNetwork::NoName(text.to_owned())),
                name => Ok(Self {
                    name: name.to_owned(),
                    ..Self::default()
                }),
            };
        }
        let mut network = Self::default();
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            let wrong = || InvalidNetwork::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                text: text.to_owned(),
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "name" => network.name = value.to_owned(),
                "alias" => network.aliases.push(value.to_owned()),
                "ip" => network.ip = Some(value.parse().map_err(|_| wrong())?),
                "ip6" => network.ip6 = Some(value.parse().map_err(|_| wrong())?),
                "link-local-ip" => network.link_local.push(value.parse().map_err(|_| wrong())?),
                "mac-address" => network.mac = Some(value.to_owned()),
                "gw-priority" => {
                    network.gateway_priority = Some(value.parse().map_err(|_| wrong())?);
                }
                "driver-opt" => {
                    let (key, value) = value.split_once('=').ok_or_else(wrong)?;
                    network.driver_opts.push((key.to_owned(), value.to_owned()));
                }
                _ => {
                    return Err(InvalidNetwork::Key {
                        key: key.to_owned(),
                        text: text.to_owned(),
                    });
                }
            }
        }
        if network.name.is_empty() {
            return Err(InvalidNetwork::NoName(text.to_owned()));
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let plain: NetworkFlag = "mesh".parse().expect("a name");
        assert_eq!(plain.name, "mesh");
        let full: NetworkFlag =
            "name=mesh,alias=a,alias=b,ip=10.0.0.9,driver-opt=k=v,gw-priority=7"
                .parse()
                .expect("options");
        assert_eq!(full.aliases, ["a", "b"]);
        assert_eq!(full.gateway_priority, Some(7));
        assert_eq!(full.ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(full.driver_opts, [("k".to_owned(), "v".to_owned())]);
        for wrong in ["", "alias=a", "name=a,ip=x", "name=a,foo=b", "name="] {
            assert!(wrong.parse::<NetworkFlag>().is_err(), "{wrong:?}");
        }
    }
}
