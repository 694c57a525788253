//! The services that a container says it is one of, by nuncio's labels and as Registrator reads labels and environment.

use std::collections::{BTreeMap, BTreeSet};

use nuncio_registry::ServiceOffer;

use super::config::{ContainerConfig, Port};
use super::plane::record_of;
use super::services::{self, LABEL};

/// The label that tells some of a service from others.
const TAGS_LABEL: &str = "nuncio.service.tags";
/// The label of a task's container that gives its service other names, between commas.
pub(super) const ALSO: &str = "nuncio.service.also";
/// The label that other hosts see on who is to be found by nobody, whether a label or the environment said so.
pub(super) const IGNORED: &str = "nuncio.service.ignored";
/// Registrator's variables and labels begin with it.
const PREFIX: &str = "SERVICE_";
/// Tags of one container that count.
const MOST_TAGS: usize = 32;
/// As long as a label in DNS may be.
const LONGEST_TAG: usize = 63;

/// What Registrator reads: labels, and where there is none, the environment. Keys are in lower case, without their prefix.
struct Said(BTreeMap<String, String>);

impl Said {
    fn of(config: &ContainerConfig) -> Self {
        let environment = config.env.iter().filter_map(|line| line.split_once('='));
        let labels = config.labels.iter();
        let all = environment.chain(labels.map(|(key, value)| (key.as_str(), value.as_str())));
        let key = |key: &str| Some(key.strip_prefix(PREFIX)?.to_ascii_lowercase());
        let said = all.filter_map(|(name, value)| Some((key(name)?, value.trim().to_owned())));
        Self(said.collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        let said = self.0.get(key).map(String::as_str);
        said.filter(|value| !value.is_empty())
    }

    fn of_port(&self, port: Port, key: &str) -> Option<&str> {
        self.get(&format!("{}_{key}", port.number))
    }
}

/// Whether the container is not to be found as a service, not even by its own name.
pub(super) fn is_ignored(config: &ContainerConfig) -> bool {
    Said::of(config).get("ignore").is_some()
}

/// The services of a container, each with the ports that are the service's.
///
/// A port with a name of its own (`SERVICE_8080_NAME`) is in that service alone, the others are in the one that
/// `nuncio.service` or else `SERVICE_NAME` names. Names that are none are left out.
pub(super) fn services_of(config: &ContainerConfig) -> Vec<ServiceOffer> {
    let said = Said::of(config);
    if said.get("ignore").is_some() {
        return Vec::new();
    }
    let named = config.labels.get(LABEL).map(String::as_str);
    let named = named.or_else(|| said.get("name")).and_then(service_name);
    let tags = config.labels.get(TAGS_LABEL).map(String::as_str);
    let tags = tags.or_else(|| said.get("tags")).unwrap_or_default();
    let mut offers = BTreeMap::<String, (Vec<Port>, BTreeSet<String>)>::new();
    if let Some(name) = &named
        && config.exposed.is_empty()
    {
        offers.insert(name.clone(), (Vec::new(), tags_of(tags)));
    }
    for port in &config.exposed {
        if said.of_port(*port, "ignore").is_some() {
            continue;
        }
        let own = said.of_port(*port, "name").map(service_name);
        let Some(name) = own.unwrap_or_else(|| named.clone()) else {
            continue;
        };
        let (ports, all) = offers.entry(name).or_default();
        ports.push(*port);
        all.extend(tags_of(said.of_port(*port, "tags").unwrap_or(tags)));
    }
    if let Some(name) = &named
        && let Some(main) = offers.get(name).cloned()
    {
        let also = config.labels.get(ALSO).into_iter();
        let also = also
            .flat_map(|names| names.split(','))
            .filter_map(service_name);
        for other in also {
            offers.entry(other).or_insert_with(|| main.clone());
        }
    }
    let offer = |(name, (ports, tags)): (String, (Vec<Port>, BTreeSet<String>))| ServiceOffer {
        name,
        tags: tags.into_iter().take(MOST_TAGS).collect(),
        ports: ports.iter().map(record_of).collect(),
    };
    offers.into_iter().map(offer).collect()
}

/// What is to be said of names that count for nothing.
pub(super) fn warnings(config: &ContainerConfig) -> Vec<String> {
    let said = Said::of(config);
    let is_name_key = |key: &str| key == "name" || key.ends_with("_name");
    let names = said.0.iter().filter(|(key, value)| {
        is_name_key(key) && !value.is_empty() && service_name(value).is_none()
    });
    let warning = |(key, value): (&String, &String)| {
        let key = key.to_ascii_uppercase();
        format!(
            "{PREFIX}{key}: {value:?} is no name of a service and is left out: {}",
            services::EXPECTED
        )
    };
    names.map(warning).collect()
}

fn service_name(name: &str) -> Option<String> {
    services::is_name(name).then(|| name.to_ascii_lowercase())
}

/// Words between commas. Those that cannot be a part of a name in DNS are kept, but are in no name.
fn tags_of(text: &str) -> BTreeSet<String> {
    let tags = text.split(',').map(str::trim);
    let tags = tags.filter(|tag| !tag.is_empty() && tag.len() <= LONGEST_TAG);
    tags.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[&str], labels: &[(&str, &str)], ports: &[&str]) -> ContainerConfig {
        let labels = labels.iter();
        ContainerConfig {
            env: env.iter().map(|line| (*line).to_owned()).collect(),
            labels: labels
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
            exposed: ports
                .iter()
                .map(|port| port.parse().expect("a port"))
                .collect(),
            ..ContainerConfig::default()
        }
    }

