//! What the host's ambassador should carry: links to other hosts, and published ports on loopback.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::config::Port;
use super::container::locked;
use super::plane::Sight;
use super::record::Record;
use super::{Daemon, LINK_TARGETS, ports, state_file};

impl Daemon {
    /// The configuration of the host's ambassador: links to other hosts, and published ports on loopback.
    pub(super) fn forwards(&self, sight: &Sight) -> Value {
        let mut forwards = BTreeMap::new();
        for (target, address) in remote_links(&sight.active) {
            let endpoints = self.remote_endpoints(&sight.catalog, target);
            let known = sight
                .active
                .iter()
                .flat_map(|record| &record.links)
                .filter(|link| link.target == target);
            let mut ports: Vec<Port> = known.flat_map(|link| link.ports.clone()).collect();
            ports.extend(endpoints.iter().flat_map(|(_, ports)| ports.clone()));
            for port in ports {
                let name = format!("link/{target}/{port}");
                let to = endpoints
                    .iter()
                    .map(|(at, _)| format!("{at}:{}", port.number))
                    .collect();
                let to = self.last_known(&name, to);
                if to.is_empty() {
                    continue; // it has never been heard of
                }
                let listen = format!("{}://{address}:{}", port.protocol, port.number);
                forwards.insert(
                    name.clone(),
                    json!({ "name": name, "listen": listen, "to": to }),
                );
            }
        }
        self.forget_link_targets(&forwards);
        for record in &sight.active {
            let Some(target) = published_target(record) else {
                continue;
            };
            for published in &record.published {
                let name = ports::forward_name(published);
                let address = published.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let listen = format!(
                    "{}://{address}:{}",
                    published.port.protocol, published.host_port
                );
                let to = [format!("{target}:{}", published.port.number)];
                forwards.insert(
                    name.clone(),
                    json!({ "name": name, "listen": listen, "to": to }),
                );
            }
        }
        forwards.into_values().collect()
    }

    /// `found`, or what was found before when that is nothing: a host whose daemon is away for a while
    /// is not told from one that is gone, and its containers may well run.
    fn last_known(&self, forward: &str, found: Vec<String>) -> Vec<String> {
        let mut known = locked(&self.link_targets);
        if found.is_empty() || known.get(forward) == Some(&found) {
            return known.get(forward).cloned().unwrap_or_default();
        }
        known.insert(forward.to_owned(), found.clone());
        self.keep_link_targets(&known);
        found
    }

    /// Forgets where links led that are no more.
    fn forget_link_targets(&self, forwards: &BTreeMap<String, Value>) {
        let mut known = locked(&self.link_targets);
        let before = known.len();
        known.retain(|forward, _| forwards.contains_key(forward));
        if known.len() != before {
            self.keep_link_targets(&known);
        }
    }

    fn keep_link_targets(&self, known: &BTreeMap<String, Vec<String>>) {
        let path = self.options.data_root.join(LINK_TARGETS);
        if let Err(error) = state_file::write(&path, known) {
            tracing::warn!(
                error = format!("{error:#}"),
                "links may break if the next daemon starts without a registry"
            );
        }
    }
}

/// The remote targets of all links, and where the ambassador stands in for each.
pub(super) fn remote_links(active: &[Record]) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    let links = active.iter().flat_map(|record| &record.links);
    links
        .filter(|link| link.remote)
        .map(|link| (link.target.as_str(), link.address))
}

/// The address that a container's published ports lead to.
pub(super) fn published_target(record: &Record) -> Option<Ipv4Addr> {
    record
        .endpoints
        .values()
        .map(|endpoint| endpoint.address)
        .next()
}
