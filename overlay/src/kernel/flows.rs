//! Ends what connection tracking remembers of UDP flows that the rules would lead elsewhere now.
//!
//! To connection tracking a client that keeps sending from one port is one flow, however often the container behind the
//! published port is replaced. It would lead there for as long as the client sends: to where nobody is any more, or,
//! if it began before the port was published, nowhere.

use std::{collections::HashSet, io, net::IpAddr};

use crate::{
    HostState, Protocol, Published, Segment,
    netlink::{Conntrack, Netlink, UdpFlow},
};

/// What leads UDP: if it is as it was, so are the flows.
pub(super) fn udp(state: &HostState) -> Vec<Published> {
    let published = state.published.iter();
    let mut udp: Vec<_> = published
        .filter(|published| published.protocol == Protocol::Udp)
        .cloned()
        .collect();
    udp.sort_unstable_by_key(|published| (published.host_port, published.host_address));
    udp
}

/// Forgets the flows that do not go where `state` says; returns how many.
pub(super) async fn forget_stale(netlink: &Netlink, state: &HostState) -> io::Result<usize> {
    let conntrack = Conntrack::open()?;
    let addresses = netlink.addresses().await?;
    let local: HashSet<_> = addresses.iter().map(|found| found.address.ip()).collect();
    let mut forgotten = 0;
    for flow in conntrack.udp_flows().await? {
        if is_stale(&flow, state, &local) {
            conntrack.forget(&flow).await?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn is_stale(flow: &UdpFlow, state: &HostState, local: &HashSet<IpAddr>) -> bool {
    let (asked, answers) = (flow.asked, flow.answers);
    let links = |segment: &Segment| {
        let mut addresses = segment.local_addresses.iter();
        addresses.any(|address| asked.ip() == *address)
    };
    // Neither those pass by, nor are they at an address where the ambassador listens itself.
    if !local.contains(&asked.ip()) || asked.ip().is_loopback() || state.segments.iter().any(links)
    {
        return false;
    }
    let published = state.published.iter().find(|published| {
        published.protocol == Protocol::Udp
            && published.host_port == asked.port()
            && published.target.is_ipv4() == asked.is_ipv4()
            && published
                .only_at()
                .is_none_or(|address| address == asked.ip())
    });
    match published {
        Some(published) => published.target != answers,
        None => {
            let ours = |address| {
                let mut subnets = state.segments.iter().flat_map(|segment| &segment.subnets);
                subnets.any(|subnet| subnet.contains(address))
            };
            answers.ip() != asked.ip() && ours(answers.ip())
        }
    }
}
