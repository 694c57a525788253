//! How often what is worth a figure has happened since the daemon began.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::container::locked;

/// Things that are counted; what would be one more is not.
const MOST: usize = 4096;

/// Counts by what happened and to what.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Tally {
    pub(super) fn count(&self, what: &'static str, of: &str) {
        let mut counts = locked(&self.0);
        let key = (what, of.to_owned());
        if counts.len() < MOST || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    /// How often `what` has happened, by what it happened to.
    pub(super) fn of(&self, what: &str) -> BTreeMap<String, u64> {
        let counts = locked(&self.0);
        let of = counts.iter().filter(|((kind, _), _)| *kind == what);
        of.map(|((_, of), count)| (of.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_and_go_on_for_what_is_there() {
        let tally = Tally::default();
        for number in 0..MOST + 5 {
            tally.count("repair", &number.to_string());
        }
        tally.count("repair", "0");
        let counts = tally.of("repair");
        assert_eq!(counts.len(), MOST);
        assert_eq!(counts["0"], 2);
        assert!(tally.of("other").is_empty());
    }
}
