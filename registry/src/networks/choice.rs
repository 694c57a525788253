//! Choosing a network's VNI and subnet from what is free.

use std::collections::BTreeMap;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

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
    pub(super) subnets: Vec<(IpNetwork, ClaimRecord)>,
}

/// What a network gets.
pub(super) struct Choice {
    pub(super) vni: u32,
    pub(super) subnet: Ipv4Network,
    pub(super) subnet_v6: Option<Ipv6Network>,
}

/// The VNI and subnets of the request, or the first free ones.
pub(super) fn choose(
    request: &NetworkRequest,
    claims: &Claims,
) -> Result<Choice, CreateNetworkError> {
    if let Some(claim) = &claims.name {
        let (name, id) = (request.name.clone(), claim.network.clone());
        return Err(CreateNetworkError::NameTaken { name, id });
    }
    let subnet = match request.subnet {
        Some(subnet) => {
            check_subnet(subnet.into(), request, claims)?;
            // A key spells a subnet without host bits: 10.1.2.3/16 is 10.1.0.0/16.
            Ipv4Network::new(subnet.network(), subnet.prefix()).unwrap_or(subnet)
        }
        None => free(request, claims, |network| match network {
            IpNetwork::V4(network) => Some(network),
            IpNetwork::V6(_) => None,
        })?,
    };
    block_prefix(request.range.unwrap_or(subnet).into())?;
    let subnet_v6 = match request.subnet_v6 {
        _ if !request.v6 => None,
        Some(subnet) => {
            check_subnet(subnet.into(), request, claims)?;
            Some(Ipv6Network::new(subnet.network(), subnet.prefix()).unwrap_or(subnet))
        }
        None => Some(free(request, claims, |network| match network {
            IpNetwork::V4(_) => None,
            IpNetwork::V6(network) => Some(network),
        })?),
    };
    if let Some(subnet) = subnet_v6 {
        block_prefix(request.addressing_v6.range.unwrap_or(subnet).into())?;
    }
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
    Ok(Choice {
        vni,
        subnet,
        subnet_v6,
    })
}

/// The first free subnet of the pools of one family.
fn free<N>(
    request: &NetworkRequest,
    claims: &Claims,
    family: impl Fn(IpNetwork) -> Option<N>,
) -> Result<N, CreateNetworkError> {
    let mut taken: Vec<_> = claims.subnets.iter().map(|(subnet, _)| *subnet).collect();
    taken.extend(&request.avoid);
    let pools = request.pools.iter().copied();
    let pools: Vec<_> = pools.filter(|(pool, _)| family(*pool).is_some()).collect();
    let found = first_free(&pools, &taken);
    found
        .and_then(family)
        .ok_or(CreateNetworkError::PoolsExhausted)
}

fn check_subnet(
    subnet: IpNetwork,
    request: &NetworkRequest,
    claims: &Claims,
) -> Result<(), CreateNetworkError> {
    let overlaps =
        |(other, _): &&(IpNetwork, ClaimRecord)| overlapping(subnet, &[*other]).is_some();
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
    Ok(())
}
