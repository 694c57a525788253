//! The ways to other hosts: kept an eye on, fitted into, and told of when they change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use nuncio_overlay::{
    HostState, PathState, PathStates, PathTarget, Paths, Peer, inner_mtu, sealed_mtu,
};

use super::container::locked;
use super::events::Kind;
use super::{Daemon, state_file};

/// File that remembers how wide paths were, so that a daemon's start is no time of packets too long.
const WIDTHS: &str = "paths.json";

/// Begins to probe, with what the last daemon found.
pub(super) fn open(data_root: &Path) -> anyhow::Result<Paths> {
    let known = state_file::read::<BTreeMap<IpAddr, u16>>(&data_root.join(WIDTHS))?;
    let blocked = super::fallback::read(data_root)?;
    Ok(Paths::open(known.unwrap_or_default(), blocked)?)
}

/// By what it is found whether packets get there, and whole.
const PROBES: &str = "probes by VXLAN";
/// By what it is found how long they may be.
const WIDTH: &str = "probes of the path's width";

fn bytes(mtu: u16) -> String {
    format!("{mtu} bytes")
}

impl Daemon {
    /// What is known now of the ways to other hosts, by their underlay addresses.
    pub(super) fn path_states(&self) -> PathStates {
        self.paths.states().borrow().clone()
    }

    /// Greatest packet inside the tunnel that gets to `vtep`, if a segment's MTU is more.
    pub(super) fn narrower(&self, vtep: IpAddr, segment: u16, sealed: bool) -> Option<u16> {
        let path = self.paths.mtu(vtep)?;
        let within = if sealed { sealed_mtu } else { inner_mtu };
        let inner = within(path, vtep.is_ipv6()).ok()?;
        (inner < segment).then_some(inner)
    }

    /// Whether what is sent to the peers of a network may leave checksums to the underlay's device: one that gets none of
    /// it decides for all, since they are reached by the same device.
    pub(super) fn offload(&self, peers: &[Peer]) -> Option<bool> {
        let known = peers
            .iter()
            .filter_map(|peer| self.paths.offload(peer.vtep));
        known.reduce(|one, other| one && other)
    }

    /// Probes the hosts that share a network with this one.
    pub(super) async fn probe_paths(&self, state: &HostState, underlay: u16) {
        self.paths.aim(PathTarget::of(state, underlay)).await;
    }

    /// Tells what has changed of the ways to other hosts, and remembers how wide they are.
    pub(super) fn tell_paths(&self) {
        let now = self.path_states();
        let before = {
            let mut told = locked(&self.paths_told);
            std::mem::replace(&mut *told, now.clone())
        };
        for (vtep, state) in now.iter() {
            let unknown = PathState {
                mtu: self.paths.known_before(*vtep),
                ..PathState::default()
            };
            let before = before.get(vtep).copied().unwrap_or(unknown);
            self.tell_path(*vtep, before, *state);
        }
        let widths = |states: &PathStates| -> BTreeMap<IpAddr, u16> {
            let states = states.iter();
            states
                .filter_map(|(vtep, state)| Some((*vtep, state.mtu?)))
                .collect()
        };
        let path = self.options.data_root.join(WIDTHS);
        if widths(&now) != widths(&before)
            && let Err(error) = state_file::write_unsynced(&path, &widths(&now))
        {
            tracing::warn!(error = format!("{error:#}"), "remember how wide paths are");
        }
    }

