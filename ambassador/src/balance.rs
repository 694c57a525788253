//! Chooses an upstream: the better of two at random, by open flows and by how long connecting took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;

/// Half-life scale of the connect-time average: an old peak fades over this time.
const FADE: Duration = Duration::from_secs(10);
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(60);

/// The endpoints of one forward, and what is known of each.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    endpoints: Mutex<Vec<Endpoint>>,
}

#[derive(Debug)]
struct Endpoint {
    address: SocketAddr,
    active: Arc<AtomicUsize>,
    /// Peak-sensitive average of the connect time, in seconds.
    average: f64,
    measured: Option<Instant>,
    failures: u32,
    ejected_until: Option<Instant>,
}

/// An endpoint that was chosen. It counts as active there until dropped.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) address: SocketAddr,
    active: Arc<AtomicUsize>,
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Balancer {
    /// Takes over a new set. Endpoints that stay keep what is known of them, and an empty set is
    /// no news: discovery that fails must not stop a service that works.
    ///
    /// Returns the endpoints that have left.
    pub(crate) fn update(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let mut endpoints = self.lock();
        let mut left = Vec::new();
        endpoints.retain(|endpoint| {
            let stays = addresses.contains(&endpoint.address);
            if !stays {
                left.push(endpoint.address);
            }
            stays
        });
        for &address in addresses {
            if endpoints.iter().all(|known| known.address != address) {
                endpoints.push(Endpoint::new(address));
            }
        }
        left
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.lock().iter().any(|known| known.address == address)
    }

    /// Chooses among the endpoints that are not in `tried`; an ejected one only if no other is left.
    pub(crate) fn choose(&self, tried: &[SocketAddr], now: Instant) -> Option<Choice> {
        let endpoints = self.lock();
        let untried = || endpoints.iter().filter(|e| !tried.contains(&e.address));
        let mut candidates: Vec<_> = untried().filter(|e| !e.is_ejected(now)).collect();
        if candidates.is_empty() {
            candidates = untried().collect();
        }
        let mut random = rand::rng();
        let chosen = match candidates.len() {
            0 => return None,
            1 => candidates[0],
            n => {
                let first = random.random_range(0..n);
                let second = (first + random.random_range(1..n)) % n;
                let (first, second) = (candidates[first], candidates[second]);
                if second.cost(now) < first.cost(now) {
                    second
                } else {
                    first
                }
            }
        };
        chosen.active.fetch_add(1, Ordering::Relaxed);
        Some(Choice {
            address: chosen.address,
            active: chosen.active.clone(),
        })
    }

    pub(crate) fn succeeded(&self, address: SocketAddr, took: Duration, now: Instant) {
        if let Some(endpoint) = self.lock().iter_mut().find(|e| e.address == address) {
            endpoint.measure(took, now);
            endpoint.failures = 0;
            endpoint.ejected_until = None;
        }
    }

    /// Ejects the endpoint for a while that doubles with each failure in a row, unless it is the
    /// last one. Returns for how long.
    pub(crate) fn failed(&self, address: SocketAddr, now: Instant) -> Option<Duration> {
        let mut endpoints = self.lock();
        let others = (endpoints.iter()).any(|e| e.address != address && !e.is_ejected(now));
        let endpoint = endpoints.iter_mut().find(|e| e.address == address)?;
        let doublings = endpoint.failures.min(16);
        endpoint.failures = endpoint.failures.saturating_add(1);
        if !others {
            return None;
        }
        let pause = (FIRST_EJECTION * (1 << doublings)).min(LONGEST_EJECTION);
        endpoint.ejected_until = Some(now + pause);
        Some(pause)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Endpoint>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            active: Arc::default(),
            average: 0.0,
            measured: None,
            failures: 0,
            ejected_until: None,
        }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    fn faded(&self, now: Instant) -> f64 {
        let age = self.measured.map_or(Duration::ZERO, |then| now - then);
        self.average * (-age.as_secs_f64() / FADE.as_secs_f64()).exp()
    }

    /// A slow connect counts at once and fully; a fast one only as the memory of slow ones fades.
    fn measure(&mut self, took: Duration, now: Instant) {
        let faded = self.faded(now);
        let took = took.as_secs_f64();
        let kept = if self.average > 0.0 {
            faded / self.average
        } else {
            0.0
        };
        self.average = if took >= faded {
            took
        } else {
            faded + took * (1.0 - kept)
        };
        self.measured = Some(now);
    }

    fn cost(&self, now: Instant) -> f64 {
        // A microsecond, so that open flows count among endpoints that were never measured.
        let active = self.active.load(Ordering::Relaxed) as f64;
        (self.faded(now) + 1e-6) * (active + 1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn balancer(ports: std::ops::RangeInclusive<u16>) -> Balancer {
        let balancer = Balancer::default();
        balancer.update(&ports.map(address).collect::<Vec<_>>());
        balancer
    }

    #[test]
    fn spreads_over_idle_endpoints() {
        let balancer = balancer(1..=4);
        let now = Instant::now();
        let held: Vec<_> = (0..400)
            .map(|_| balancer.choose(&[], now).unwrap())
            .collect();
        for port in 1..=4 {
            let share = held.iter().filter(|c| c.address == address(port)).count();
            assert!(
                (80..=120).contains(&share),
                "port {port} has {share} of 400"
            );
        }
    }

    #[test]
    fn prefers_the_faster_to_connect() {
        let balancer = balancer(1..=2);
        let now = Instant::now();
        balancer.succeeded(address(1), Duration::from_millis(50), now);
        balancer.succeeded(address(2), Duration::from_millis(1), now);
        for _ in 0..50 {
            assert_eq!(balancer.choose(&[], now).unwrap().address, address(2));
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let mut endpoint = Endpoint::new(address(1));
        let now = Instant::now();
        endpoint.measure(Duration::from_millis(1), now);
        endpoint.measure(Duration::from_secs(1), now);
        assert!(endpoint.faded(now) > 0.99);
        let later = now + 5 * FADE;
        endpoint.measure(Duration::from_millis(1), later);
        assert!(endpoint.faded(later) < 0.05);
    }

    #[test]
    fn ejection_doubles_and_ends() {
        let balancer = balancer(1..=2);
        let now = Instant::now();
        let pauses: Vec<_> = (0..8)
            .filter_map(|_| balancer.failed(address(1), now))
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..50 {
            assert_eq!(balancer.choose(&[], now).unwrap().address, address(2));
        }
        balancer.succeeded(address(1), Duration::ZERO, now);
        assert_eq!(balancer.failed(address(1), now), Some(FIRST_EJECTION));
        let over = now + FIRST_EJECTION;
        let tried = [address(2)];
        assert_eq!(balancer.choose(&tried, over).unwrap().address, address(1));
    }

    #[test]
    fn the_last_endpoint_is_never_ejected() {
        let balancer = balancer(1..=2);
        let now = Instant::now();
        assert!(balancer.failed(address(1), now).is_some());
        assert!(balancer.failed(address(2), now).is_none());
        assert_eq!(balancer.choose(&[], now).unwrap().address, address(2));
    }

    #[test]
    fn an_ejected_endpoint_is_better_than_none() {
        let balancer = balancer(1..=2);
        let now = Instant::now();
        balancer.failed(address(1), now);
        let choice = balancer.choose(&[address(2)], now).unwrap();
        assert_eq!(choice.address, address(1));
        assert!(balancer.choose(&[address(1), address(2)], now).is_none());
    }

    #[test]
    fn an_update_keeps_what_stays_and_ignores_emptiness() {
        let balancer = balancer(1..=2);
        let now = Instant::now();
        balancer.failed(address(1), now);
        assert!(balancer.update(&[]).is_empty());
        assert_eq!(balancer.update(&[address(1), address(3)]), [address(2)]);
        assert_eq!(balancer.choose(&[], now).unwrap().address, address(3));
        assert!(!balancer.contains(address(2)));
    }
}
