//! The table that a run prints.

use std::fmt::Write;

use super::figures::{Better, Figure, Kind, Path};
use super::samples::Samples;
use super::targets::outcomes;

const NOTHING: &str = "-";
const NOT_MEASURED: &str = "not measured";

/// All medians with their ratios to the suite's base, then what is ours as a multiple of each peer,
/// then the targets.
pub(crate) fn text(samples: &Samples) -> String {
    let mut out = format!("\n{} (× {})\n\n", samples.title(), samples.suite.base);
    out += &align(&medians(samples));
    let compared = comparison(samples);
    if compared.len() > 1 {
        // A String takes whatever is written to it.
        let _ = writeln!(out, "\n{} as a multiple of\n", samples.suite.ours_label);
        out += &align(&compared);
    }
    let mut reached = targets(samples);
    reached.retain(|row| row.last().is_some_and(|verdict| verdict != NOT_MEASURED));
    if reached.len() > 1 {
        out += "\ntargets\n\n";
        out += &align(&reached);
    }
    out
}

/// A head, and a row for each figure: its label, its unit, and what each path reached.
pub(crate) fn medians(samples: &Samples) -> Vec<Vec<String>> {
    let paths = samples.paths();
    let mut rows = vec![head(&paths)];
    for figure in samples.figures() {
        let mut row = vec![
            format!("{} {}", figure.label, arrow(figure)),
            figure.unit.to_owned(),
        ];
        row.extend(paths.iter().map(|path| cell(samples, path, figure)));
        rows.push(row);
    }
    rows
}

fn cell(samples: &Samples, path: &Path, figure: &Figure) -> String {
    let Some(median) = samples.median(path.id, figure.id) else {
        return NOTHING.to_owned();
    };
    let value = show(figure, median);
    match samples.ratio(path.id, samples.suite.base, figure.id) {
        Some(ratio) if path.id != samples.suite.base => format!("{value} ({ratio:.2})"),
        _ => value,
    }
}

/// A value in the figure's unit.
pub(crate) fn show(figure: &Figure, value: f64) -> String {
    let digits = figure.digits;
    format!("{:.digits$}", value / figure.scale)
}

/// A head, and a row for each figure that what is ours and some peer have.
pub(crate) fn comparison(samples: &Samples) -> Vec<Vec<String>> {
    let peers: Vec<_> = (samples.paths().into_iter())
        .filter(|path| path.kind == Kind::Peer)
        .collect();
    let mut rows = vec![head(&peers)];
    rows[0].remove(1);
    for figure in samples.figures() {
        let ratio = |peer: &&Path| samples.ratio(samples.suite.ours, peer.id, figure.id);
        let ratios: Vec<_> = peers.iter().map(ratio).collect();
        if ratios.iter().all(Option::is_none) {
            continue;
        }
        let shown = ratios
            .into_iter()
            .map(|ratio| ratio.map_or_else(|| NOTHING.to_owned(), |ratio| format!("{ratio:.2}")));
        let label = format!("{} {}", figure.label, arrow(figure));
        rows.push(std::iter::once(label).chain(shown).collect());
    }
    rows
}

/// A head, and a row for each target.
pub(crate) fn targets(samples: &Samples) -> Vec<Vec<String>> {
    let head = ["path", "figure", "wanted", "reached", ""];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    for outcome in outcomes(samples) {
        let verdict = match (&outcome.reached, outcome.met) {
            (None, _) => NOT_MEASURED,
            (_, true) => "met",
            (_, false) => "missed",
        };
        let (path, figure) = outcome.subject;
        let reached = outcome.reached.unwrap_or_else(|| NOTHING.to_owned());
        rows.push(vec![
            path.to_owned(),
            figure.to_owned(),
            outcome.wanted,
            reached,
            verdict.to_owned(),
        ]);
    }
    rows
}

fn head(paths: &[&Path]) -> Vec<String> {
    let labels = paths.iter().map(|path| path.label.to_owned());
    [String::new(), String::new()]
        .into_iter()
        .chain(labels)
        .collect()
}

fn arrow(figure: &Figure) -> char {
    match figure.better {
        Better::More => '↑',
        Better::Less => '↓',
    }
}

/// Columns of one width each; the first is flush left.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // A String takes whatever is written to it.
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::AMBASSADOR;

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let text = "1\tdirect\tbulk1\t4e9\n1\tnuncio\tbulk1\t3e9\n1\thaproxy\tconnect\t9000\n";
        let samples = Samples::parse(text, &AMBASSADOR).expect("samples");
        let rows = medians(&samples);
        assert_eq!(rows[0], ["", "", "direct", "nuncio relay", "HAProxy"]);
        assert_eq!(
            rows[1],
            ["bulk, 1 stream ↑", "Gb/s", "4.00", "3.00 (0.75)", "-"]
        );
        assert_eq!(rows[2][2..], ["-", "-", "9.00"]);
        assert_eq!(comparison(&samples).len(), 1, "no figure of both");
    }
}
