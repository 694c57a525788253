//! Why one container does, or does not, reach another: the way is walked on both hosts, and each place on it looked at.

mod ends;
mod hops;
mod mail;
mod port;
mod target;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use ipnetwork::IpNetwork;
use nuncio_overlay::{Peer, Protocol, WalkRequest, inner_mtu, sealed_mtu, walk};
use nuncio_registry::EndpointRecord;
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::Daemon;
use super::kernel_state::within;
use super::networks::Network;
use super::record::Record;
use super::refusal::Refusal;

pub(crate) use self::hops::{Hop, Status, Why};
pub(super) use self::mail::answer_questions;
use self::mail::{EndAnswer, EndQuestion, EndpointAt};
use self::target::Target;

/// How long another host may take to say what it sees.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same of one that has to ask another one in turn.
const PATIENCE_FOR_BOTH: Duration = Duration::from_secs(9);
/// How long a connection may take that is made to see whether it can be.
const CONNECTS: Duration = Duration::from_secs(2);

/// Which of the two ways is walked, where a network carries IPv6 beside IPv4.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    #[default]
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// A container, which may be on another host.
    pub(crate) from: String,
    /// A container, a service, an alias, an address, or `HOST:PORT`.
    pub(crate) to: String,
    pub(crate) port: Option<(Protocol, u16)>,
    /// As the other end's address has it, if nothing is said.
    pub(crate) family: Option<Family>,
}

impl Daemon {
    /// Walks the way from one to the other, on whatever hosts they are.
    ///
    /// # Errors
    ///
    /// If one of the two is known nowhere.
    pub(crate) async fn why(&self, asked: &Asked) -> anyhow::Result<Why> {
        // A name on another host goes before an id here that happens to begin like it.
        if let Some(container) = self.container_exactly(&asked.from) {
            return self.why_from_here(&container.view(), asked).await;
        }
        let node =
            self.node_of(|endpoint| endpoint.name == asked.from || endpoint.id == asked.from);
        if let Some(node) = node {
            return self.why_from(&node, asked).await;
        }
        match self.container(&asked.from) {
            Ok(container) => self.why_from_here(&container.view(), asked).await,
            Err(unknown) => match self.node_of(|endpoint| begins(&asked.from, &endpoint.id)) {
                Some(node) => self.why_from(&node, asked).await,
                None => Err(unknown),
            },
        }
    }

    /// The host of a container that is not here.
    fn node_of(&self, is_it: impl Fn(&EndpointRecord) -> bool) -> Option<String> {
        let catalog = self.catalog();
        let mut others = catalog.endpoints.values();
        let found = others.find(|endpoint| endpoint.node != self.node.id && is_it(endpoint));
        found.map(|endpoint| endpoint.node.clone())
    }

    async fn why_from_here(&self, from: &Record, asked: &Asked) -> anyhow::Result<Why> {
        let mut why = Why::new(&from.name, &asked.to);
        let here = self.container(&from.id)?;
        let runs = self.life(&here, &mut why);
        let target = self.target(from, asked).await?;
        let port = asked.port.or_else(|| target.port());
        let family = target.family;
        let Some((network, other)) = self.meet(from, &target, port, &mut why) else {
            why.extend(target.into_hops());
            return Ok(why);
        };
        if runs {
            self.tell_name(from, &here.netns, &network, &target, other, &mut why)
                .await;
            let request = self.walk_request(from, &network, other, true, port).await?;
            why.extend(self.walked(&from.name, &request).await);
            if let Some(peer) = request.peer {
                self.tell_way(&peer, network.is_sealed(), &mut why);
            }
        }
        if target.is_elsewhere(&self.node.id) {
            self.tell_registry(&target, &mut why);
        }
        let local = target.local.clone();
        why.extend(target.into_hops());
        if let Some(to) = local {
            let own = from.endpoints.get(network.name());
            let back = own.and_then(|endpoint| EndpointAt::of(endpoint).address_of(family));
            if let Some(back) = back {
                why.extend(self.far_end(&to, &network, back, port).await?);
            }
        }
        if let (true, Some((Protocol::Tcp, port))) = (runs, port) {
            self.try_connect(&here.netns, SocketAddr::new(other, port), &mut why)
                .await;
        }
        Ok(why)
    }

    /// The kernel's part, from a container outwards.
    async fn walked(&self, end: &str, request: &WalkRequest) -> Vec<Hop> {
        let standing = self.kernel.lock().await.standing().await;
        let findings = walk(request, &standing).await.into_iter();
        findings
            .map(|finding| Hop::found(&self.node.name, end, finding))
            .collect()
    }

