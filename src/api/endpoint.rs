//! How a container wants to stand in its networks: `NetworkingConfig.EndpointsConfig` and the body of `connect`.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::EndpointSettings;
use nuncio_overlay::MacAddr;

use super::host_options::link;
use crate::daemon::config::{EndpointRequest, NetworkMode};
use crate::daemon::refusal::Refusal;

/// Names under which clients speak of the network that containers are in by default.
const DEFAULT_NAMES: [&str; 2] = ["default", "bridge"];

/// Who shares the links of another cannot choose their addresses.
const MAC_CONFLICT: &str = "conflicting options: mac-address and the network mode";

/// The networks asked for, by name or id; none of them for modes that have none.
pub(crate) fn requests(
    asked: HashMap<String, EndpointSettings>,
    mode: &NetworkMode,
) -> Result<BTreeMap<String, EndpointRequest>, Refusal> {
    let mut requests = BTreeMap::new();
    for (name, settings) in asked {
        let request = request(&name, settings)?;
        let is_default = DEFAULT_NAMES.contains(&name.as_str());
        let asks_address = request.address.is_some() || request.address_v6.is_some();
        if is_default && (asks_address || !request.aliases.is_empty()) {
            return Err(on_default_network(&request));
        }
        match mode {
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => {
                if name != mode.to_string() {
                    let message =
                        format!("conflicting options: network {name} and the network mode {mode}");
                    return Err(Refusal::invalid(message));
                }
                if request.mac.is_some() && *mode != NetworkMode::None {
                    return Err(Refusal::invalid(MAC_CONFLICT));
                }
            }
            // What is asked of the default network without wishes is what it is without asking.
            NetworkMode::Default
                if is_default && request.mac.is_none() && request.gateway_priority == 0 => {}
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
    let asked = [
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
    let address_v6 = match ipam.ipv6_address.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse::<Ipv6Addr>().map_err(|_| {
            Refusal::invalid(format!(
                "invalid IPv6 address: {text}: expected one of network {network}"
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
        address_v6,
        links,
        mac: mac(settings.mac_address.as_deref())?,
        gateway_priority: settings.gw_priority.unwrap_or_default(),
    })
}

/// One MAC address, of a card alone: a group's would lead nowhere.
fn mac(text: Option<&str>) -> Result<Option<[u8; 6]>, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.replace('-', ":").parse::<MacAddr>() {
        Ok(MacAddr(octets)) if octets[0] & 1 == 0 && octets != [0; 6] => Ok(Some(octets)),
        _ => Err(Refusal::invalid(format!("invalid MAC address: {text}"))),
    }
}

/// Gives the MAC address that a body asks for beside its networks, as clients did until 1.44, to the first of them.
pub(crate) fn share_mac(
    asked: Option<String>,
    endpoints: &mut HashMap<String, EndpointSettings>,
    mode: &NetworkMode,
) -> Result<(), Refusal> {
    let Some(asked) = asked.filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    let name = match mode {
        NetworkMode::Default if endpoints.contains_key("bridge") => "bridge",
        NetworkMode::Default => "default",
        NetworkMode::Named(name) => name,
        NetworkMode::None => return Ok(()), // there is no link to have it
        NetworkMode::Host | NetworkMode::Container(_) => {
            return Err(Refusal::invalid(MAC_CONFLICT));
        }
    };
    let settings = endpoints.entry(name.to_owned()).or_default();
    match settings.mac_address.as_deref() {
        None | Some("") => settings.mac_address = Some(asked),
        Some(other) if other == asked => {}
        Some(_) => {
            return Err(Refusal::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
            ));
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn on_default_network(request: &EndpointRequest) -> Refusal {
    Refusal::invalid(
        match request.address.is_some() || request.address_v6.is_some() {
            true => "user specified IP address is supported on user defined networks only",
            false => {
                "network-scoped alias is supported only for containers in user defined networks"
            }
        },
    )
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
    fn a_mac_address_is_that_of_the_first_network() {
        let asked = || Some("02-00-00-00-00-01".to_owned());
        let mut endpoints = HashMap::new();
        share_mac(asked(), &mut endpoints, &NetworkMode::Default).expect("no other");
        let found = requests(endpoints.clone(), &NetworkMode::Default).expect("valid");
        assert_eq!(found["bridge"].mac, Some([2, 0, 0, 0, 0, 1]));
        share_mac(asked(), &mut endpoints, &NetworkMode::Default).expect("the same");
        let other = Some("02:00:00:00:00:02".to_owned());
        assert!(share_mac(other, &mut endpoints, &NetworkMode::Default).is_err());
        assert!(share_mac(asked(), &mut endpoints, &NetworkMode::Host).is_err());
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
                json!({"bridge": {"IPAMConfig": {"IPv6Address": "fd00::9"}}}),
                "user defined networks only",
            ),
            (
                json!({"x": {"IPAMConfig": {"IPv6Address": "10.0.0.9"}}}),
                "invalid IPv6 address: 10.0.0.9",
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
                json!({"x": {"MacAddress": "02:00:00:00:01"}}),
                "invalid MAC address: 02:00:00:00:01",
            ),
            (
                json!({"x": {"MacAddress": "01:00:00:00:00:01"}}),
                "invalid MAC address: 01:00",
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
