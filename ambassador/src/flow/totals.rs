//! What forwards and their endpoints have seen, counted without a lock on the way of the bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::end::Ends;
use super::histogram::{ConnectTimes, Durations};

/// Endpoints of one forward that are counted apart; those beyond share one count.
const MOST_ENDPOINTS: usize = 256;
/// How long an endpoint that has left stays in the metrics.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What one forward has seen.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Newcomers that found no upstream.
    pub(crate) refused: AtomicU64,
    /// Attempts to reach another endpoint after one has failed.
    pub(crate) retries: AtomicU64,
    /// Those who were turned away at an edge.
    pub(crate) edge: crate::edge::Totals,
    endpoints: RwLock<HashMap<SocketAddr, Known>>,
    /// Stands in for the endpoints that are one too many.
    others: Arc<EndpointTotals>,
    /// Stands in where no endpoint was found.
    nowhere: Arc<EndpointTotals>,
}

#[derive(Debug)]
struct Known {
    totals: Arc<EndpointTotals>,
    /// Since when it is not among the forward's endpoints.
    gone: Option<Instant>,
}

/// What one endpoint has seen, from one forward.
#[derive(Debug, Default)]
pub(crate) struct EndpointTotals {
    pub(crate) open: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) ejections: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) connect_times: ConnectTimes,
    pub(crate) durations: Durations,
    pub(crate) ends: Ends,
}

impl Totals {
    /// Learns which endpoints there are. Those that are not among them are forgotten after a while.
    pub(crate) fn present(&self, addresses: &[SocketAddr], now: Instant) {
        let mut endpoints = self.write();
        for (address, known) in endpoints.iter_mut() {
            if addresses.contains(address) {
                known.gone = None;
            } else {
                known.gone.get_or_insert(now);
            }
        }
        for &address in addresses {
            insert(&mut endpoints, address, None);
        }
        forget(&mut endpoints, now);
    }

    /// The count of `address`, or the one of all that are too many.
    pub(crate) fn endpoint(&self, address: Option<SocketAddr>) -> Arc<EndpointTotals> {
        let Some(address) = address else {
            return self.nowhere.clone();
        };
        if let Some(known) = self.read().get(&address) {
            return known.totals.clone();
        }
        // It was chosen just before it left.
        let inserted = insert(&mut self.write(), address, Some(Instant::now()));
        inserted.unwrap_or_else(|| self.others.clone())
    }

    /// An attempt to reach `address` has failed. `ejected`: it is not chosen for a while.
    pub(crate) fn failed(&self, address: SocketAddr, ejected: bool) {
        let endpoint = self.endpoint(Some(address));
        endpoint.connect_failures.fetch_add(1, Ordering::Relaxed);
        let ejections = u64::from(ejected);
        endpoint.ejections.fetch_add(ejections, Ordering::Relaxed);
    }

    /// Every count with the name of its endpoint; those of no endpoint only if they were needed.
    pub(crate) fn each(&self, now: Instant) -> Vec<(String, Arc<EndpointTotals>)> {
        let mut endpoints = self.write();
        forget(&mut endpoints, now);
        let named = endpoints
            .iter()
            .map(|(address, known)| (address.to_string(), known.totals.clone()));
        let unnamed = [("none", &self.nowhere), ("other", &self.others)];
        let unnamed = (unnamed.into_iter())
            .filter(|(_, totals)| !totals.is_unused())
            .map(|(name, totals)| (name.to_owned(), totals.clone()));
        let mut each: Vec<_> = named.chain(unnamed).collect();
        each.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        each
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<SocketAddr, Known>> {
        self.endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SocketAddr, Known>> {
        (self.endpoints.write()).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The count of `address`, unless there are too many; one that has left gives up its place first.
fn insert(
    endpoints: &mut HashMap<SocketAddr, Known>,
    address: SocketAddr,
    gone: Option<Instant>,
) -> Option<Arc<EndpointTotals>> {
    if !endpoints.contains_key(&address) && endpoints.len() >= MOST_ENDPOINTS {
        let left = endpoints.iter().filter(|(_, known)| known.is_over());
        let longest = left.min_by_key(|(_, known)| known.gone)?;
        let longest = *longest.0;
        endpoints.remove(&longest);
    }
    let known = endpoints.entry(address).or_insert_with(|| Known {
        totals: Arc::default(),
        gone,
    });
    Some(known.totals.clone())
}

fn forget(endpoints: &mut HashMap<SocketAddr, Known>, now: Instant) {
    endpoints.retain(|_, known| {
        let long = |gone| now.saturating_duration_since(gone) >= FORGET_AFTER;
        !(known.is_over() && known.gone.is_some_and(long))
    });
}

impl Known {
    fn is_over(&self) -> bool {
        self.gone.is_some() && self.totals.open.load(Ordering::Relaxed) == 0
    }
}

impl EndpointTotals {
    fn is_unused(&self) -> bool {
        self.opened.load(Ordering::Relaxed) == 0 && self.ends.counts().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn names(totals: &Totals, now: Instant) -> Vec<String> {
        totals.each(now).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn who_has_left_is_forgotten_after_a_while_unless_flows_go_on() {
        let (totals, now) = (Totals::default(), Instant::now());
        totals.present(&[address(1), address(2), address(3)], now);
        let busy = totals.endpoint(Some(address(2)));
        busy.open.store(1, Ordering::Relaxed);
        totals.present(&[address(3)], now);
        assert_eq!(names(&totals, now).len(), 3, "not at once");
        let later = now + FORGET_AFTER;
        assert_eq!(names(&totals, later), ["127.0.0.1:2", "127.0.0.1:3"]);
        busy.open.store(0, Ordering::Relaxed);
        assert_eq!(names(&totals, later), ["127.0.0.1:3"]);
    }

    #[test]
    fn who_comes_back_is_not_forgotten() {
        let (totals, now) = (Totals::default(), Instant::now());
        totals.present(&[address(1)], now);
        totals.present(&[address(2)], now);
        totals.present(&[address(1), address(2)], now);
        assert_eq!(names(&totals, now + FORGET_AFTER).len(), 2);
    }

    #[test]
    fn endpoints_beyond_the_bound_share_a_count() {
        let (totals, now) = (Totals::default(), Instant::now());
        let most = u16::try_from(MOST_ENDPOINTS).expect("a small number");
        let all: Vec<_> = (1..=most).map(address).collect();
        totals.present(&all, now);
        let one_more = totals.endpoint(Some(address(most + 1)));
        one_more.opened.store(1, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&one_more, &totals.others));
        let shown = names(&totals, now);
        assert_eq!(shown.len(), MOST_ENDPOINTS + 1);
        assert!(shown.contains(&"other".to_owned()));
        // One that has left makes room at once.
        totals.present(&all[1..], now);
        let one_more = totals.endpoint(Some(address(most + 1)));
        assert!(!Arc::ptr_eq(&one_more, &totals.others));
        assert!(!names(&totals, now).contains(&address(1).to_string()));
    }
}
