//! Ports as they stand in bodies: `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard_stubs::models::{self, PortMap};

use crate::daemon::config::{Port, PortBinding, Protocol};
use crate::daemon::record::PublishedPort;
use crate::daemon::refusal::Refusal;

/// The value of an exposed port is an empty object.
type Exposed = HashMap<String, HashMap<(), ()>>;

pub(crate) fn exposed(ports: Option<Exposed>) -> Result<Vec<Port>, Refusal> {
    let mut ports: Vec<Port> = ports
        .unwrap_or_default()
        .keys()
        .map(|text| port(text))
        .collect::<Result<_, _>>()?;
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

pub(crate) fn exposed_view(ports: &[Port]) -> Option<Exposed> {
    (!ports.is_empty()).then(|| {
        ports
            .iter()
            .map(|port| (port.to_string(), HashMap::new()))
            .collect()
    })
}

/// What is wanted on the host. A port without bindings is not published, as in Docker.
pub(crate) fn bindings(map: Option<PortMap>) -> Result<Vec<PortBinding>, Refusal> {
    let mut bindings = Vec::new();
    for (text, wanted) in map.unwrap_or_default() {
        let port = port(&text)?;
        for binding in wanted.unwrap_or_default() {
            bindings.push(PortBinding {
                port,
                host_address: host_address(binding.host_ip.as_deref().unwrap_or_default())?,
                host_ports: host_ports(binding.host_port.as_deref().unwrap_or_default())?,
            });
        }
    }
    sort(&mut bindings);
    Ok(bindings)
}

/// Who has the least choice is served first, so that no other takes the one port that will do.
fn sort(bindings: &mut Vec<PortBinding>) {
    bindings.sort_by_key(|binding| {
        let choice = match binding.host_ports {
            Some((first, last)) => u8::from(first < last),
            None => 2,
        };
        let PortBinding {
            port,
            host_address,
            host_ports,
        } = *binding;
        (choice, port, host_address, host_ports)
    });
    bindings.dedup();
}

pub(crate) fn bindings_view(bindings: &[PortBinding]) -> PortMap {
    let mut map = PortMap::new();
    for binding in bindings {
        let host_port = match binding.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let view = models::PortBinding {
            host_ip: Some(
                binding
                    .host_address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
            ),
            host_port: Some(host_port),
        };
        map.entry(binding.port.to_string())
            .or_default()
            .get_or_insert_default()
            .push(view);
    }
    map
}

/// `NetworkSettings.Ports` of a running container: what is exposed only has no list.
pub(crate) fn published_view(exposed: &[Port], published: &[PublishedPort]) -> PortMap {
    let mut map: PortMap = exposed
        .iter()
        .map(|port| (port.to_string(), None))
        .collect();
    for published in published {
        let view = models::PortBinding {
            host_ip: Some(published.at().to_string()),
            host_port: Some(published.host_port.to_string()),
        };
        map.entry(published.port.to_string())
            .or_default()
            .get_or_insert_default()
            .push(view);
    }
    map
}

/// The same as a flat list, as `ps` shows it.
pub(crate) fn summary(exposed: &[Port], published: &[PublishedPort]) -> Vec<models::Port> {
    let open = published.iter().map(|published| models::Port {
        ip: Some(published.at().to_string()),
        public_port: Some(published.host_port),
        ..entry(published.port)
    });
    let inside = exposed
        .iter()
        .filter(|port| !published.iter().any(|published| published.port == **port));
    open.chain(inside.map(|port| entry(*port))).collect()
}

fn entry(port: Port) -> models::Port {
    let typ = match port.protocol {
        Protocol::Tcp => models::PortTypeEnum::TCP,
        Protocol::Udp => models::PortTypeEnum::UDP,
    };
    models::Port {
        ip: None,
        private_port: port.number,
        public_port: None,
        typ: Some(typ),
    }
}

fn port(text: &str) -> Result<Port, Refusal> {
    if text.ends_with("/sctp") {
        return Err(Refusal::unsupported(format!(
            "port {text}: SCTP is not built, only TCP and UDP"
        )));
    }
    text.parse()
        .map_err(|error: crate::daemon::config::InvalidPort| Refusal::invalid(error.to_string()))
}

fn host_address(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Refusal::invalid(format!(
            "invalid hostIP: {text}: expected an address of this host"
        ))
    })
}

