//! Which host ports lead where.

use std::net::Ipv4Addr;

use super::config::{Port, PortBinding, Protocol};
use super::record::PublishedPort;
use super::refusal::Refusal;

/// Host ports for `-P` and for `-p` without one.
pub(crate) const RANGE: (u16, u16) = (49000, 49900);

/// Chooses host ports for what a container publishes, beside those `taken` by others.
///
/// # Errors
///
/// A [`Refusal`] in Docker's words if a port, or each of a range, is another container's.
pub(crate) fn choose(
    bindings: &[PortBinding],
    exposed_too: &[Port],
    taken: &[PublishedPort],
) -> Result<Vec<PublishedPort>, Refusal> {
    let mut chosen: Vec<PublishedPort> = Vec::new();
    let all = exposed_too
        .iter()
        .filter(|port| !bindings.iter().any(|binding| binding.port == **port))
        .map(|port| PortBinding {
            port: *port,
            host_address: None,
            host_ports: None,
        });
    for binding in bindings.iter().cloned().chain(all) {
        let (first, last) = binding.host_ports.unwrap_or(RANGE);
        let free = (first..=last).find(|number| {
            !taken.iter().chain(&chosen).any(|other| {
                other.host_port == *number
                    && other.port.protocol == binding.port.protocol
                    && overlap(other.host_address, binding.host_address)
            })
        });
        match free {
            Some(host_port) => {
                let PortBinding {
                    port, host_address, ..
                } = binding;
                chosen.push(PublishedPort {
                    port,
                    host_address,
                    host_port,
                });
            }
            None => return Err(allocated(&binding, first, last)),
        }
    }
    Ok(chosen)
}

fn overlap(a: Option<Ipv4Addr>, b: Option<Ipv4Addr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn allocated(binding: &PortBinding, first: u16, last: u16) -> Refusal {
    let address = binding.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    Refusal::conflict(format!(
        "Bind for {address}:{ports} failed: port is already allocated"
    ))
}

/// The name of the forward that serves a published port on the host's loopback.
pub(crate) fn forward_name(published: &PublishedPort) -> String {
    let address = published.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let protocol = match published.port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("publish/{address}/{}/{protocol}", published.host_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(port: &str, host: Option<(u16, u16)>) -> PortBinding {
        PortBinding {
            port: port.parse().expect("port"),
            host_address: None,
            host_ports: host,
        }
    }

    #[test]
    fn takes_the_port_asked_for_and_refuses_it_twice() {
        let first = choose(&[binding("80/tcp", Some((8080, 8080)))], &[], &[]).expect("free");
        assert_eq!(first[0].host_port, 8080);
        let refusal =
            choose(&[binding("81/tcp", Some((8080, 8080)))], &[], &first).expect_err("taken");
        assert_eq!(
            refusal.message,
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        choose(&[binding("80/udp", Some((8080, 8080)))], &[], &first).expect("another protocol");
    }

    #[test]
    fn two_addresses_may_have_one_port_but_not_beside_all_addresses() {
        let mut one = binding("80/tcp", Some((80, 80)));
        one.host_address = Some([127, 0, 0, 1].into());
        let first = choose(&[one.clone()], &[], &[]).expect("free");
        let mut other = one;
        other.host_address = Some([127, 0, 0, 2].into());
        choose(&[other], &[], &first).expect("another address");
        choose(&[binding("80/tcp", Some((80, 80)))], &[], &first).expect_err("all addresses");
    }

    #[test]
    fn publishes_exposed_ports_out_of_the_range_once() {
        let exposed = [
            "80/tcp".parse().expect("port"),
            "81/tcp".parse().expect("port"),
        ];
        let chosen = choose(&[binding("80/tcp", Some((8080, 8080)))], &exposed, &[]).expect("free");
        let ports: Vec<u16> = chosen.iter().map(|published| published.host_port).collect();
        assert_eq!(ports, [8080, RANGE.0]);
    }
}