    fn tell_path(&self, vtep: IpAddr, before: PathState, now: PathState) {
        let host = self.host_at(vtep);
        match (before.reachable, now.reachable) {
            (Some(false), Some(true)) => {
                tracing::info!(host, address = %vtep, "VXLAN gets through again");
                self.tell_of_path("reachable", vtep, PROBES, ["not reached", "reached"], []);
            }
            (None | Some(true), Some(false)) => {
                tracing::warn!(host, address = %vtep, port = self.options.vxlan_port,
                    "VXLAN does not get through: see nuncio why");
                let was = match before.reachable {
                    Some(_) => "reached",
                    None => "not known",
                };
                self.tell_of_path("unreachable", vtep, PROBES, [was, "not reached"], []);
            }
            _ => {}
        }
        match (before.offload, now.offload) {
            (None | Some(true), Some(false)) => {
                tracing::warn!(host, address = %vtep,
                    "checksums that are left to devices are not computed: this host computes them itself");
                self.tell_of_path(
                    "checksums_broken",
                    vtep,
                    PROBES,
                    ["left to devices", "made here"],
                    [],
                );
            }
            (Some(false), Some(true)) => {
                tracing::info!(host, address = %vtep, "checksums are left to devices again");
                self.tell_of_path(
                    "checksums_work",
                    vtep,
                    PROBES,
                    ["made here", "left to devices"],
                    [],
                );
            }
            _ => {}
        }
        let (Some(mtu), true) = (now.mtu, before.mtu != now.mtu) else {
            return;
        };
        match (self.too_narrow(vtep, mtu), before.mtu) {
            (Some(wanted), _) => {
                tracing::warn!(host, address = %vtep, mtu, wanted,
                    "longer packets do not get through: the overlay sends that host shorter ones");
                let mtus = [("mtu", mtu), ("wanted", wanted)];
                let mtus = mtus.map(|(name, mtu)| (name, mtu.to_string()));
                let was = before.mtu.map_or_else(|| "not known".to_owned(), bytes);
                self.tell_of_path("narrow", vtep, WIDTH, [&was, &bytes(mtu)], mtus);
            }
            (None, Some(before)) => {
                tracing::info!(host, address = %vtep, mtu, before, "longer packets get through again");
                let widths = [bytes(before), bytes(mtu)];
                let widths = [&*widths[0], &*widths[1]];
                self.tell_of_path("wide", vtep, WIDTH, widths, [("mtu", mtu.to_string())]);
            }
            (None, None) => {}
        }
    }

    /// What the link to the underlay takes, if the path to `vtep` takes less.
    fn too_narrow(&self, vtep: IpAddr, mtu: u16) -> Option<u16> {
        let link = *locked(&self.underlay_mtu).as_ref()?;
        let known = self.path_states().contains_key(&vtep);
        (known && mtu < link).then_some(link)
    }

    /// Tells that a way is otherwise than it was, by what that was found, and how it was and is.
    pub(super) fn tell_of_path<const N: usize>(
        &self,
        action: &str,
        vtep: IpAddr,
        cause: &str,
        [before, after]: [&str; 2],
        more: [(&str, String); N],
    ) {
        let about = [
            ("name", self.node.name.clone()),
            ("host", self.host_at(vtep)),
            ("address", vtep.to_string()),
            ("cause", cause.to_owned()),
            ("before", before.to_owned()),
            ("after", after.to_owned()),
        ];
        let about = about.into_iter().chain(more);
        let about = about.map(|(name, value)| (name.to_owned(), value));
        let action = format!("path_{action}");
        self.events.tell(Kind::Daemon, action, &self.node.id, about);
    }

    /// The name of the host that has this underlay address.
    fn host_at(&self, vtep: IpAddr) -> String {
        let catalog = self.catalog();
        let mut nodes = catalog.nodes.values();
        let node = nodes.find(|node| node.address == vtep);
        node.map_or_else(|| "unknown".to_owned(), |node| node.name.clone())
    }

    /// What is wrong with the ways to hosts that are alive, for `info`.
    pub(super) fn path_warnings(&self) -> Vec<String> {
        let states = self.path_states();
        let catalog = self.catalog();
        let mut warnings = Vec::new();
        for node in catalog
            .nodes
            .values()
            .filter(|node| catalog.alive.contains(&node.id))
        {
            let Some(state) = states.get(&node.address) else {
                continue;
            };
            let (name, address) = (&node.name, node.address);
            if state.offload == Some(false) {
                warnings.push(format!(
                    "WARNING: packets to {name} at {address} whose checksums are left to a device arrive broken: this host computes them itself"
                ));
            }
            if state.reachable == Some(false) {
                let around = self
                    .goes_around(address, false)
                    .map(|port| format!(": what is for it goes by TLS, by TCP port {port}"));
                warnings.push(format!(
                    "WARNING: VXLAN (UDP port {}) does not get through to {name} at {address}{}",
                    node.port,
                    around.unwrap_or_default()
                ));
            } else if let Some(mtu) = state.mtu
                && let Some(link) = self.too_narrow(address, mtu)
            {
                warnings.push(format!(
                    "WARNING: packets to {name} at {address} may have {mtu} bytes, where this host's link takes {link}"
                ));
            }
        }
        warnings
    }
}
