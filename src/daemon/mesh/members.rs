//! Tokens and members, as far as this host decides on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nuncio_mesh::{Authority, CertifyError, NodeError, OperatorPapers, TokenEntry, TokenRefusal};

use super::super::Daemon;
use super::super::refusal::Refusal;

/// A token, and where it is good.
pub(crate) struct NewToken {
    pub(crate) token: String,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Makes a token that lets in `uses` hosts within `ttl` (`None`: any number, and for ever), in place of all others if
    /// `rotate`.
    pub(crate) fn create_token(
        &self,
        ttl: Option<Duration>,
        uses: Option<u32>,
        rotate: bool,
    ) -> anyhow::Result<NewToken> {
        let (authority, address) = self.authority()?;
        let made = if rotate {
            authority.rotate_tokens(ttl, uses)
        } else {
            authority.create_token(ttl, uses)
        };
        let made = made.map_err(token_refusal)?;
        tracing::info!(token = made.id(), ?ttl, ?uses, rotate, "a new join token");
        let token = made.reveal();
        Ok(NewToken { token, address })
    }

    pub(crate) fn tokens(&self) -> anyhow::Result<Vec<TokenEntry>> {
        Ok(self.authority()?.0.tokens())
    }

    pub(crate) fn remove_token(&self, id: &str) -> anyhow::Result<()> {
        self.authority()?
            .0
            .remove_token(id)
            .map_err(token_refusal)?;
        tracing::info!(token = id, "a join token is removed");
        Ok(())
    }

    /// Makes a certificate for an operator, for a public key.
    pub(crate) fn certify(
        &self,
        name: &str,
        key: &str,
        lifetime: Duration,
    ) -> anyhow::Result<OperatorPapers> {
        /// One that was stolen is good until it expires.
        const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
        let (authority, _) = self.authority()?;
        if !(Duration::from_secs(1)..=LONGEST).contains(&lifetime) {
            let message = format!("{lifetime:?}: expected a certificate's life of 1s to 8784h");
            return Err(Refusal::invalid(message).into());
        }
        let papers = authority.certify(name, key, lifetime);
        let papers = papers.map_err(|error| match error {
            CertifyError::Authority(error) => error.into(),
            refused => anyhow::Error::from(Refusal::invalid(refused.to_string())),
        })?;
        tracing::info!(
            name,
            expires = papers.expires,
            "a certificate for an operator"
        );
        Ok(papers)
    }

    /// Cuts a host off and forgets it, by its id, the beginning of it, or its name; its id.
    pub(crate) async fn remove_node(&self, wanted: &str) -> anyhow::Result<String> {
        let (authority, _) = self.authority()?;
        // A host may have changed its name since it joined.
        let nodes = self.nodes();
        let mut named = nodes.iter().filter(|node| node.name == wanted);
        let wanted = match (named.next(), named.next()) {
            (Some(node), None) => &node.id,
            _ => wanted,
        };
        let node = match authority.remove_member(wanted) {
            Ok(node) => node.to_string(),
            // The registry did not answer when it was removed, or it was there before there was a mesh.
            Err(NodeError::NotFound(_)) if nodes.iter().any(|node| node.id == *wanted) => {
                wanted.to_owned()
            }
            Err(error) => return Err(node_refusal(error)),
        };
        tracing::info!(node, "a node is removed from the mesh");
        let forgotten = self.registry.remove_node(&node).await;
        forgotten.with_context(|| {
            format!("node {node} is cut off, but its records are still there: try again")
        })?;
        Ok(node)
    }

    fn authority(&self) -> Result<(&Arc<Authority>, SocketAddr), Refusal> {
        let mesh = self.mesh.as_ref().ok_or_else(|| {
            Refusal::conflict(
                "This node is not part of a mesh. Use \"nuncio init\" or \"nuncio join\" to connect this node to one and try again.",
            )
        })?;
        let authority = mesh.authority.as_ref().ok_or_else(|| {
            let manager = &mesh.membership.manager;
            Refusal::conflict(format!(
                "This node is not the mesh's manager. Please run this command on node {manager}."
            ))
        })?;
        Ok((authority, mesh.membership.registry))
    }
}

fn token_refusal(error: TokenRefusal) -> anyhow::Error {
    match error {
        TokenRefusal::NotFound(_) => Refusal::not_found(error.to_string()).into(),
        TokenRefusal::TooMany(_) => Refusal::conflict(error.to_string()).into(),
        TokenRefusal::Authority(error) => error.into(),
    }
}

fn node_refusal(error: NodeError) -> anyhow::Error {
    match error {
        NodeError::NotFound(_) => Refusal::not_found(error.to_string()).into(),
        NodeError::Ambiguous(..) => Refusal::invalid(error.to_string()).into(),
        NodeError::Manager(_) => Refusal::conflict(error.to_string()).into(),
        NodeError::Authority(error) => error.into(),
    }
}
