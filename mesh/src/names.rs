//! What a mesh, its members and its authority are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// A mesh: 16 hexadecimal digits, by chance.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct MeshId([u8; 8]);

/// A host in a mesh: 32 hexadecimal digits, by chance.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// Not the identifier of a host.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a node id: expected 32 digits of 0-9 and a-f")]
pub struct NotANodeId(String);

/// Not the identifier of a mesh.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a mesh id: expected 16 digits of 0-9 and a-f")]
pub struct NotAMeshId(String);

impl MeshId {
    pub(crate) fn generate() -> Self {
        Self(crate::key::random())
    }

    /// The identity in a member's certificate.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> String {
        format!("spiffe://{self}/node/{node}")
    }

    /// The identity of all members.
    #[must_use]
    pub fn members(&self) -> String {
        format!("spiffe://{self}/node/*")
    }

    /// The identity in the certificate of who may use the API of all hosts.
    pub(crate) fn operator(&self, name: &str) -> String {
        format!("spiffe://{self}/operator/{name}")
    }

    /// The identity of all of them.
    #[must_use]
    pub fn operators(&self) -> String {
        format!("spiffe://{self}/operator/*")
    }

    /// The identity of who admits hosts, which no member's certificate has.
    pub(crate) fn authority(&self) -> String {
        format!("spiffe://{self}/authority/join")
    }

    /// 32 hexadecimal digits that stand for `text`, and say nothing of it to who does not know the mesh's id.
    #[must_use]
    pub fn stand_in(&self, text: &str) -> String {
        let hash = Sha256::new().chain_update(self.0).chain_update(text);
        hex::encode(&hash.finalize()[..16])
    }

    /// The host of a member's [identity](Self::member).
    #[must_use]
    pub fn node_of(&self, identity: &str) -> Option<NodeId> {
        let node = identity.strip_prefix("spiffe://")?;
        let node = node.strip_prefix(&self.to_string())?;
        node.strip_prefix("/node/")?.parse().ok()
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for MeshId {
    type Err = NotAMeshId;

    fn from_str(text: &str) -> Result<Self, NotAMeshId> {
        let bytes = hex::decode_array(text);
        bytes.map(Self).ok_or_else(|| NotAMeshId(start_of(text)))
    }
}

impl TryFrom<String> for MeshId {
    type Error = NotAMeshId;

    fn try_from(text: String) -> Result<Self, NotAMeshId> {
        text.parse()
    }
}

impl From<MeshId> for String {
    fn from(mesh: MeshId) -> Self {
        mesh.to_string()
    }
}

impl NodeId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = NotANodeId;

    fn from_str(text: &str) -> Result<Self, NotANodeId> {
        match hex::decode_array::<16>(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(NotANodeId(start_of(text))),
        }
    }
}

impl TryFrom<String> for NodeId {
    type Error = NotANodeId;

    fn try_from(text: String) -> Result<Self, NotANodeId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.0
    }
}

/// As much of a wrong input as is shown.
fn start_of(text: &str) -> String {
    text.chars().take(64).collect()
}
