//! Picks one of the endpoints that may be had. Walks over them and allocates nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rand::RngExt;

use super::endpoint::{Endpoint, hash, mix};
use super::settings::Policy;

type Picked<'a> = Option<&'a Arc<Endpoint>>;

/// One of `candidates`, which may be walked over more than once and need not be the same each time.
pub(super) fn pick<'a, I>(policy: Policy, candidates: I, client: IpAddr, now: Instant) -> Picked<'a>
where
    I: Iterator<Item = &'a Arc<Endpoint>> + Clone,
{
    match policy {
        Policy::P2c => better_of_two(candidates, now),
        Policy::RoundRobin => next_in_turn(candidates),
        Policy::LeastConnections => least_loaded(candidates),
        Policy::SourceHash => highest_score(candidates, client),
        Policy::Random => any(candidates, None),
    }
}

/// By weight at random, but not `other`.
fn any<'a, I>(candidates: I, other: Picked<'a>) -> Picked<'a>
where
    I: Iterator<Item = &'a Arc<Endpoint>> + Clone,
{
    let is_other = |endpoint| other.is_some_and(|other| Arc::ptr_eq(other, endpoint));
    let candidates = candidates.filter(|endpoint| !is_other(endpoint));
    let total: u64 = candidates.clone().map(|e| u64::from(e.weight())).sum();
    if total == 0 {
        return None;
    }
    let mut point = rand::rng().random_range(0..total);
    let mut last = None;
    for endpoint in candidates {
        let weight = u64::from(endpoint.weight());
        if point < weight {
            return Some(endpoint);
        }
        point -= weight;
        last = Some(endpoint);
    }
    // Some have become unusable on the way.
    last
}

fn better_of_two<'a, I>(candidates: I, now: Instant) -> Picked<'a>
where
    I: Iterator<Item = &'a Arc<Endpoint>> + Clone,
{
    let first = any(candidates.clone(), None)?;
    match any(candidates, Some(first)) {
        Some(second) if second.cost(now) < first.cost(now) => Some(second),
        _ => Some(first),
    }
}

/// Smooth weighted round robin, as nginx has it: each is owed its weight per turn, the one who is
/// owed most gets the turn and pays for all. The debts' sum stays 0, also if several choose at once.
fn next_in_turn<'a>(candidates: impl Iterator<Item = &'a Arc<Endpoint>>) -> Picked<'a> {
    let (mut total, mut most, mut chosen) = (0, i64::MIN, None);
    for endpoint in candidates {
        let weight = i64::from(endpoint.weight());
        let owed = endpoint.turn.fetch_add(weight, Ordering::Relaxed) + weight;
        total += weight;
        if owed > most {
            (most, chosen) = (owed, Some(endpoint));
        }
    }
    let chosen = chosen?;
    chosen.turn.fetch_sub(total, Ordering::Relaxed);
    Some(chosen)
}

fn least_loaded<'a>(candidates: impl Iterator<Item = &'a Arc<Endpoint>>) -> Picked<'a> {
    let mut random = rand::rng();
    let (mut least, mut equals, mut chosen) = (f64::INFINITY, 0, None);
    for endpoint in candidates {
        // One more than it has: of idle ones the heavier is the less loaded.
        let load = (endpoint.active() + 1) as f64 / f64::from(endpoint.weight());
        if load < least {
            (least, equals, chosen) = (load, 1, Some(endpoint));
        } else if load == least {
            equals += 1;
            if random.random_range(0..equals) == 0 {
                chosen = Some(endpoint);
            }
        }
    }
    chosen
}

/// Weighted rendezvous hashing: each endpoint has a score for each client, and the highest wins, so
/// that one who comes or goes changes nothing between the others.
fn highest_score<'a>(
    candidates: impl Iterator<Item = &'a Arc<Endpoint>>,
    client: IpAddr,
) -> Picked<'a> {
    let client = hash(client);
    let score = |endpoint: &Endpoint| {
        // Uniform in (0, 1): 53 bits are what an f64 holds.
        let bits = mix(client ^ endpoint.seed) >> 11;
        let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(endpoint.weight()) / -uniform.ln()
    };
    let scored = candidates.map(|endpoint| (score(endpoint), endpoint));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map(|(_, endpoint)| endpoint)
}
