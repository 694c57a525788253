//! The part of the documentation that a run writes.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::machine::Machine;
use super::samples::Samples;
use super::table;

const BEGIN: &str = "<!-- measured: begin (written by `make bench`) -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Everything between the two markers.
pub(crate) fn section(samples: &Samples, machine: &Machine) -> String {
    let mut out = format!(
        "The {}; {}. In brackets the ratio to direct; ↑ more is better, ↓ less is.\n\n",
        samples.title(),
        machine.words()
    );
    out += &markdown(&table::medians(samples));
    out += "\n![The medians as bars](../bench/results/latest.svg)\n";
    out += "\nThe relay as a multiple of each peer:\n\n";
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

/// Puts `section` between the markers of `file`.
pub(crate) fn refresh(file: &Path, section: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let new = between(&text, section).with_context(|| {
        format!(
            "{} lacks the lines {:?} and {:?}",
            file.display(),
            BEGIN.trim(),
            END.trim()
        )
    })?;
    fs::write(file, new).with_context(|| format!("write {}", file.display()))
}

fn between(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("before\n{BEGIN}old\n{END}after\n");
        let new = between(&text, "new\n").expect("markers");
        assert_eq!(new, format!("before\n{BEGIN}new\n{END}after\n"));
        assert_eq!(between("no markers", "new"), None);
    }

    #[test]
    fn the_documentation_has_the_markers() {
        let text = include_str!("../../../docs/PERFORMANCE.md");
        assert!(between(text, "").is_some());
    }
}
