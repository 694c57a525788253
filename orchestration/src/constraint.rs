//! Placement constraints, by Docker's grammar and with Swarm's meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Node;

/// What a host must, or must not be, to be given a task: `node.labels.disk==ssd`.
///
/// It is written and read as one string.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    key: String,
    attribute: Attribute,
    operator: Operator,
    value: String,
}

/// How a constraint compares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// Why a constraint was refused, in Docker's words.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConstraintError {
    /// There is neither `==` nor `!=`.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// The key has other characters than letters, digits, `-`, `_` and `.`, begins with another than a letter or `_`, or is
    /// shorter than two.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The value is empty or has characters that none may have.
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// What of a host is compared.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Attribute {
    Id,
    HostName,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// Of a key that nobody knows: no host meets it, whatever the operator.
    Unknown,
}

impl Constraint {
    /// Parses `KEY==VALUE` or `KEY!=VALUE`. Blanks around either part are dropped.
    ///
    /// # Errors
    ///
    /// Docker's words, if it is of another form. As with Docker a key that nobody knows is none: no host meets it.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        // Docker looks for == anywhere before it looks for != at all.
        let (key, operator, value) = if let Some((key, value)) = text.split_once("==") {
            (key, Operator::Equal, value)
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotEqual, value)
        } else {
            return Err(ConstraintError::Operator);
        };
        let (key, value) = (key.trim(), value.trim());
        if !valid_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if value.is_empty() || !value.chars().all(valid_in_value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            attribute: Attribute::of(key),
            operator,
            value: value.to_owned(),
        })
    }

    /// The key as it was written.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether the host meets it. Case makes no difference, but in the names of labels; a label that a host lacks is empty.
    #[must_use]
    pub fn met_by(&self, node: &Node) -> bool {
        let equal = match &self.attribute {
            Attribute::Id => same(&node.id, &self.value),
            Attribute::HostName => same(&node.name, &self.value),
            Attribute::Ip => match covers(&self.value, node.address) {
                Some(covered) => covered,
                None => return false,
            },
            Attribute::Role => same(role(node), &self.value),
            Attribute::Os => same(&node.os, &self.value),
            Attribute::Arch => same(canonical_arch(&node.arch), canonical_arch(&self.value)),
            Attribute::NodeLabel(label) => same(label_of(&node.labels, label), &self.value),
            Attribute::EngineLabel(label) => {
                same(label_of(&node.engine_labels, label), &self.value)
            }
            Attribute::Unknown => return false,
        };
        equal == (self.operator == Operator::Equal)
    }
}

impl Attribute {
    fn of(key: &str) -> Self {
        let after = |prefix: &str| {
            let head = key.get(..prefix.len())?;
            let rest = &key[prefix.len()..];
            (same(head, prefix) && !rest.is_empty()).then(|| rest.to_owned())
        };
        if let Some(label) = after("node.labels.") {
            return Self::NodeLabel(label);
        }
        if let Some(label) = after("engine.labels.") {
            return Self::EngineLabel(label);
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::HostName,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{}{operator}{}", self.key, self.value)
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        Self::parse(&text)
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> Self {
        constraint.to_string()
    }
}

/// A label by whose values tasks are spread.
pub(crate) struct SpreadKey(Attribute);

impl SpreadKey {
    /// That of `node.labels.X` or `engine.labels.X`; none, of another key.
    pub(crate) fn of(key: &str) -> Option<Self> {
        let attribute = Attribute::of(key);
        let label = matches!(
            attribute,
            Attribute::NodeLabel(_) | Attribute::EngineLabel(_)
        );
        label.then_some(Self(attribute))
    }

    /// The host's value; empty, if it has none.
    pub(crate) fn value<'a>(&self, node: &'a Node) -> &'a str {
        match &self.0 {
            Attribute::NodeLabel(label) => label_of(&node.labels, label),
            Attribute::EngineLabel(label) => label_of(&node.engine_labels, label),
            _ => "",
        }
    }
}

/// The name that Docker has for an architecture, of those that have two.
pub(crate) fn canonical_arch(arch: &str) -> &str {
    if same(arch, "x86_64") {
        "amd64"
    } else if same(arch, "aarch64") {
        "arm64"
    } else {
        arch
    }
}

fn label_of<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

fn role(node: &Node) -> &'static str {
    if node.role_manager {
        "manager"
    } else {
        "worker"
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && folded(a).eq(folded(b)))
}

fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// `^[a-z_][a-z0-9\-_.]+$`, in either case.
fn valid_key(key: &str) -> bool {
    let mut chars = key.chars();
    let first = chars.next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && key.len() > 1
        && chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// One of `[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]`, in either case.
fn valid_in_value(c: char) -> bool {
    c.is_ascii_alphanumeric() || r":-_.*()?+[]\^$|/".contains(c) || " \t\n\r\x0c".contains(c)
}

/// Whether an address, or a block as `10.1.0.0/16`, has the host's address in it; none, if it is neither.
fn covers(value: &str, address: Option<IpAddr>) -> Option<bool> {
    if let Ok(one) = value.parse::<IpAddr>() {
        return Some(address.is_some_and(|a| a.to_canonical() == one.to_canonical()));
    }
    let (network, length) = value.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let length: u32 = length.parse().ok()?;
    let width = if network.is_ipv4() { 32 } else { 128 };
    if length > width {
        return None;
    }
    let inside = match (network, address.map(|a| a.to_canonical())) {
        (IpAddr::V4(network), Some(IpAddr::V4(a))) => {
            let apart = u32::from(network) ^ u32::from(a);
            apart.checked_shr(width - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), Some(IpAddr::V6(a))) => {
            let apart = u128::from(network) ^ u128::from(a);
            apart.checked_shr(width - length).unwrap_or(0) == 0
        }
        _ => false,
    };
    Some(inside)
}

#[cfg(test)]
mod tests;