    /// As `name[tags] ports`.
    fn shown(config: &ContainerConfig) -> Vec<String> {
        let show = |offer: ServiceOffer| {
            let ports: Vec<_> = offer.ports.iter().map(|p| p.port.to_string()).collect();
            format!(
                "{}[{}] {}",
                offer.name,
                offer.tags.join(","),
                ports.join(",")
            )
        };
        services_of(config).into_iter().map(show).collect()
    }

    #[test]
    fn labels_come_before_the_environment_and_nuncio_s_before_others() {
        let env = ["SERVICE_NAME=Env", "SERVICE_TAGS=a, b"];
        let ports = ["80", "53/udp"];
        assert_eq!(shown(&config(&env, &[], &ports)), ["env[a,b] 80,53"]);
        let label = ("SERVICE_NAME", "label");
        assert_eq!(shown(&config(&env, &[label], &ports)), ["label[a,b] 80,53"]);
        let own = [label, (LABEL, "own"), (TAGS_LABEL, "c")];
        assert_eq!(shown(&config(&env, &own, &ports)), ["own[c] 80,53"]);
        assert_eq!(shown(&config(&env, &[], &[])), ["env[a,b] "]);
    }

    #[test]
    fn a_port_may_be_of_another_service_or_of_none() {
        let env = [
            "SERVICE_NAME=web",
            "SERVICE_TAGS=x",
            "SERVICE_8080_NAME=admin",
            "SERVICE_8080_TAGS=y",
            "SERVICE_9000_IGNORE=1",
        ];
        let ports = ["80", "8080", "9000"];
        assert_eq!(
            shown(&config(&env, &[], &ports)),
            ["admin[y] 8080", "web[x] 80"]
        );
        let alone = ["SERVICE_8080_NAME=admin"];
        assert_eq!(shown(&config(&alone, &[], &ports)), ["admin[] 8080"]);
    }

    #[test]
    fn who_is_ignored_is_in_no_service() {
        let labels = [(LABEL, "web"), ("SERVICE_IGNORE", "true")];
        let ignored = config(&[], &labels, &["80"]);
        assert!(is_ignored(&ignored) && services_of(&ignored).is_empty());
        assert!(!is_ignored(&config(&["SERVICE_IGNORE="], &[], &[])));
    }

    #[test]
    fn what_is_no_name_is_left_out_and_told() {
        let wrong = config(
            &["SERVICE_NAME=a/b", "SERVICE_80_NAME=-"],
            &[],
            &["80", "81"],
        );
        assert!(services_of(&wrong).is_empty());
        let warnings = warnings(&wrong);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings
                .iter()
                .any(|told| told.starts_with("SERVICE_80_NAME: \"-\""))
        );
    }
}
