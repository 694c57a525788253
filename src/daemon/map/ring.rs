//! What links have carried, now and in the last hour.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rate;

/// Links that are kept.
const LINKS: usize = 4000;
/// Samples of all links together: 16 MiB or so.
const SAMPLES: usize = 200_000;
/// How far back they go.
const HOUR: i64 = 3_600_000;
/// A rate is over at least so many milliseconds, and at most.
const LEAST: i64 = 900;
const MOST: i64 = 12_000;

/// What a link has carried since the ambassador began.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Carried {
    /// Flows that are open.
    pub(super) open: u64,
    /// Flows that were opened, straight ones among them.
    pub(super) flows: u64,
    /// From clients.
    pub(super) bytes_in: u64,
    /// To clients.
    pub(super) bytes_out: u64,
    /// Attempts to reach an endpoint that failed, and newcomers that found none.
    pub(super) errors: u64,
    /// Endpoints that were reached, and how long that took together, in microseconds.
    pub(super) connects: u64,
    pub(super) connect_micros: u64,
}

impl Carried {
    pub(super) fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.flows += other.flows;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.errors += other.errors;
        self.connects += other.connects;
        self.connect_micros += other.connect_micros;
    }
}

/// Milliseconds since 1970, and what had been carried then.
pub(crate) type Sample = (i64, Carried);

#[derive(Debug, Default)]
struct Ring {
    now: Carried,
    /// Those that differ from the one before, the oldest first.
    samples: VecDeque<Sample>,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    links: BTreeMap<String, Ring>,
    /// The last looks at all of them, for rates.
    looks: VecDeque<(i64, BTreeMap<String, Carried>)>,
    samples: usize,
}

impl Rings {
    /// Takes what the links have carried now; those that are not named are forgotten. `keep`: it is one of the samples of
    /// the last hour.
    pub(super) fn note(&mut self, links: BTreeMap<String, Carried>, time: Timestamp, keep: bool) {
        let time = time.as_millisecond();
        self.links.retain(|id, _| links.contains_key(id));
        for (id, carried) in &links {
            if self.links.len() == LINKS && !self.links.contains_key(id) {
                continue;
            }
            let ring = self.links.entry(id.clone()).or_default();
            ring.now = *carried;
            if (keep || ring.samples.is_empty())
                && ring.samples.back().is_none_or(|(_, last)| last != carried)
            {
                ring.samples.push_back((time, *carried));
            }
            // The last one before the hour says how things were when it began.
            while ring
                .samples
                .get(1)
                .is_some_and(|(then, _)| *then < time - HOUR)
            {
                ring.samples.pop_front();
            }
        }
        self.bound();
        if self
            .looks
            .back()
            .is_none_or(|(last, _)| time - last >= LEAST)
        {
            self.looks.push_back((time, links));
        }
        while self.looks.len() > 2
            && self
                .looks
                .get(1)
                .is_some_and(|(then, _)| time - then >= LEAST)
            || self
                .looks
                .front()
                .is_some_and(|(then, _)| time - then > MOST)
                && self.looks.len() > 1
        {
            self.looks.pop_front();
        }
    }

    /// Takes the oldest half of each link's samples if there are too many of all.
    fn bound(&mut self) {
        self.samples = self.links.values().map(|ring| ring.samples.len()).sum();
        if self.samples > SAMPLES {
            for ring in self.links.values_mut() {
                ring.samples.drain(..ring.samples.len() / 2);
            }
        }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &String> {
        self.links.keys()
    }

    pub(super) fn carried(&self, id: &str) -> Option<Carried> {
        Some(self.links.get(id)?.now)
    }

    /// Absent where there was but one look.
    pub(super) fn rate(&self, id: &str) -> Option<Rate> {
        let now = &self.links.get(id)?.now;
        let (last, _) = self.looks.back()?;
        let (then, looked) = self.looks.front().filter(|(then, _)| then < last)?;
        // A link that was not there had carried nothing.
        let before = looked.get(id).copied().unwrap_or_default();
        let seconds = (last - then) as f64 / 1000.0;
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        Some(Rate {
            bytes_in: rate(now.bytes_in, before.bytes_in),
            bytes_out: rate(now.bytes_out, before.bytes_out),
            flows: rate(now.flows, before.flows),
        })
    }

    pub(super) fn samples(&self, id: &str) -> Vec<Sample> {
        let ring = self.links.get(id);
        ring.map_or_else(Vec::new, |ring| ring.samples.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(bytes_in: u64) -> Carried {
        Carried {
            bytes_in,
            ..Carried::default()
        }
    }

    fn note(rings: &mut Rings, second: i64, links: &[(&str, u64)]) {
        let time = Timestamp::from_second(1_000_000 + second).expect("a time");
        let links = links
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), carried(*bytes)));
        rings.note(links.collect(), time, true);
    }

    #[test]
    fn rates_are_over_the_last_look_and_idle_links_stay_without_samples() {
        let mut rings = Rings::default();
        note(&mut rings, 0, &[("a", 100), ("idle", 7)]);
        assert!(rings.rate("a").is_none());
        note(&mut rings, 10, &[("a", 1100), ("idle", 7)]);
        let rate = rings.rate("a").expect("two looks");
        assert!((rate.bytes_in - 100.0).abs() < 1e-9, "{rate:?}");
        let idle = rings.rate("idle").expect("two looks");
        assert!(idle.bytes_in.abs() < 1e-9);
        assert_eq!(rings.samples("idle").len(), 1);
        note(&mut rings, 20, &[("a", 1100), ("idle", 7)]);
        assert!(rings.rate("a").expect("two looks").bytes_in.abs() < 1e-9);
        note(&mut rings, 30, &[("idle", 7)]);
        assert_eq!(rings.links().collect::<Vec<_>>(), ["idle"]);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut rings = Rings::default();
        for step in 0..1000 {
            note(&mut rings, step * 10, &[("a", step as u64)]);
        }
        let samples = rings.samples("a");
        assert!((360..=362).contains(&samples.len()), "{}", samples.len());
        assert_eq!(
            samples.last(),
            Some(&((1_000_000 + 9990) * 1000, carried(999)))
        );
        assert!(rings.looks.len() <= 3);
    }

    #[test]
    fn links_and_samples_are_bounded() {
        let mut rings = Rings::default();
        let ids: Vec<String> = (0..LINKS + 10).map(|number| number.to_string()).collect();
        for step in 0..80 {
            let links: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), step)).collect();
            note(&mut rings, i64::try_from(step).expect("small") * 10, &links);
            assert_eq!(rings.links.len(), LINKS);
            let all: usize = rings.links.values().map(|ring| ring.samples.len()).sum();
            assert!(all <= SAMPLES + LINKS, "{all}");
        }
    }
}
