//! Choosing a network's VNI and subnet from what is free.

use std::collections::BTreeMap;

use ipnetwork::Ipv4Network;

use super::{CreateNetworkError, NetworkRequest};
use crate::claim::ClaimRecord;
use crate::subnets::{block_prefix, first_free, overlapping};

/// The first VNI handed out; lower ones are left to those who choose their own.
const FIRST_VNI: u32 = 4096;
pub(super) const LAST_VNI: u32 = (1 << 24) - 1;

/// What is claimed by networks as of one revision.
pub(super) struct Claims {
    pub(super) revision: i64,
    pub(super) name: Option<ClaimRecord>,
    pub(super) vnis: BTreeMap<u32, ClaimRecord>,
    pub(super) subnets: Vec<(Ipv4Network, ClaimRecord)>,
}

/// The VNI and subnet of the request, or the first free ones.
pub(super) fn choose(
    request: &NetworkRequest,
    claims: &Claims,
) -> Result<(u32, Ipv4Network), CreateNetworkError> {
    if let Some(claim) = &claims.name {
        let (name, id) = (request.name.clone(), claim.network.clone());
        return Err(CreateNetworkError::NameTaken { name, id });
    }
    let subnet = match request.subnet {
        Some(subnet) => check_subnet(subnet, request, claims)?,
        None => {
            let mut taken: Vec<_> = claims.subnets.iter().map(|(subnet, _)| *subnet).collect();
            taken.extend(&request.avoid);
            first_free(&request.pools, &taken).ok_or(CreateNetworkError::PoolsExhausted)?
        }
    };
    block_prefix(subnet)?;
    let vni = match request.vni {
        Some(vni) => match claims.vnis.get(&vni) {
            Some(claim) => {
                let network = claim.name.clone();
                return Err(CreateNetworkError::VniTaken { vni, network });
            }
            None => vni,
        },
        None => {
            let free = (FIRST_VNI..=LAST_VNI).find(|vni| !claims.vnis.contains_key(vni));
            free.ok_or(CreateNetworkError::VnisExhausted)?
        }
    };
    Ok((vni, subnet))
}

fn check_subnet(
    subnet: Ipv4Network,
    request: &NetworkRequest,
    claims: &Claims,
) -> Result<Ipv4Network, CreateNetworkError> {
    let overlaps = |(other, _): &&(Ipv4Network, ClaimRecord)| subnet.overlaps(*other);
    if let Some((with, claim)) = claims.subnets.iter().find(overlaps) {
        let (with, network) = (*with, claim.name.clone());
        return Err(CreateNetworkError::SubnetOverlaps {
            subnet,
            with,
            network,
        });
    }
    if let Some(with) = overlapping(subnet, &request.avoid) {
        return Err(CreateNetworkError::SubnetRouted { subnet, with });
    }
    // A key spells a subnet without host bits: 10.1.2.3/16 is 10.1.0.0/16.
    Ok(Ipv4Network::new(subnet.network(), subnet.prefix()).unwrap_or(subnet))
}
