//! Which host ports lead where.

use std::net::Ipv4Addr;

use super::config::{Port, PortBinding, Protocol};
use super::record::PublishedPort;
use super::refusal::Refusal;

/// Which ports of the host there are to choose from.
pub(crate) struct Choice<'a> {
    /// First and last for `-P` and for `-p` without one.
    pub(crate) range: (u16, u16),
    /// Those of other containers.
    pub(crate) taken: &'a [PublishedPort],
    /// Whether no other program has one; asked only where there is another to take instead.
    pub(crate) is_free: &'a dyn Fn(Protocol, Option<Ipv4Addr>, u16) -> bool,
}

/// Whether no program of this host listens there.
pub(crate) fn is_free(protocol: Protocol, address: Option<Ipv4Addr>, port: u16) -> bool {
    let at = (address.unwrap_or(Ipv4Addr::UNSPECIFIED), port);
    match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(at).is_ok(),
        Protocol::Udp => std::net::UdpSocket::bind(at).is_ok(),
    }
}

/// Chooses host ports for what a container publishes.
///
/// # Errors
///
/// A [`Refusal`] in Docker's words if a port, or each of a range, is another container's.
pub(crate) fn choose(
    bindings: &[PortBinding],
    exposed_too: &[Port],
    choice: &Choice<'_>,
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
        let (first, last) = binding.host_ports.unwrap_or(choice.range);
        let protocol = binding.port.protocol;
        let free = (first..=last).find(|number| {
            let is_published = choice.taken.iter().chain(&chosen).any(|other| {
                other.host_port == *number
                    && other.port.protocol == protocol
                    && overlap(other.host_address, binding.host_address)
            });
            let only = first == last; // then whoever has it is told by the one who cannot listen
            !is_published && (only || (choice.is_free)(protocol, binding.host_address, *number))
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

    fn among(taken: &[PublishedPort]) -> Choice<'_> {
        Choice {
            range: (49000, 49900),
            taken,
            is_free: &|_, _, _| true,
        }
    }

    #[test]
    fn takes_the_port_asked_for_and_refuses_it_twice() {
        let first =
            choose(&[binding("80/tcp", Some((8080, 8080)))], &[], &among(&[])).expect("free");
        assert_eq!(first[0].host_port, 8080);
        let refusal = choose(
            &[binding("81/tcp", Some((8080, 8080)))],
            &[],
            &among(&first),
        )
        .expect_err("taken");
        assert_eq!(
            refusal.message,
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        choose(
            &[binding("80/udp", Some((8080, 8080)))],
            &[],
            &among(&first),
        )
        .expect("another protocol");
    }

    #[test]
    fn two_addresses_may_have_one_port_but_not_beside_all_addresses() {
        let mut one = binding("80/tcp", Some((80, 80)));
        one.host_address = Some([127, 0, 0, 1].into());
        let first = choose(&[one.clone()], &[], &among(&[])).expect("free");
        let mut other = one;
        other.host_address = Some([127, 0, 0, 2].into());
        choose(&[other], &[], &among(&first)).expect("another address");
        choose(&[binding("80/tcp", Some((80, 80)))], &[], &among(&first))
            .expect_err("all addresses");
    }

    #[test]
    fn publishes_exposed_ports_out_of_the_range_once() {
        let exposed = [
            "80/tcp".parse().expect("port"),
            "81/tcp".parse().expect("port"),
        ];
        let chosen = choose(
            &[binding("80/tcp", Some((8080, 8080)))],
            &exposed,
            &among(&[]),
        )
        .expect("free");
        let ports: Vec<u16> = chosen.iter().map(|published| published.host_port).collect();
        assert_eq!(ports, [8080, 49000]);
    }

    #[test]
    fn a_port_of_another_program_is_passed_over_in_a_range() {
        let choice = Choice {
            range: (5000, 5001),
            taken: &[],
            is_free: &|protocol, _, port| (protocol, port) != (Protocol::Tcp, 5000),
        };
        let wanted = [binding("80/tcp", None), binding("80/udp", None)];
        let chosen = choose(&wanted, &[], &choice).expect("free");
        let ports: Vec<u16> = chosen.iter().map(|published| published.host_port).collect();
        assert_eq!(ports, [5001, 5000]);
        let refusal = choose(
            &[binding("81/tcp", None)],
            &[],
            &Choice {
                taken: &chosen,
                ..choice
            },
        );
        assert_eq!(
            refusal.expect_err("taken").message,
            "Bind for 0.0.0.0:5000-5001 failed: port is already allocated"
        );
        let only = [binding("80/tcp", Some((5000, 5000)))];
        choose(&only, &[], &among(&[])).expect("told elsewhere");
    }
}
