//! The names that containers of user-defined networks resolve.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use nuncio_overlay::{NamesDocument, Subscriber, Zone};

use super::Daemon;
use super::files::Resolving;
use super::networks::Network;
use super::plane::Sight;
use super::record::Record;

impl Daemon {
    /// The names that containers of user-defined networks resolve.
    pub(super) fn names(&self, sight: &Sight) -> NamesDocument {
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let host = Resolving::parse(&host);
        let mut document = NamesDocument {
            upstreams: host
                .servers
                .iter()
                .map(|server| SocketAddr::new(*server, 53))
                .collect(),
            ..NamesDocument::default()
        };
        for network in sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
        {
            document
                .zones
                .insert(network.id().to_owned(), self.zone(sight, network));
        }
        for record in &sight.active {
            document
                .subscribers
                .extend(self.subscriber(sight, record, &document.zones));
        }
        document
    }

    fn zone(&self, sight: &Sight, network: &Network) -> Zone {
        let mut zone = Zone {
            domain: Some(network.name().to_owned()),
            ..Zone::default()
        };
        let mut add = |address: Ipv4Addr, id: &str, name: &str, aliases: &[String]| {
            let short = id.get(..12).unwrap_or(id).to_owned();
            for name in [name.to_owned(), short]
                .into_iter()
                .chain(aliases.iter().cloned())
            {
                let addresses = zone.names.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            zone.reverse.insert(address, name.to_owned());
        };
        for record in &sight.active {
            for endpoint in record
                .endpoints
                .values()
                .filter(|endpoint| endpoint.network_id == network.id())
            {
                add(
                    endpoint.address,
                    &record.id,
                    &record.name,
                    &endpoint.aliases,
                );
            }
        }
        let elsewhere = sight
            .catalog
            .endpoints_in(network.id())
            .filter(|endpoint| endpoint.node != self.node.id);
        for endpoint in elsewhere {
            add(
                endpoint.address,
                &endpoint.id,
                &endpoint.name,
                &endpoint.aliases,
            );
        }
        zone
    }

    fn subscriber(
        &self,
        sight: &Sight,
        record: &Record,
        zones: &BTreeMap<String, Zone>,
    ) -> Option<Subscriber> {
        let networks: Vec<&Network> = sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
            .filter(|network| {
                record
                    .endpoints
                    .values()
                    .any(|endpoint| endpoint.network_id == network.id())
            })
            .collect();
        if networks.is_empty() {
            return None;
        }
        let mut aliases = BTreeMap::new();
        for link in record
            .config
            .host
            .links
            .iter()
            .chain(record.config.endpoints.values().flat_map(|e| &e.links))
        {
            let found = networks
                .iter()
                .find_map(|network| zones.get(network.id())?.names.get(&link.target));
            aliases.extend(found.map(|addresses| (link.alias.clone(), addresses.clone())));
        }
        Some(Subscriber {
            id: record.id.clone(),
            netns: self.options.exec_root.join("netns").join(&record.id),
            external: networks.iter().any(|network| !network.internal()),
            networks: networks
                .into_iter()
                .map(|network| network.id().to_owned())
                .collect(),
            aliases,
        })
    }
}
