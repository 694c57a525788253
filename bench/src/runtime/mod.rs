//! What bench/runtime.sh measures a container runtime with.

pub(crate) mod files;
mod http;
pub(crate) mod life;
pub(crate) mod program;

use std::time::{Duration, Instant};

use anyhow::Result;

/// Does `work` some times and prints the median of how long it took, in milliseconds.
fn time_runs(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let mut taken = Vec::with_capacity(runs);
    for _ in 0..runs {
        let began = Instant::now();
        work()?;
        taken.push(began.elapsed());
    }
    taken.sort_unstable();
    println!("{:.3}", milliseconds(median(&taken)));
    Ok(())
}

fn median(sorted: &[Duration]) -> Duration {
    match sorted {
        [] => Duration::ZERO,
        _ => (sorted[sorted.len() / 2] + sorted[(sorted.len() - 1) / 2]) / 2,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two() {
        let of = |millis: &[u64]| {
            let all: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
            milliseconds(median(&all))
        };
        assert_eq!(of(&[1, 2, 9]), 2.0);
        assert_eq!(of(&[1, 3]), 2.0);
        assert_eq!(of(&[]), 0.0);
    }
}
