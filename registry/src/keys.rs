//! Where each record lies under `/nuncio/v1/`.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::desired::DesiredKind;

/// Everything the mesh keeps is under this prefix.
pub(crate) const ROOT: &str = "/nuncio/v1/";
pub(crate) const NODES: &str = "/nuncio/v1/nodes/";
pub(crate) const ALIVE: &str = "/nuncio/v1/alive/";
pub(crate) const NETWORKS: &str = "/nuncio/v1/networks/";
pub(crate) const NETWORK_NAMES: &str = "/nuncio/v1/network-names/";
pub(crate) const VNIS: &str = "/nuncio/v1/vni/";
pub(crate) const SUBNETS: &str = "/nuncio/v1/subnets/";
pub(crate) const BLOCKS: &str = "/nuncio/v1/blocks/";
pub(crate) const ENDPOINTS: &str = "/nuncio/v1/endpoints/";
pub(crate) const SERVICES: &str = "/nuncio/v1/services/";
pub(crate) const LEADER: &str = "/nuncio/v1/leader";
pub(crate) const DESIRED: &str = "/nuncio/v1/desired/";
pub(crate) const DESIRED_NAMES: &str = "/nuncio/v1/desired/names/";
pub(crate) const TASKS: &str = "/nuncio/v1/tasks/";
pub(crate) const TASK_STATUS: &str = "/nuncio/v1/task-status/";
pub(crate) const ACKS: &str = "/nuncio/v1/ack/";
pub(crate) const ASKS: &str = "/nuncio/v1/asks/";
pub(crate) const ANSWERS: &str = "/nuncio/v1/answers/";

/// A key this version of the model reads.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    Node(String),
    Alive(String),
    Network(String),
    Block { network: String, cidr: IpNetwork },
    Endpoint { network: String, id: String },
    Service(String),
    ServiceHealth(String),
    Import { service: String, node: String },
    Leader,
    Desired(DesiredKind, String),
    Task(String),
    TaskStatus { node: String, task: String },
    Ack(String),
}

impl Key {
    /// The key's meaning, or `None` for one that only transactions or other versions read.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        if key == LEADER {
            return Some(Self::Leader);
        }
        let (kind, rest) = key.strip_prefix(ROOT)?.split_once('/')?;
        let single = || (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned());
        let pair = || {
            let (first, second) = rest.split_once('/')?;
            (!first.is_empty() && !second.is_empty()).then_some((first, second))
        };
        match kind {
            "nodes" => single().map(Self::Node),
            "alive" => single().map(Self::Alive),
            "networks" => single().map(Self::Network),
            "blocks" => {
                let (network, cidr) = pair()?;
                let (network, cidr) = (network.to_owned(), cidr.parse().ok()?);
                Some(Self::Block { network, cidr })
            }
            "desired" => {
                let (kind, id) = pair()?;
                let kind = kind.parse().ok()?;
                (!id.contains('/')).then(|| Self::Desired(kind, id.to_owned()))
            }
            "tasks" => single().map(Self::Task),
            "task-status" => {
                let (node, task) = pair()?;
                let (node, task) = (node.to_owned(), task.to_owned());
                (!task.contains('/')).then_some(Self::TaskStatus { node, task })
            }
            "ack" => match pair()? {
                (node, "tasks") => Some(Self::Ack(node.to_owned())),
                _ => None,
            },
            "endpoints" => {
                let (network, id) = pair()?;
                let (network, id) = (network.to_owned(), id.to_owned());
                (!id.contains('/')).then_some(Self::Endpoint { network, id })
            }
            "services" => match pair()? {
                (name, "external") => Some(Self::Service(name.to_owned())),
                (name, "health") => Some(Self::ServiceHealth(name.to_owned())),
                (name, rest) => {
                    let node = rest.strip_prefix("imported/")?;
                    let (service, node) = (name.to_owned(), node.to_owned());
                    let is_node = !node.is_empty() && !node.contains('/');
                    is_node.then_some(Self::Import { service, node })
                }
            },
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "{NODES}{id}"),
            Self::Alive(id) => write!(f, "{ALIVE}{id}"),
            Self::Network(id) => write!(f, "{NETWORKS}{id}"),
            Self::Block { network, cidr } => write!(f, "{BLOCKS}{network}/{cidr}"),
            Self::Endpoint { network, id } => write!(f, "{ENDPOINTS}{network}/{id}"),
            Self::Service(name) => write!(f, "{SERVICES}{name}/external"),
            Self::ServiceHealth(name) => write!(f, "{SERVICES}{name}/health"),
            Self::Import { service, node } => write!(f, "{SERVICES}{service}/imported/{node}"),
            Self::Leader => f.write_str(LEADER),
            Self::Desired(kind, id) => write!(f, "{DESIRED}{kind}/{id}"),
            Self::Task(id) => write!(f, "{TASKS}{id}"),
            Self::TaskStatus { node, task } => write!(f, "{TASK_STATUS}{node}/{task}"),
            Self::Ack(node) => write!(f, "{ACKS}{node}/tasks"),
        }
    }
}

/// A record's part of a key: not empty, no slash, nothing unprintable, at most 255 bytes.
///
/// # Errors
///
/// [`BadName`] carries what was given.
pub(crate) fn check_name(name: &str) -> Result<(), BadName> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '/';
    if !name.is_empty() && name.len() <= 255 && name.chars().all(plain) {
        Ok(())
    } else {
        Err(BadName(name.to_owned()))
    }
}

/// A name that cannot be part of a key.
#[derive(Clone, Debug, thiserror::Error)]
#[error("name {0:?} is not 1 to 255 bytes without slashes, blanks and control characters")]
pub struct BadName(pub String);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::net::IpAddr;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_parses_or_not_but_never_panics(text in "\\PC*") {
            let _ = Key::parse(&text);
            let _ = Key::parse(&format!("{ROOT}{text}"));
        }

        #[test]
        fn display_and_parse_agree(a in "[a-z0-9._-]{1,20}", b in "[a-z0-9._-]{1,20}", bits: u128, prefix in 0u8..=128, v4: bool) {
            let address = match v4 {
                true => IpAddr::from((bits as u32).to_be_bytes()),
                false => IpAddr::from(bits.to_be_bytes()),
            };
            let prefix = if v4 { prefix.min(32) } else { prefix };
            let cidr = IpNetwork::new(address, prefix).unwrap();
            let cidr = IpNetwork::new(cidr.network(), prefix).unwrap();
            for key in [
                Key::Node(a.clone()),
                Key::Alive(a.clone()),
                Key::Network(a.clone()),
                Key::Block { network: a.clone(), cidr },
                Key::Endpoint { network: a.clone(), id: b.clone() },
                Key::Service(a.clone()),
                Key::ServiceHealth(a.clone()),
                Key::Import { service: a.clone(), node: b.clone() },
                Key::Leader,
                Key::Desired(DesiredKind::Service, a.clone()),
                Key::Task(a.clone()),
                Key::TaskStatus { node: a.clone(), task: b.clone() },
                Key::Ack(a.clone()),
            ] {
                prop_assert_eq!(Key::parse(&key.to_string()), Some(key));
            }
        }
    }

    #[test]
    fn names_that_would_leave_their_key_are_refused() {
        assert!(check_name("db-1").is_ok());
        for bad in ["", "a/b", "a b", "a\n", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
