//! Which upstream is asked first.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long one that did not answer is asked only after the others.
const REST: Duration = Duration::from_secs(30);

/// As many servers as libc asks (resolv.conf(5), MAXNS).
const MOST: usize = 3;

/// The upstreams that did not answer lately, so that not each query waits for them anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(Arc<Mutex<Vec<(SocketAddr, Instant)>>>);

impl Late {
    /// The first of `upstreams`, as many as are asked, with the late ones behind the others.
    pub(super) fn last(&self, upstreams: &[SocketAddr]) -> Vec<SocketAddr> {
        let late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = |upstream: &SocketAddr| {
            let mut late = late.iter();
            late.any(|(known, since)| known == upstream && since.elapsed() < REST)
        };
        let mut order: Vec<_> = upstreams.iter().copied().take(MOST).collect();
        order.sort_by_key(is_late);
        order
    }

    pub(super) fn note(&self, upstream: SocketAddr, answered: bool) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|(known, since)| *known != upstream && since.elapsed() < REST);
        if !answered {
            late.push((upstream, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_asked_last_until_it_does() {
        let [a, b, c, d]: [SocketAddr; 4] = [1, 2, 3, 4].map(|last| ([192, 0, 2, last], 53).into());
        let late = Late::default();
        assert_eq!(late.last(&[a, b, c, d]), [a, b, c]);
        late.note(a, false);
        late.note(c, false);
        assert_eq!(late.last(&[a, b, c, d]), [b, a, c]);
        late.note(a, true);
        assert_eq!(late.last(&[a, b, c, d]), [a, b, c]);
    }
}
