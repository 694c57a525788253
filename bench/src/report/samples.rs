//! All values of all rounds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::figures::{Figure, Path};
use super::suite::Suite;

/// The values of each path and figure of a suite, in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) suite: &'static Suite,
    values: BTreeMap<(String, String), Vec<f64>>,
}

impl Samples {
    pub(crate) fn parse(text: &str, suite: &'static Suite) -> Result<Self> {
        let mut samples = Self {
            suite,
            values: BTreeMap::new(),
        };
        for (number, line) in text.lines().enumerate() {
            samples
                .take(line)
                .with_context(|| format!("line {} of the samples, {line:?}", number + 1))?;
        }
        ensure!(!samples.values.is_empty(), "there are no samples");
        Ok(samples)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.split('\t').collect();
        let [_round, path, id, value] = words.as_slice() else {
            anyhow::bail!("expected round, path, figure and value, separated by tabs");
        };
        let known = self.suite.path(path).is_some();
        ensure!(known, "there is no path {path:?}");
        ensure!(self.suite.figure(id).is_some(), "there is no figure {id:?}");
        let value: f64 = value.parse().context("the value is not a number")?;
        ensure!(
            value.is_finite() && value >= 0.0,
            "the value is not finite and at least 0"
        );
        let key = ((*path).to_owned(), (*id).to_owned());
        self.values.entry(key).or_default().push(value);
        Ok(())
    }

    pub(crate) fn all(&self, path: &str, id: &str) -> &[f64] {
        let key = (path.to_owned(), id.to_owned());
        self.values.get(&key).map_or(&[], Vec::as_slice)
    }

    /// None if nothing was measured.
    pub(crate) fn median(&self, path: &str, id: &str) -> Option<f64> {
        median(self.all(path, id))
    }

    /// The median on `path` as a multiple of that on `other`.
    pub(crate) fn ratio(&self, path: &str, other: &str, id: &str) -> Option<f64> {
        let (value, of) = (self.median(path, id)?, self.median(other, id)?);
        (of > 0.0).then(|| value / of)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.values.values().map(Vec::len).max().unwrap_or(0)
    }

    /// How a table of it is called.
    pub(crate) fn title(&self) -> String {
        match self.rounds() {
            1 => "figures of one round, so no medians".to_owned(),
            rounds => format!("medians of {rounds} rounds"),
        }
    }

    /// The paths that something was measured on.
    pub(crate) fn paths(&self) -> Vec<&'static Path> {
        let measured = |path: &&Path| self.values.keys().any(|(found, _)| found == path.id);
        self.suite.paths.iter().filter(measured).collect()
    }

    /// The figures that were measured.
    pub(crate) fn figures(&self) -> Vec<&'static Figure> {
        let measured = |figure: &&Figure| self.values.keys().any(|(_, found)| found == figure.id);
        self.suite.figures.iter().filter(measured).collect()
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::AMBASSADOR;

    #[test]
    fn a_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn samples_are_read_and_compared() -> Result<()> {
        let text = "1\tdirect\tbulk1\t4e9\n1\tnuncio\tbulk1\t3e9\n2\tnuncio\tbulk1\t1e9\n";
        let samples = Samples::parse(text, &AMBASSADOR)?;
        assert_eq!(samples.rounds(), 2);
        assert_eq!(samples.ratio("nuncio", "direct", "bulk1"), Some(0.5));
        assert_eq!(samples.ratio("socat", "direct", "bulk1"), None);
        assert_eq!(samples.paths().len(), 2);
        Ok(())
    }

    #[test]
    fn what_is_no_sample_is_told_with_its_line() {
        for wrong in [
            "",
            "1\tdirect\tbulk1",
            "1\tdirect\tspeed\t1",
            "1\tdirect\tbulk1\tNaN",
        ] {
            let text = format!("1\tdirect\tbulk1\t1\n{wrong}\n");
            let error = Samples::parse(&text, &AMBASSADOR).expect_err(wrong);
            assert!(error.to_string().contains("line 2"), "{error:#}");
        }
    }
}