    async fn walk_request(
        &self,
        record: &Record,
        network: &Network,
        other: IpAddr,
        outward: bool,
        port: Option<(Protocol, u16)>,
    ) -> anyhow::Result<WalkRequest> {
        let container = self.container(&record.id)?;
        let state = self.host_state(&self.sight().await?)?;
        let segment = state
            .segments
            .into_iter()
            .find(|segment| segment.id == network.id());
        let segment = segment.ok_or_else(|| {
            Refusal::conflict(format!(
                "network {} has no part on this host yet",
                network.name()
            ))
        })?;
        let peer = segment
            .peers
            .iter()
            .find(|peer| peer.block.contains(other))
            .cloned();
        let fits = peer.as_ref().and_then(|peer| {
            let width = self.path_states().get(&peer.vtep)?.mtu?;
            let within = if network.is_sealed() {
                sealed_mtu
            } else {
                inner_mtu
            };
            within(width, peer.vtep.is_ipv6()).ok()
        });
        let fits = fits.map(|fits| fits.min(segment.mtu));
        let endpoint = within(record, network.id())
            .with_context(|| format!("{} is not in network {}", record.name, network.name()))?;
        let (address, subnet) = match (Family::of(other), endpoint.v6, network.subnet_v6()) {
            (Family::V4, ..) => (
                IpNetwork::new(endpoint.address.into(), endpoint.block.prefix())?,
                network.subnet().into(),
            ),
            (Family::V6, Some(v6), Some(subnet)) => (
                IpNetwork::new(v6.address.into(), v6.block.prefix())?,
                subnet.into(),
            ),
            (Family::V6, ..) => {
                let (name, network) = (&record.name, network.name());
                let refusal = format!("{name} has no IPv6 address in network {network}");
                return Err(Refusal::conflict(refusal).into());
            }
        };
        Ok(WalkRequest {
            address,
            subnet,
            attached: self.attach_request(&container, record, network).await?,
            segment,
            other,
            peer,
            outward,
            fits,
            port,
        })
    }

    /// Whether VXLAN gets through to the other host, or else what it is sent goes around.
    fn tell_way(&self, peer: &Peer, sealed: bool, why: &mut Why) {
        let (vtep, port) = (peer.vtep, self.options.vxlan_port);
        let state = self.path_states().get(&vtep).copied().unwrap_or_default();
        let hop = |status, detail| Hop::new(&self.node.name, "", "path", status, detail);
        if let Some(around) = self.goes_around(vtep, sealed) {
            let what = if sealed { "WireGuard" } else { "VXLAN" };
            let detail = format!(
                "{what} does not get through to {vtep} and back: what is for it goes by the fall-back, TLS over TCP port {around}"
            );
            return why.push(hop(Status::Ok, detail));
        }
        if sealed {
            return; // the device and its counters tell
        }
        why.push(match state.reachable {
            Some(true) => {
                let took = state.round_trip.unwrap_or_default();
                let lost = format!("{} of {} probes lost", state.lost, state.sent);
                hop(
                    Status::Ok,
                    format!("VXLAN gets through to {vtep} and back in {took:.1?}, {lost}"),
                )
            }
            Some(false) => hop(
                Status::Broken,
                format!("VXLAN does not get through to {vtep} and back"),
            )
            .symptom(1)
            .mend(format!(
                "let UDP port {port} pass between {} and {vtep}",
                self.node.address
            )),
            None => hop(
                Status::Unknown,
                format!("not known yet whether VXLAN gets through to {vtep}"),
            ),
        });
    }

    /// Whether the registry answers, and says that the other host lives.
    fn tell_registry(&self, target: &Target, why: &mut Why) {
        let catalog = self.catalog();
        let hop =
            |word, status, detail: String| Hop::new(&self.node.name, "", word, status, detail);
        if catalog.stale.is_some() {
            let detail =
                "the registry does not answer: what follows is what it said last".to_owned();
            why.push(
                hop("registry", Status::Broken, detail)
                    .symptom(3)
                    .mend("nuncio info".to_owned()),
            );
        } else {
            why.push(hop(
                "registry",
                Status::Ok,
                format!("answers, revision {}", catalog.revision),
            ));
        }
        let Some(node) = target.node.as_ref().and_then(|id| catalog.nodes.get(id)) else {
            return;
        };
        let name = &node.name;
        why.push(if catalog.stale.is_some() {
            hop("peer", Status::Unknown, format!("whether {name} lives is not known without the registry"))
        } else if catalog.alive.contains(&node.id) {
            hop("peer", Status::Ok, format!("{name} at {} is alive in the registry", node.address))
        } else {
            hop("peer", Status::Broken, format!("{name} at {} has let its lease expire: its daemon is dead, or cut off from the registry", node.address))
                .symptom(2)
                .mend(format!("start nuncio daemon on {name}"))
        });
    }

    /// Does what the container would do. That it fails tells nothing that a broken place before it does not.
    async fn try_connect(&self, netns: &std::path::Path, to: SocketAddr, why: &mut Why) {
        let connect = connect(netns, to).await;
        let hop = |status, detail| Hop::new(&self.node.name, "", "connect", status, detail);
        why.push(match connect {
            Ok(()) => hop(Status::Ok, format!("{to} takes connections")),
            Err(error) => {
                hop(Status::Broken, format!("{to} takes no connection: {error}")).symptom(5)
            }
        });
    }
}

async fn connect(netns: &std::path::Path, to: SocketAddr) -> anyhow::Result<()> {
    let namespace = nuncio_overlay::NetNs::open(netns)?;
    let runtime = tokio::runtime::Handle::current();
    let socket = namespace
        .run(move || {
            let _context = runtime.enter();
            match to.ip() {
                IpAddr::V4(_) => TcpSocket::new_v4(),
                IpAddr::V6(_) => TcpSocket::new_v6(),
            }
        })
        .await??;
    match timeout(CONNECTS, socket.connect(to)).await {
        Ok(connected) => Ok(connected.map(drop)?),
        Err(_) => anyhow::bail!("no answer within {CONNECTS:?}"),
    }
}

/// Whether the beginning of an id means it, where many hosts' containers are looked through.
fn begins(asked: &str, id: &str) -> bool {
    asked.len() >= 4 && id.starts_with(asked)
}
