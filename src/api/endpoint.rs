//! How a container wants to stand in its networks: `NetworkingConfig.EndpointsConfig` and the body of `connect`.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use bollard_stubs::models::EndpointSettings;

use super::host_options::link;
use crate::daemon::config::{EndpointRequest, NetworkMode};
use crate::daemon::refusal::Refusal;

/// Names under which clients speak of the network that containers are in by default.
const DEFAULT_NAMES: [&str; 2] = ["default", "bridge"];

/// The networks asked for, by name or id; none of them for modes that have none.
pub(crate) fn requests(
    asked: HashMap<String, EndpointSettings>,
    mode: &NetworkMode,
) -> Result<BTreeMap<String, EndpointRequest>, Refusal> {
    let mut requests = BTreeMap::new();
    for (name, settings) in asked {
        let request = request(&name, settings)?;
        let is_default = DEFAULT_NAMES.contains(&name.as_str());
        if is_default && (request.address.is_some() || !request.aliases.is_empty()) {
            return Err(on_default_network(&request));
        }
        match mode {
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => {
                if name != mode.to_string() {
                    let message =
                        format!("conflicting options: network {name} and the network mode {mode}");
                    return Err(Refusal::invalid(message));
                }
            }
            // What is asked of the default network without wishes is what it is without asking.
            NetworkMode::Default if is_default => {}
            NetworkMode::Default | NetworkMode::Named(_) => {
                let name = if is_default {
                    "bridge".to_owned()
                } else {
                    name
                };
                requests.insert(name, request);
            }
        }
    }
    if let NetworkMode::Named(name) = mode
        && !requests.is_empty()
    {
        requests.entry(name.clone()).or_default();
    }
    Ok(requests)
}

/// What is asked of one network.
pub(crate) fn request(
    network: &str,
    settings: EndpointSettings,
) -> Result<EndpointRequest, Refusal> {
    let ipam = settings.ipam_config.unwrap_or_default();
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let asked = [
        (given(&settings.mac_address), "--mac-address"),
        (given(&ipam.ipv6_address), "--ip6"),
        (
            ipam.link_local_ips
                .is_some_and(|addresses| !addresses.is_empty()),
            "--link-local-ip",
        ),
        (
            settings
                .driver_opts
                .is_some_and(|options| !options.is_empty()),
            "driver options of an endpoint",
        ),
        (
            settings.gw_priority.is_some_and(|priority| priority != 0),
            "gateway priority of an endpoint",
        ),
    ];
    if let Some((_, flag)) = asked.iter().find(|(asked, _)| *asked) {
        return Err(Refusal::unsupported(format!(
            "network {network}: not built: {flag}"
        )));
    }
    let address = match ipam.ipv4_address.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse::<Ipv4Addr>().map_err(|_| {
            Refusal::invalid(format!(
                "invalid IPv4 address: {text}: expected one of network {network}"
            ))
        })?),
    };
    let aliases = settings.aliases.unwrap_or_default();
    if let Some(alias) = aliases.iter().find(|alias| !is_name(alias)) {
        let message = format!(
            "invalid --network-alias {alias:?}: expected letters, digits, dots, hyphens, underscores"
        );
        return Err(Refusal::invalid(message));
    }
    let links = settings
        .links
        .unwrap_or_default()
        .iter()
        .map(|text| link(text))
        .collect::<Result<_, _>>()?;
    Ok(EndpointRequest {
        aliases,
        address,
        links,
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn on_default_network(request: &EndpointRequest) -> Refusal {
    Refusal::invalid(match request.address {
        Some(_) => "user specified IP address is supported on user defined networks only",
        None => "network-scoped alias is supported only for containers in user defined networks",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(
        asked: Value,
        mode: &NetworkMode,
    ) -> Result<BTreeMap<String, EndpointRequest>, Refusal> {
        requests(serde_json::from_value(asked).expect("endpoints"), mode)
    }

    #[test]
    fn what_the_client_sends_for_a_mode_alone_asks_for_nothing_more() {
        for (name, mode) in [
            ("default", NetworkMode::Default),
            ("host", NetworkMode::Host),
            ("none", NetworkMode::None),
        ] {
            let asked = json!({ name: {"IPAMConfig": null, "Links": null, "Aliases": null} });
            assert!(parse(asked, &mode).expect(name).is_empty());
        }
    }

    #[test]
    fn the_network_of_the_mode_is_among_those_asked_for() {
        let mode = NetworkMode::Named("front".to_owned());
        let found = parse(
            json!({"back": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.1.0.9"}}}),
            &mode,
        );
        let found = found.expect("valid");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["back", "front"]);
        assert_eq!(found["back"].address, Some(Ipv4Addr::new(10, 1, 0, 9)));
        assert_eq!(found["back"].aliases, ["db"]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mode = NetworkMode::Default;
        for (asked, words) in [
            (
                json!({"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}}),
                "user defined networks only",
            ),
            (
                json!({"default": {"Aliases": ["x"]}}),
                "network-scoped alias is supported only",
            ),
            (
                json!({"x": {"IPAMConfig": {"IPv4Address": "10.1"}}}),
                "invalid IPv4 address: 10.1",
            ),
            (
                json!({"x": {"MacAddress": "02:00:00:00:00:01"}}),
                "not built: --mac-address",
            ),
            (
                json!({"x": {"Aliases": ["a b"]}}),
                "invalid --network-alias \"a b\"",
            ),
        ] {
            let error = parse(asked, &mode).expect_err(words);
            assert!(error.message.contains(words), "{}", error.message);
        }
        assert!(parse(json!({"x": {}}), &NetworkMode::Host).is_err());
    }
}
