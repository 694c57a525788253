//! Claiming each host's share of a network's subnet.

use etcd_client::{Compare, CompareOp, TxnOp};
use ipnetwork::IpNetwork;

use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::keys::{BLOCKS, Key};
use crate::model::{BlockRecord, NetworkRecord};
use crate::nodes::ATTEMPTS;
use crate::subnets::{SubnetTooSmall, block_prefix, overlapping, split};
use crate::wire::Record;

/// Why no block could be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimBlockError {
    /// All blocks are taken or must be avoided.
    #[error("subnet {subnet} of network {network} has no free block left for this host")]
    Exhausted {
        /// Name of the network.
        network: String,
        /// Its subnet.
        subnet: IpNetwork,
    },
    /// The network was removed.
    #[error("network {0} no longer exists")]
    NetworkGone(String),
    /// The subnet cannot be shared among hosts.
    #[error(transparent)]
    SubnetTooSmall(#[from] SubnetTooSmall),
    /// Others kept claiming in between.
    #[error("claim a block of network {0}: too many others claim at once")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a block was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseBlockError {
    /// The block is not, or no longer, this owner's in this incarnation.
    #[error("block {cidr} is not held by node {node} in incarnation {incarnation}")]
    NotHeld {
        /// The block.
        cidr: IpNetwork,
        /// Who was to release it.
        node: String,
        /// And in which incarnation.
        incarnation: u64,
    },
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Registry {
    /// The blocks a node holds in a network, lowest first. Ask this before claiming another one: a block
    /// outlives the daemon that claimed it.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn blocks_of(
        &self,
        network: &str,
        node: &str,
    ) -> Result<Vec<BlockRecord>, CallError> {
        let mut blocks = self.blocks_in(network).await?;
        blocks.retain(|block| block.node == node);
        blocks.sort_by_key(|block| block.cidr);
        Ok(blocks)
    }

    /// Claims the first free block of `subnet`, which is one of `network`'s, or of the network's range in it. It overlaps
    /// none of `avoid`, and no reserved address is its first, which is the host's.
    ///
    /// # Errors
    ///
    /// [`ClaimBlockError::Exhausted`] if none is left.
    pub async fn claim_block(
        &self,
        network: &NetworkRecord,
        subnet: IpNetwork,
        node: &str,
        incarnation: u64,
        avoid: &[IpNetwork],
    ) -> Result<BlockRecord, ClaimBlockError> {
        let range = network.range(subnet.is_ipv6()).unwrap_or(subnet);
        let prefix = block_prefix(range)?;
        let is_kept_back = |block: &IpNetwork| {
            let first = block.iter().nth(1);
            network
                .reserved()
                .any(|(_, address)| Some(address) == first)
        };
        let network_key = Key::Network(network.id.clone()).to_string();
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let seen = self.place().seen();
            let mut taken = self.claimed(&network.id).await?;
            taken.extend(avoid);
            let free = split(range, prefix)
                .filter(|block| !is_kept_back(block))
                .find(|&cidr| overlapping(cidr, &taken).is_none());
            let Some(cidr) = free else {
                let (network, subnet) = (network.name.clone(), range);
                return Err(ClaimBlockError::Exhausted { network, subnet });
            };
            let (id, node) = (network.id.clone(), node.to_owned());
            let block = BlockRecord {
                network: id,
                cidr,
                node,
                incarnation,
            };
            let key = block_key(&block);
            let when = vec![
                Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                Compare::version(network_key.clone(), CompareOp::Greater, 0),
            ];
            let put = TxnOp::put(key, block.encode(None), None);
            let done = self.txn_as_of(&seen, "claim block", when, vec![put]);
            if done.await?.succeeded {
                return Ok(block);
            }
            if self
                .entry("look up network", network_key.clone())
                .await?
                .is_none()
            {
                return Err(ClaimBlockError::NetworkGone(network.name.clone()));
            }
            backoff.wait().await;
        }
        Err(ClaimBlockError::Contended(network.name.clone()))
    }

    /// Gives a block back, if it is still held as `block` says: same owner, same incarnation.
    ///
    /// # Errors
    ///
    /// [`ReleaseBlockError::NotHeld`] if it is not; nothing is changed then.
    pub async fn release_block(&self, block: &BlockRecord) -> Result<(), ReleaseBlockError> {
        const OPERATION: &str = "release block";
        let key = block_key(block);
        let not_held = || ReleaseBlockError::NotHeld {
            cidr: block.cidr,
            node: block.node.clone(),
            incarnation: block.incarnation,
        };
        let seen = self.place().seen();
        let entry = self
            .entry(OPERATION, key.clone())
            .await?
            .ok_or_else(not_held)?;
        if BlockRecord::decode(&entry.value).ok().as_ref() != Some(block) {
            return Err(not_held());
        }
        let when = vec![Compare::mod_revision(
            key.clone(),
            CompareOp::Equal,
            entry.modified,
        )];
        let delete = TxnOp::delete(key, None);
        let done = self.txn_as_of(&seen, OPERATION, when, vec![delete]);
        if done.await?.succeeded {
            Ok(())
        } else {
            Err(not_held())
        }
    }

    async fn blocks_in(&self, network: &str) -> Result<Vec<BlockRecord>, CallError> {
        self.records("list blocks", &format!("{BLOCKS}{network}/"))
            .await
    }

    /// The blocks of a network by their keys, so that those with unreadable values count too.
    async fn claimed(&self, network: &str) -> Result<Vec<IpNetwork>, CallError> {
        let listing = self
            .list("list blocks", &format!("{BLOCKS}{network}/"))
            .await?;
        let cidr = |entry: crate::client::Entry| match Key::parse(&entry.key) {
            Some(Key::Block { cidr, .. }) => Some(cidr),
            _ => None,
        };
        Ok(listing.entries.into_iter().filter_map(cidr).collect())
    }
}

fn block_key(block: &BlockRecord) -> String {
    let (network, cidr) = (block.network.clone(), block.cidr);
    Key::Block { network, cidr }.to_string()
}
