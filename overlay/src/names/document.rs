use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// All that the name server knows, as one JSON document.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamesDocument {
    /// The networks by id.
    #[serde(default)]
    pub zones: BTreeMap<String, Zone>,
    /// Servers that are asked what is in no zone, in this order.
    #[serde(default)]
    pub upstreams: Vec<SocketAddr>,
    /// Domains whose names are looked up as if they stood without them, as `/etc/resolv.conf` appends them.
    #[serde(default)]
    pub search: Vec<String>,
    /// The containers.
    #[serde(default)]
    pub subscribers: Vec<Subscriber>,
}

/// The names of one network.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The network's name: `db` is also `db.<domain>`, and the answer to a reverse query ends in it.
    #[serde(default)]
    pub domain: Option<String>,
    /// Addresses by name, as far as they may be told now. A name without any is known, but has no answer.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// The one name to tell for an address; for others the first in the alphabet is told.
    #[serde(default)]
    pub reverse: BTreeMap<IpAddr, String>,
    /// What is offered at an address: a query for the SRV records of `_PORT._PROTOCOL.NAME` gets those of the
    /// name's addresses that fit.
    #[serde(default)]
    pub offers: BTreeMap<IpAddr, Vec<Offer>>,
    /// Its names are known with the domain behind them alone, that domain is nobody else's, and its addresses have their
    /// names elsewhere.
    #[serde(default)]
    pub qualified: bool,
    /// Its addresses are those of others, who say what they are called.
    #[serde(default)]
    pub foreign: bool,
    /// What is offered under a name: a query for its SRV records gets these, or those of them that fit.
    #[serde(default)]
    pub served: BTreeMap<String, Vec<Served>>,
}

/// A port under a name.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// Where it is.
    pub address: IpAddr,
    /// What is there.
    pub offer: Offer,
}

/// A port that a container offers.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// What SRV queries may call it besides its number, such as `http`.
    #[serde(default)]
    pub name: Option<String>,
    /// Its transport.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// A container that asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Subscriber {
    /// Any text that tells it from others.
    pub id: String,
    /// Its network namespace, where it finds the server at 127.0.0.11.
    pub netns: PathBuf,
    /// Ids of its networks; where two have a name, the first one's answer counts.
    pub networks: Vec<String>,
    /// Names that only it knows, such as those of its links. They come before all others.
    #[serde(default)]
    pub aliases: BTreeMap<String, Vec<IpAddr>>,
    /// Servers that it asks instead of the document's; none: the document's.
    #[serde(default)]
    pub upstreams: Vec<SocketAddr>,
    /// Where else it finds the server. Who is told where asks for qualified names alone, and is refused all others.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Whether it may ask the upstreams; a container of internal networks alone may not.
    #[serde(default = "yes")]
    pub external: bool,
}

fn yes() -> bool {
    true
}
