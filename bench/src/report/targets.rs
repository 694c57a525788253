//! What is meant to be reached, as ratios of medians of one run; and of that, the ambassador's part.

use super::figures::{Better, DIRECT, RELAY};
use super::samples::Samples;

const ALL: &[&str] = &[
    "haproxy",
    "haproxy-splice",
    "nginx",
    "docker-proxy",
    "socat",
];
const HAPROXY: &[&str] = &["haproxy", "haproxy-splice"];
const EVENT_DRIVEN: &[&str] = &["haproxy", "haproxy-splice", "nginx"];
const DIRECTLY: &[&str] = &[DIRECT];

/// A bound on a figure of one of our paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(super) path: &'static str,
    pub(super) figure: &'static str,
    bound: f64,
    /// The best of these is what the figure is compared with; nobody is, if empty.
    pub(super) against: &'static [&'static str],
    words: &'static str,
}

pub(super) const fn target(
    path: &'static str,
    figure: &'static str,
    bound: f64,
    against: &'static [&'static str],
    words: &'static str,
) -> Target {
    Target {
        path,
        figure,
        bound,
        against,
        words,
    }
}

/// All of the ambassador. A figure of which more is better must reach its bound, others must not exceed it.
pub(crate) const TARGETS: [Target; 23] = [
    target("rewrite", "bulk1", 0.98, DIRECTLY, "direct"),
    target("rewrite", "redis50.ops", 0.98, DIRECTLY, "direct"),
    target("rewrite", "connect", 0.95, DIRECTLY, "direct"),
    target("nat", "bulk1", 0.9, DIRECTLY, "direct"),
    target("nat", "redis50.ops", 0.85, DIRECTLY, "direct"),
    target(RELAY, "bulk1", 0.7, DIRECTLY, "direct"),
    target(
        RELAY,
        "bulk1",
        2.0,
        &["haproxy-splice"],
        "HAProxy with splice-auto",
    ),
    target(RELAY, "bulk1", 4.0, &["socat"], "socat"),
    target(RELAY, "bulk1", 1.2, &["docker-proxy"], "docker-proxy"),
    target(RELAY, "bulk8", 1.2, ALL, "the best peer"),
    target(RELAY, "cpu", 0.5, HAPROXY, "the better of both HAProxys"),
    target(
        RELAY,
        "redis50.ops",
        1.15,
        EVENT_DRIVEN,
        "the best of HAProxy and nginx",
    ),
    target(
        RELAY,
        "redis50p16.ops",
        1.15,
        EVENT_DRIVEN,
        "the best of HAProxy and nginx",
    ),
    target(RELAY, "redis1.p50", 1.0, ALL, "the best peer"),
    target(
        RELAY,
        "connect",
        1.1,
        EVENT_DRIVEN,
        "the best of HAProxy and nginx",
    ),
    target(RELAY, "udpgso", 5.0, ALL, "the best peer"),
    target(RELAY, "udp1400x1", 2.0, ALL, "the best peer"),
    target(RELAY, "udp1400x64", 2.0, ALL, "the best peer"),
    target(RELAY, "udp64x1", 2.0, ALL, "the best peer"),
    target(RELAY, "udp64x64", 2.0, ALL, "the best peer"),
    target(RELAY, "idle", 1024.0, &[], ""),
    target(RELAY, "stall", (4 << 20) as f64, &[], ""),
    target(RELAY, "size", (15 << 20) as f64, &[], ""),
];

/// What became of a target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The path and the figure.
    pub(crate) subject: (&'static str, &'static str),
    /// The bound, in words.
    pub(crate) wanted: String,
    /// The ratio, or the figure; none if it was not measured.
    pub(crate) reached: Option<String>,
    pub(crate) met: bool,
}

/// The targets whose path and figure a run has something to say on.
pub(crate) fn outcomes(samples: &Samples) -> Vec<Outcome> {
    (samples.suite.targets.iter())
        .map(|target| target.outcome(samples))
        .collect()
}

impl Target {
    fn outcome(&self, samples: &Samples) -> Outcome {
        let figure = samples.suite.figure(self.figure);
        let figure = figure.expect("targets name figures there are");
        let sign = match figure.better {
            Better::More => '≥',
            Better::Less => '≤',
        };
        let absolute = |value: f64| {
            let (digits, unit) = (figure.digits, figure.unit);
            format!("{:.digits$} {unit}", value / figure.scale)
        };
        let (value, wanted, show): (_, _, &dyn Fn(f64) -> String) = if self.against.is_empty() {
            let wanted = format!("{sign} {}", absolute(self.bound));
            (samples.median(self.path, self.figure), wanted, &absolute)
        } else {
            let wanted = format!("{sign} {} × {}", self.bound, self.words);
            let ratio = |value: f64| format!("{value:.2}");
            (self.ratio(samples, figure.better), wanted, &{ ratio })
        };
        let met = value.is_some_and(|value| match figure.better {
            Better::More => value >= self.bound,
            Better::Less => value <= self.bound,
        });
        Outcome {
            subject: (self.path, figure.label),
            wanted,
            reached: value.map(show),
            met,
        }
    }

    fn ratio(&self, samples: &Samples, better: Better) -> Option<f64> {
        let value = samples.median(self.path, self.figure)?;
        let others = (self.against.iter()).filter_map(|path| samples.median(path, self.figure));
        let best = others.reduce(|one, other| match better {
            Better::More => one.max(other),
            Better::Less => one.min(other),
        })?;
        (best > 0.0).then(|| value / best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::AMBASSADOR;

    #[test]
    fn a_ratio_is_to_the_best() {
        let text = "1\tnuncio\tcpu\t1\n1\thaproxy\tcpu\t3\n1\thaproxy-splice\tcpu\t2\n\
                    1\tnuncio\tbulk8\t6\n1\tsocat\tbulk8\t2\n1\tnginx\tbulk8\t4\n\
                    1\tnuncio\tidle\t1025\n";
        let samples = Samples::parse(text, &AMBASSADOR).expect("samples");
        let outcomes = outcomes(&samples);
        let of = |label, wanted: &str| {
            let found = |outcome: &&Outcome| {
                outcome.subject == ("nuncio", label) && outcome.wanted.starts_with(wanted)
            };
            let outcome = outcomes.iter().find(found).expect("an outcome");
            (outcome.reached.as_deref(), outcome.met)
        };
        assert_eq!(of("CPU of the forwarder", "≤ 0.5 ×"), (Some("0.50"), true));
        assert_eq!(of("bulk, 8 streams", "≥ 1.2 ×"), (Some("1.50"), true));
        assert_eq!(
            of("memory of an idle flow", "≤ 1024 B"),
            (Some("1025 B"), false)
        );
        assert_eq!(of("new connections", "≥ 1.1 ×"), (None, false));
    }
}
