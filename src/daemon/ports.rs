//! Which host ports lead where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use super::config::{Port, PortBinding, Protocol};
use super::record::PublishedPort;
use super::refusal::Refusal;

/// Which ports of the host there are to choose from.
pub(crate) struct Choice<'a> {
    /// First and last for `-P` and for `-p` without one.
    pub(crate) range: (u16, u16),
    /// The address of the host for those who name none; `None`: all of them.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// Those of other containers.
    pub(crate) taken: &'a [PublishedPort],
    /// Whether no other program has one; asked only where there is another to take instead.
    pub(crate) is_free: &'a dyn Fn(Protocol, IpAddr, u16) -> bool,
    /// Whether this host has IPv6.
    pub(crate) has_v6: bool,
}

/// Whether no program of this host listens there.
pub(crate) fn is_free(protocol: Protocol, address: IpAddr, port: u16) -> bool {
    match protocol {
        Protocol::Tcp => TcpListener::bind((address, port)).is_ok(),
        Protocol::Udp => UdpSocket::bind((address, port)).is_ok(),
    }
}

/// Chooses host ports for what a container publishes. What names no address is to be had in both families, at the same
/// port, where the host has IPv6.
///
/// # Errors
///
/// A [`Refusal`] in Docker's words if a port, or each of a range, is another container's, or if it is asked for on an
/// IPv6 address in vain.
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
    for mut binding in bindings.iter().cloned().chain(all) {
        binding.host_address = binding.host_address.or(choice.host_address.map(IpAddr::V4));
        let (first, last) = binding.host_ports.unwrap_or(choice.range);
        let protocol = binding.port.protocol;
        let addresses = addresses(&binding, choice.has_v6)?;
        let free = (first..=last).find(|number| {
            let is_published = choice.taken.iter().chain(&chosen).any(|other| {
                other.host_port == *number
                    && other.port.protocol == protocol
                    && addresses.iter().any(|at| overlap(other.at(), *at))
            });
            let only = first == last; // then whoever has it is told by the one who cannot listen
            let is_free = |at: &IpAddr| (choice.is_free)(protocol, *at, *number);
            !is_published && (only || addresses.iter().all(is_free))
        });
        let host_port = free.ok_or_else(|| allocated(&binding, first, last))?;
        chosen.extend(addresses.iter().map(|at| PublishedPort {
            port: binding.port,
            host_address: Some(*at).filter(|at| *at != IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            host_port,
        }));
    }
    Ok(chosen)
}

/// Whether something can listen on IPv6 here.
pub(crate) fn has_v6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Where a port is to be had: of a host with IPv6, in both families unless one is named.
fn addresses(binding: &PortBinding, has_v6: bool) -> Result<Vec<IpAddr>, Refusal> {
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    match binding.host_address {
        None if has_v6 => Ok(vec![v4, v6]),
        None => Ok(vec![v4]),
        Some(IpAddr::V6(address)) if !has_v6 => Err(Refusal::invalid(format!(
            "publish on {address}: this host has no IPv6"
        ))),
        Some(address) => Ok(vec![address]),
    }
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn allocated(binding: &PortBinding, first: u16, last: u16) -> Refusal {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = binding.host_address.unwrap_or(any);
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
    let address = published.at();
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
            host_address: None,
            taken,
            is_free: &|_, _, _| true,
            has_v6: false,
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
    fn a_host_with_ipv6_has_each_port_twice() {
        let dual = |taken| Choice {
            has_v6: true,
            ..among(taken)
        };
        let any = binding("80/tcp", None);
        let first = choose(std::slice::from_ref(&any), &[], &dual(&[])).expect("free");
        let at = |published: &PublishedPort| (published.at().to_string(), published.host_port);
        let places: Vec<_> = first.iter().map(at).collect();
        assert_eq!(
            places,
            [("0.0.0.0".to_owned(), 49000), ("::".to_owned(), 49000)]
        );
        // A port that is free in one family alone is passed over.
        let second = choose(&[any], &[], &dual(&first[1..])).expect("free");
        assert_eq!(second[0].host_port, 49001);
        let at = |address: &str, port| PortBinding {
            host_address: Some(address.parse().expect("an address")),
            ..binding("80/tcp", Some((port, port)))
        };
        choose(&[at("0.0.0.0", 49000)], &[], &dual(&first[1..])).expect("of the other family");
        choose(&[at("::1", 49000)], &[], &dual(&first)).expect_err("all addresses");
        let both = [at("::1", 80), at("::2", 80)];
        assert_eq!(
            choose(&both, &[], &dual(&[])).expect("two addresses").len(),
            2
        );
        let refusal = choose(&both, &[], &among(&[])).expect_err("no IPv6");
        assert!(refusal.message.contains("no IPv6"), "{}", refusal.message);
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
            host_address: None,
            taken: &[],
            is_free: &|protocol, _, port| (protocol, port) != (Protocol::Tcp, 5000),
            has_v6: false,
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
