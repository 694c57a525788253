//! A network's body, both ways.

use std::net::Ipv4Addr;

use bollard_stubs::models::{
    Ipam, IpamConfig, Network, NetworkContainer, NetworkCreateRequest, PeerInfo,
};
use ipnetwork::Ipv4Network;

use super::container_create::sorted;
use super::container_view::mac;
use crate::daemon::ENCRYPTED;
use crate::daemon::network_edit::NetworkCreate;
use crate::daemon::network_options::NetworkOptions;
use crate::daemon::networks::NetworkView;
use crate::daemon::refusal::Refusal;

/// The body of `POST /networks/create`.
pub(crate) fn parse(body: NetworkCreateRequest) -> Result<NetworkCreate, Refusal> {
    let name = body.name;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(allowed)
    {
        let message =
            format!("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        return Err(Refusal::invalid(message));
    }
    let options = sorted(body.options);
    let scope = body.scope.unwrap_or_default();
    let own_scope = match body.driver.as_deref() {
        Some("overlay") => "swarm",
        _ => "local",
    };
    if !scope.is_empty() && scope != own_scope {
        return Err(Refusal::invalid(format!(
            "network {name}: invalid scope {scope}: networks of its driver have the scope {own_scope}"
        )));
    }
    let ipam = body.ipam.unwrap_or_default();
    let driver = ipam.driver.unwrap_or_default();
    let asked = [
        (body.ingress == Some(true), "--ingress"),
        (body.config_only == Some(true), "--config-only"),
        (
            body.config_from
                .and_then(|from| from.network)
                .is_some_and(|from| !from.is_empty()),
            "--config-from",
        ),
        (body.enable_ipv6 == Some(true), "--ipv6"),
        (body.enable_ipv4 == Some(false), "--ipv4=false"),
        (!matches!(driver.as_str(), "" | "default"), "--ipam-driver"),
        (
            ipam.options.is_some_and(|options| !options.is_empty()),
            "--ipam-opt",
        ),
        (
            options
                .keys()
                .any(|option| option != ENCRYPTED && !NetworkOptions::knows(option)),
            "--opt",
        ),
    ];
    if let Some((_, flag)) = asked.iter().find(|(asked, _)| *asked) {
        return Err(Refusal::unsupported(format!(
            "network {name}: not built: {flag}"
        )));
    }
    NetworkOptions::parse(&options)?;
    let mut create = NetworkCreate {
        driver: body.driver.unwrap_or_default(),
        internal: body.internal.unwrap_or_default(),
        attachable: body.attachable.unwrap_or_default(),
        labels: sorted(body.labels),
        name,
        options,
        ..NetworkCreate::default()
    };
    addressing(&mut create, ipam.config.unwrap_or_default())?;
    Ok(create)
}

/// The subnet and what is said of the addresses in it, written into `create`.
fn addressing(create: &mut NetworkCreate, config: Vec<IpamConfig>) -> Result<(), Refusal> {
    let mut config = config.into_iter();
    let first = config.next().unwrap_or_default();
    if config.next().is_some() {
        let message = format!("network {}: not built: more than one --subnet", create.name);
        return Err(Refusal::unsupported(message));
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    create.subnet = given(first.subnet).map(|text| subnet(&text)).transpose()?;
    let whole = create.subnet;
    let within = |what: &str, text: &str| {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| Refusal::invalid(format!("invalid {what} {text}")))?;
        match whole {
            Some(subnet) if subnet.contains(address) => Ok(address),
            _ => Err(Refusal::invalid(format!(
                "no matching subnet for {what} {text}"
            ))),
        }
    };
    if let Some(text) = given(first.gateway) {
        create.gateway = Some(within("gateway", &text)?);
    }
    for (name, text) in sorted(first.auxiliary_addresses) {
        let address = within("aux-address", &text)?;
        create.reserved.insert(name, address);
    }
    if let Some(text) = given(first.ip_range) {
        let range = subnet(&text)?;
        let inside = |whole: Ipv4Network| {
            whole.contains(range.network()) && whole.prefix() <= range.prefix()
        };
        if !whole.is_some_and(inside) {
            return Err(Refusal::invalid(format!(
                "no matching subnet for range {range}"
            )));
        }
        create.range = Some(range);
    }
    Ok(())
}

fn subnet(text: &str) -> Result<Ipv4Network, Refusal> {
    let wrong = |expected: &str| Refusal::invalid(format!("invalid subnet {text}: {expected}"));
    if text.contains(':') {
        return Err(Refusal::unsupported(format!(
            "subnet {text}: IPv6 is not built"
        )));
    }
    if !text.contains('/') {
        return Err(wrong(
            "invalid CIDR block notation, expected ADDRESS/PREFIX",
        ));
    }
    let subnet: Ipv4Network = text
        .parse()
        .map_err(|_| wrong("invalid CIDR block notation, expected ADDRESS/PREFIX"))?;
    match Ipv4Network::new(subnet.network(), subnet.prefix()) {
        Ok(whole) if whole == subnet => Ok(subnet),
        _ => Err(wrong(&format!(
            "it should be {}/{}",
            subnet.network(),
            subnet.prefix()
        ))),
    }
}

/// A network as it is shown; its containers only if asked for.
pub(crate) fn network(view: NetworkView, with_containers: bool) -> Network {
    let addresses = view.subnet.map(|subnet| IpamConfig {
        subnet: Some(subnet.to_string()),
        gateway: view.gateway.map(|gateway| gateway.to_string()),
        ip_range: view.range.map(|range| range.to_string()),
        auxiliary_addresses: (!view.reserved.is_empty()).then(|| {
            let reserved = view.reserved.iter();
            reserved
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect()
        }),
    });
    let containers = view
        .endpoints
        .into_iter()
        .filter(|_| with_containers)
        .map(|endpoint| {
            let shown = NetworkContainer {
                name: Some(endpoint.name),
                endpoint_id: Some(String::new()),
                mac_address: Some(mac(endpoint.mac)),
                ipv4_address: Some(format!("{}/{}", endpoint.address, endpoint.prefix)),
                ipv6_address: Some(String::new()),
            };
            (endpoint.container_id, shown)
        });
    let peers = view.peers.into_iter().map(|(name, ip)| PeerInfo {
        name: Some(name),
        ip: Some(ip.to_string()),
    });
    let peers: Vec<PeerInfo> = peers.collect();
    let mut options: std::collections::HashMap<_, _> = view.options.into_iter().collect();
    // Where Docker shows the VNIs of an overlay.
    options.extend(view.vni.map(|vni| {
        (
            "com.docker.network.driver.overlay.vxlanid_list".to_owned(),
            vni.to_string(),
        )
    }));
    Network {
        name: Some(view.name),
        id: Some(view.id),
        created: Some(view.created),
        scope: Some(view.scope.to_owned()),
        driver: Some(view.driver),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(addresses.into_iter().collect()),
            options: None,
        }),
        internal: Some(view.internal),
        attachable: Some(view.attachable),
        ingress: Some(false),
        config_only: Some(false),
        containers: Some(containers.collect()),
        options: Some(options),
        labels: Some(view.labels.into_iter().collect()),
        peers: (!peers.is_empty()).then_some(peers),
        ..Network::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::daemon::networks::NetworkEndpoint;
    use crate::daemon::refusal::RefusalKind;

    fn made(body: Value) -> Result<NetworkCreate, Refusal> {
        parse(serde_json::from_value(body).expect("a network"))
    }

    #[test]
    fn what_the_client_sends_is_understood() {
        let create = made(json!({
            "Name": "mesh", "CheckDuplicate": true, "Driver": "overlay", "Scope": "", "Internal": false,
            "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {}, "Labels": {"a": "b"},
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.7.0.0/16"}]},
        }))
        .expect("valid");
        assert_eq!(
            (
                create.name.as_str(),
                create.driver.as_str(),
                create.attachable
            ),
            ("mesh", "overlay", true)
        );
        assert_eq!(
            create.subnet,
            Some("10.7.0.0/16".parse().expect("a subnet"))
        );
    }

    #[test]
    fn addresses_can_be_kept_back() {
        let config = json!([{
            "Subnet": "10.7.0.0/24", "Gateway": "10.7.0.1", "IPRange": "10.7.0.128/25",
            "AuxiliaryAddresses": {"printer": "10.7.0.129"},
        }]);
        let create = made(json!({"Name": "x", "IPAM": {"Config": config}})).expect("valid");
        assert_eq!(create.gateway, Some(Ipv4Addr::new(10, 7, 0, 1)));
        assert_eq!(create.range, "10.7.0.128/25".parse().ok());
        assert_eq!(create.reserved["printer"], Ipv4Addr::new(10, 7, 0, 129));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let with = |subnet: &str, gateway: &str| json!([{"Subnet": subnet, "Gateway": gateway}]);
        for (config, kind, words) in [
            (
                with("10.7.0.0", ""),
                RefusalKind::Invalid,
                "invalid CIDR block notation",
            ),
            (
                with("10.7.0.0/40", ""),
                RefusalKind::Invalid,
                "invalid CIDR block notation",
            ),
            (
                with("10.7.0.1/16", ""),
                RefusalKind::Invalid,
                "it should be 10.7.0.0/16",
            ),
            (
                with("fd00::/64", ""),
                RefusalKind::Unsupported,
                "IPv6 is not built",
            ),
            (
                with("10.7.0.0/16", "10.8.0.1"),
                RefusalKind::Invalid,
                "no matching subnet for gateway 10.8.0.1",
            ),
            (
                json!([{}, {}]),
                RefusalKind::Unsupported,
                "more than one --subnet",
            ),
            (
                json!([{"Subnet": "10.7.0.0/16", "IPRange": "10.0.0.0/8"}]),
                RefusalKind::Invalid,
                "no matching subnet for range 10.0.0.0/8",
            ),
        ] {
            let error = made(json!({"Name": "x", "IPAM": {"Config": config}})).expect_err(words);
            assert_eq!(error.kind, kind, "{}", error.message);
            assert!(error.message.contains(words), "{}", error.message);
        }
        assert!(made(json!({"Name": "a b"})).is_err() && made(json!({"Name": ""})).is_err());
        assert!(made(json!({"Name": "x", "Options": {"encrypted": ""}})).is_ok());
        assert!(made(json!({"Name": "x", "Options": {"other": ""}})).is_err());
    }

    #[test]
    fn containers_of_all_hosts_are_shown() {
        let view = NetworkView {
            id: "n".to_owned(),
            name: "mesh".to_owned(),
            driver: "overlay".to_owned(),
            scope: "swarm",
            subnet: Some("10.7.0.0/16".parse().expect("a subnet")),
            gateway: Some(Ipv4Addr::new(10, 7, 0, 1)),
            range: None,
            reserved: [].into(),
            internal: false,
            attachable: true,
            vni: Some(4097),
            options: [].into(),
            labels: [].into(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            endpoints: vec![NetworkEndpoint {
                container_id: "c".to_owned(),
                name: "db".to_owned(),
                mac: [2, 0, 10, 7, 0, 2],
                address: Ipv4Addr::new(10, 7, 0, 2),
                prefix: 24,
            }],
            peers: vec![("b".to_owned(), Ipv4Addr::LOCALHOST.into())],
        };
        let shown = serde_json::to_value(network(view.clone(), true)).expect("serialises");
        assert_eq!(shown["Containers"]["c"]["IPv4Address"], "10.7.0.2/24");
        assert_eq!(
            shown["IPAM"]["Config"],
            json!([{"Subnet": "10.7.0.0/16", "Gateway": "10.7.0.1"}])
        );
        assert_eq!(
            shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"],
            "4097"
        );
        let listed = serde_json::to_value(network(view, false)).expect("serialises");
        assert_eq!(listed["Containers"], json!({}));
    }

    proptest! {
        #[test]
        fn any_subnet_is_parsed_or_refused(text in "[0-9a-f./:]{0,20}") {
            let _ = subnet(&text);
        }
    }
}
