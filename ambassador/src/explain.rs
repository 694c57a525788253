//! Tells what a listener does, and why.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::running::Running;
use crate::{Discovery, Edge, EndpointState, EndpointView, Listen, NamePattern, Policy};

/// What a listener does at one moment, and why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The name of its forward.
    pub name: String,
    /// What was asked for.
    pub listen: Listen,
    /// What the kernel gave: the port is never 0.
    pub local: SocketAddr,
    /// How newcomers are spread over the endpoints.
    pub policy: Policy,
    /// The upstreams of those who ask for no name, or for one that is not listed.
    pub own: Upstreams,
    /// The upstreams of those who ask for a server name, by name.
    pub names: Vec<(NamePattern, Upstreams)>,
    /// Flows that are open or being connected.
    pub flows: usize,
}

/// Where newcomers are sent.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// Whether discovery has answered; newcomers are held until then.
    pub resolved: bool,
    /// How the endpoints are known.
    pub discovery: Discovery,
    /// What is known of each.
    pub endpoints: Vec<EndpointView>,
    /// Which of them the next newcomer gets.
    pub next: Preview,
}

/// Which endpoint the next newcomer gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preview {
    /// The endpoint; none if nobody can tell, or there is none.
    pub endpoint: Option<SocketAddr>,
    /// Why it is that one, or none.
    pub why: String,
}

impl Explained {
    pub(crate) fn new(running: &Running, now: Instant) -> Self {
        let mut own = Upstreams::new(running, now);
        let refuses = |edge: &Edge| edge.sni.as_ref().is_some_and(|sni| sni.refuse_others);
        if refuses(&running.edge.borrow()) {
            own.next = nobody("those who ask for no name that is listed are refused");
        }
        let names = running.routes.all().into_iter();
        Self {
            name: running.name.to_string(),
            listen: running.listen,
            local: running.local,
            policy: running.balancer.policy(),
            own,
            names: names
                .map(|(name, route)| (name, Upstreams::new(&route, now)))
                .collect(),
            flows: running.open.now(),
        }
    }
}

impl Upstreams {
    fn new(running: &Running, now: Instant) -> Self {
        let endpoints = running.balancer.views(now);
        let (policy, resolved) = (running.balancer.policy(), *running.resolved.borrow());
        Self {
            resolved,
            discovery: running.discovery(),
            next: preview(policy, resolved, &endpoints),
            endpoints,
        }
    }
}

fn nobody(why: &str) -> Preview {
    Preview {
        endpoint: None,
        why: why.to_owned(),
    }
}

fn preview(policy: Policy, resolved: bool, endpoints: &[EndpointView]) -> Preview {
    if !resolved {
        return nobody("discovery has not answered yet: newcomers are held");
    }
    let leaving = |view: &EndpointView| matches!(view.state, EndpointState::Leaving { .. });
    let present: Vec<_> = endpoints.iter().filter(|view| !leaving(view)).collect();
    let usable: Vec<_> = present.iter().copied().filter(|view| view.usable).collect();
    match (&usable[..], &present[..]) {
        (_, []) => nobody("there is no endpoint: newcomers are refused"),
        ([], [only]) if only.state != EndpointState::Full => Preview {
            endpoint: Some(only.address),
            why: format!("it is {}, but there is no other", only.state.name()),
        },
        ([], _) if present.iter().all(|view| view.state == EndpointState::Full) => {
            nobody("every endpoint is full: newcomers wait")
        }
        ([], _) => nobody("no endpoint is well: newcomers try them all"),
        ([only], _) => Preview {
            endpoint: Some(only.address),
            why: match present.len() {
                1 => "it is the only one".to_owned(),
                all => format!("it is the only one of {all} that can be used"),
            },
        },
        (usable, _) => by_policy(policy, usable),
    }
}

/// Of two or more that can be used.
fn by_policy(policy: Policy, usable: &[&EndpointView]) -> Preview {
    let count = usable.len();
    match policy {
        Policy::P2c => best_cost(usable),
        Policy::LeastConnections => fewest_flows(usable),
        Policy::RoundRobin => Preview {
            endpoint: None,
            why: format!("{count} take turns"),
        },
        Policy::SourceHash => Preview {
            endpoint: None,
            why: format!("each client has its own of {count}, by its address"),
        },
        Policy::Random => Preview {
            endpoint: None,
            why: format!("any of {count}, at random"),
        },
    }
}

fn best_cost(usable: &[&EndpointView]) -> Preview {
    let best = least(usable, cost);
    let [best] = best[..] else {
        return Preview {
            endpoint: None,
            why: format!("{} are equally good: one at random", best.len()),
        };
    };
    let took = best.connect_time.unwrap_or(Duration::ZERO);
    let why = format!(
        "it costs least ({} open, connects in {:.3} ms, weight {})",
        best.active,
        took.as_secs_f64() * 1e3,
        best.weight
    );
    Preview {
        endpoint: Some(best.address),
        why: match usable.len() {
            2 => why,
            count => format!("{why}, if it is one of the two that are drawn out of {count}"),
        },
    }
}