fn host_ports(text: &str) -> Result<Option<(u16, u16)>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(0), Ok(0)) => Ok(None),
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Some((first, last))),
        _ => {
            let message = format!(
                "invalid port specification: {text:?}: expected a port or FIRST-LAST, 1 to 65535"
            );
            Err(Refusal::invalid(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(value: serde_json::Value) -> Result<Vec<PortBinding>, Refusal> {
        bindings(serde_json::from_value(value).expect("a port map"))
    }

    #[test]
    fn a_binding_may_name_an_address_and_a_range() {
        let found = parse(json!({
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000-8010"}, {"HostIp": "0.0.0.0", "HostPort": "0"}],
            "53/udp": null,
        }));
        let port = Port {
            number: 80,
            protocol: Protocol::Tcp,
        };
        let expected = vec![
            PortBinding {
                port,
                host_address: Some([127, 0, 0, 1].into()),
                host_ports: Some((8000, 8010)),
            },
            PortBinding {
                port,
                host_address: Some([0, 0, 0, 0].into()),
                host_ports: None,
            },
        ];
        assert_eq!(found.expect("valid"), expected);
    }

    #[test]
    fn who_names_a_port_comes_before_who_takes_any() {
        let found = parse(json!({
            "80/tcp": [{"HostPort": ""}, {"HostPort": "9000-9001"}],
            "81/tcp": [{"HostPort": "9000"}],
        }));
        let found = found.expect("valid");
        let ports: Vec<_> = found.iter().map(|binding| binding.host_ports).collect();
        assert_eq!(ports, [Some((9000, 9000)), Some((9000, 9001)), None]);
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        for (key, ip, host_port, words) in [
            ("80/tcp", "", "http", "invalid port specification: \"http\""),
            ("80/tcp", "", "9000-8000", "invalid port specification"),
            ("80/tcp", "", "65536", "invalid port specification"),
            ("80/tcp", "localhost", "", "invalid hostIP: localhost"),
            ("80/tcp", "[::1]", "", "invalid hostIP: [::1]"),
            ("80/sctp", "", "", "SCTP is not built"),
            ("0/tcp", "", "", "invalid containerPort: 0/tcp"),
            ("80/icmp", "", "", "invalid containerPort: 80/icmp"),
        ] {
            let error =
                parse(json!({ (key): [{"HostIp": ip, "HostPort": host_port}] })).expect_err(words);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    #[test]
    fn exposed_but_unpublished_ports_are_listed_without_a_host_port() {
        let web = Port {
            number: 80,
            protocol: Protocol::Tcp,
        };
        let dns = Port {
            number: 53,
            protocol: Protocol::Udp,
        };
        let published = [PublishedPort {
            port: web,
            host_address: None,
            host_port: 8080,
        }];
        let map =
            serde_json::to_value(published_view(&[web, dns], &published)).expect("serialises");
        assert_eq!(
            map,
            json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": null})
        );
        let list = summary(&[web, dns], &published);
        assert_eq!(list.len(), 2);
        assert_eq!(
            (list[0].public_port, list[1].public_port),
            (Some(8080), None)
        );
    }

    fn any_binding() -> impl Strategy<Value = PortBinding> {
        let ports =
            prop::option::of((1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| (a.min(b), a.max(b))));
        let address = prop::option::of(any::<IpAddr>());
        (1..=u16::MAX, any::<bool>(), address, ports).prop_map(
            |(number, tcp, host_address, host_ports)| {
                let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                PortBinding {
                    port: Port { number, protocol },
                    host_address,
                    host_ports,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn bindings_survive_the_round_trip(mut wanted in prop::collection::vec(any_binding(), 0..8)) {
            sort(&mut wanted);
            prop_assert_eq!(bindings(Some(bindings_view(&wanted))).expect("our own view is valid"), wanted);
        }
    }
}
