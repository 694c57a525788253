//! The part of the documentation that a run writes.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::machine::Machine;
use super::samples::Samples;
use super::suite::Suite;
use super::table;

/// Everything between the two markers.
pub(crate) fn section(samples: &Samples, machine: &Machine) -> String {
    let mut out = format!(
        "The {}; {}. In brackets the ratio to {}; ↑ more is better, ↓ less is.\n\n",
        samples.title(),
        machine.words(),
        samples.suite.base
    );
    out += &markdown(&table::medians(samples));
    // A String takes whatever is written to it.
    let _ = writeln!(
        out,
        "\n![The medians as bars](../bench/results/{})\n\n{} as a multiple of each peer:\n",
        samples.suite.drawing, samples.suite.ours_label
    );
    out += &markdown(&table::comparison(samples));
    out += "\nAgainst the targets:\n\n";
    out += &markdown(&table::targets(samples));
    out
}

fn markdown(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        // A String takes whatever is written to it.
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if number == 0 {
            let rule = row
                .iter()
                .enumerate()
                .map(|(column, _)| if column == 0 { "---" } else { "--:" });
            let _ = writeln!(out, "|{}|", rule.collect::<Vec<_>>().join("|"));
        }
    }
    out
}

/// Puts `section` between the suite's markers of `file`.
pub(crate) fn refresh(file: &Path, suite: &Suite, section: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let new = between(&text, suite, section).with_context(|| {
        format!(
            "{} lacks the lines {:?} and {:?}",
            file.display(),
            suite.begin.trim(),
            suite.end.trim()
        )
    })?;
    fs::write(file, new).with_context(|| format!("write {}", file.display()))
}

fn between(text: &str, suite: &Suite, section: &str) -> Option<String> {
    let Suite { begin, end, .. } = suite;
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{section}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::SUITES;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let [one, other, _] = &SUITES;
        let text = format!(
            "before\n{}old\n{}middle\n{}kept\n{}after\n",
            one.begin, one.end, other.begin, other.end
        );
        let new = between(&text, one, "new\n").expect("markers");
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(between("no markers", one, "new"), None);
    }

    #[test]
    fn the_documentation_has_the_markers() {
        let text = include_str!("../../../docs/PERFORMANCE.md");
        for suite in &SUITES {
            assert!(between(text, suite, "").is_some(), "{}", suite.id);
        }
    }
}