fn fewest_flows(usable: &[&EndpointView]) -> Preview {
    let load = |view: &EndpointView| view.active as f64 / f64::from(view.weight.get());
    match least(usable, load)[..] {
        [best] => Preview {
            endpoint: Some(best.address),
            why: format!("it has the fewest flows for its weight ({})", best.active),
        },
        ref equal => Preview {
            endpoint: None,
            why: format!("{} have equally few flows: one at random", equal.len()),
        },
    }
}

/// As the balancer reckons; a microsecond makes open flows count among those never measured.
fn cost(view: &EndpointView) -> f64 {
    let took = view.connect_time.unwrap_or(Duration::ZERO).as_secs_f64();
    (took + 1e-6) * (view.active as f64 + 1.0) / f64::from(view.weight.get())
}

/// Those whose value is the least there is.
fn least<'a>(
    views: &[&'a EndpointView],
    value: impl Fn(&EndpointView) -> f64,
) -> Vec<&'a EndpointView> {
    let least = views
        .iter()
        .map(|view| value(view))
        .fold(f64::INFINITY, f64::min);
    let is_least = |view: &&EndpointView| value(view) <= least;
    views.iter().copied().filter(is_least).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::num::NonZeroU16;
    use std::time::SystemTime;

    use super::*;

    fn view(port: u16, active: usize, milliseconds: u64) -> EndpointView {
        EndpointView {
            address: ([127, 0, 0, 1], port).into(),
            weight: NonZeroU16::MIN,
            state: EndpointState::Up,
            usable: true,
            active,
            connect_time: Some(Duration::from_millis(milliseconds)),
            failures: 0,
            ejected_until: None,
            last_failure: None,
            last_check_failure: None,
            first_seen: SystemTime::UNIX_EPOCH,
            last_seen: SystemTime::UNIX_EPOCH,
        }
    }

    fn unusable(port: u16, state: EndpointState) -> EndpointView {
        EndpointView {
            state,
            usable: false,
            ..view(port, 0, 1)
        }
    }

    fn told(policy: Policy, endpoints: &[EndpointView]) -> (Option<u16>, String) {
        let preview = preview(policy, true, endpoints);
        (preview.endpoint.map(|address| address.port()), preview.why)
    }

    #[test]
    fn the_choice_is_told_where_it_is_certain() {
        use Policy::{LeastConnections, P2c, RoundRobin, SourceHash};
        let until = SystemTime::UNIX_EPOCH;
        let ejected = EndpointState::Ejected { until };
        let leaving = EndpointState::Leaving { until: None };
        let (one, two) = (view(1, 3, 5), view(2, 0, 9));
        let cases = [
            (P2c, vec![], None, "refused"),
            (P2c, vec![one.clone()], Some(1), "only one"),
            (P2c, vec![one.clone(), two.clone()], Some(2), "costs least"),
            (P2c, vec![one.clone(), one.clone()], None, "equally good"),
            (
                P2c,
                vec![one.clone(), two.clone(), view(3, 9, 9)],
                Some(2),
                "out of 3",
            ),
            (
                LeastConnections,
                vec![view(1, 3, 1), view(2, 2, 9)],
                Some(2),
                "fewest flows",
            ),
            (
                LeastConnections,
                vec![view(1, 3, 1), view(2, 3, 9)],
                None,
                "equally few",
            ),
            (
                RoundRobin,
                vec![one.clone(), two.clone()],
                None,
                "take turns",
            ),
            (
                SourceHash,
                vec![one.clone(), two.clone()],
                None,
                "by its address",
            ),
            (
                P2c,
                vec![unusable(1, ejected), two.clone()],
                Some(2),
                "only one of 2",
            ),
            (
                P2c,
                vec![unusable(1, leaving), two.clone()],
                Some(2),
                "is the only one",
            ),
            (
                P2c,
                vec![unusable(1, ejected)],
                Some(1),
                "ejected, but there is no other",
            ),
            (P2c, vec![unusable(1, EndpointState::Full)], None, "full"),
            (
                P2c,
                vec![unusable(1, EndpointState::Down), unusable(2, ejected)],
                None,
                "try them all",
            ),
        ];
        for (policy, endpoints, port, why) in cases {
            let (told, reason) = told(policy, &endpoints);
            assert_eq!(told, port, "{policy}: {reason}: {endpoints:?}");
            assert!(reason.contains(why), "{reason} does not say {why}");
        }
        let unresolved = preview(P2c, false, &[]);
        assert!(unresolved.why.contains("held"), "{unresolved:?}");
    }
}
