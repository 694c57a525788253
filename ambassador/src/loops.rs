//! Finds forwards that lead back to themselves.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::{Forward, Listen, sni, sys};

/// Whether a connection to `endpoint` arrives at `listen`.
pub(crate) fn reaches(endpoint: SocketAddr, listen: Listen) -> bool {
    let (to, at) = (endpoint.ip().to_canonical(), listen.address.ip());
    if endpoint.port() != listen.address.port() || endpoint.port() == 0 {
        return false;
    }
    if !at.is_unspecified() {
        return to == at.to_canonical();
    }
    // 0.0.0.0 takes only IPv4, [::] takes both unless it is told not to.
    let takes = match at.is_ipv6() {
        true => to.is_ipv6() || !listen.only_v6,
        false => to.is_ipv4(),
    };
    takes && (to.is_unspecified() || sys::is_local(endpoint))
}

/// The names along the first loop there is, the first name again at the end.
///
/// Sees what is resolved now; a name that later resolves to its own listener is left out then.
pub(crate) fn find(forwards: &[Forward]) -> Option<Vec<String>> {
    let mut next: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, forward) in forwards.iter().enumerate() {
        let endpoints = sni::endpoints(forward);
        let hit = |listen: Listen| {
            listen.protocol == forward.listen.protocol
                && endpoints.iter().any(|&endpoint| reaches(endpoint, listen))
        };
        let targets = (0..forwards.len()).filter(|&other| hit(forwards[other].listen));
        next.insert(index, targets.collect());
    }
    let mut done = vec![false; forwards.len()];
    (0..forwards.len()).find_map(|start| {
        let path = walk(start, &next, &mut done, &mut Vec::new())?;
        Some(
            path.into_iter()
                .map(|index| forwards[index].name.clone())
                .collect(),
        )
    })
}

fn walk(
    at: usize,
    next: &HashMap<usize, Vec<usize>>,
    done: &mut [bool],
    path: &mut Vec<usize>,
) -> Option<Vec<usize>> {
    if let Some(begin) = path.iter().position(|&seen| seen == at) {
        return Some(path[begin..].iter().copied().chain([at]).collect());
    }
    if done[at] {
        return None;
    }
    path.push(at);
    let found = next[&at]
        .iter()
        .find_map(|&target| walk(target, next, done, path));
    path.pop();
    done[at] = true;
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{EndpointSet, Protocol};

    fn forward(name: &str, listen: &str, to: &str) -> Forward {
        let listen = Listen {
            protocol: Protocol::Tcp,
            address: listen.parse().unwrap(),
            only_v6: false,
        };
        Forward::new(name, listen, EndpointSet::fixed(vec![to.parse().unwrap()]))
    }

    #[test]
    fn a_chain_is_no_loop() {
        let forwards = [
            forward("a", "127.0.0.1:7001", "127.0.0.1:7002"),
            forward("b", "127.0.0.1:7002", "127.0.0.1:7003"),
            forward("c", "127.0.0.2:7001", "127.0.0.1:7001"),
        ];
        assert_eq!(find(&forwards), None);
    }

    #[test]
    fn a_listener_that_is_its_own_upstream_is_a_loop() {
        for (listen, to) in [
            ("127.0.0.1:7001", "127.0.0.1:7001"),
            ("0.0.0.0:7001", "127.0.0.2:7001"),
            ("[::]:7001", "127.0.0.1:7001"),
            ("[::]:7001", "[::1]:7001"),
            ("0.0.0.0:7001", "0.0.0.0:7001"),
        ] {
            let found = find(&[forward("a", listen, to)]);
            assert_eq!(
                found,
                Some(vec!["a".to_owned(), "a".to_owned()]),
                "{listen} {to}"
            );
        }
    }

    #[test]
    fn a_longer_loop_is_named_whole() {
        let forwards = [
            forward("in", "127.0.0.1:7000", "127.0.0.1:7001"),
            forward("a", "127.0.0.1:7001", "127.0.0.1:7002"),
            forward("b", "127.0.0.1:7002", "127.0.0.1:7001"),
        ];
        assert_eq!(find(&forwards).unwrap(), ["a", "b", "a"]);
    }

    #[test]
    fn the_same_port_elsewhere_is_no_loop() {
        let forwards = [forward("a", "0.0.0.0:7001", "192.0.2.1:7001")];
        assert_eq!(find(&forwards), None);
    }
}
