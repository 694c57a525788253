//! The medians as bars, one panel for each figure.

use std::fmt::Write;

use super::figures::{Better, Figure, Kind, Path};
use super::machine::Machine;
use super::samples::Samples;
use super::table;

const COLUMNS: usize = 3;
const PANEL: usize = 330;
const LABELS: usize = 105;
const BAR: usize = 14;
const LINE: usize = 19;
const VALUES: usize = 60;
const TOP: usize = 34;

/// A figure for browsers, legible on light and dark grounds.
pub(crate) fn text(samples: &Samples, machine: &Machine) -> String {
    let (paths, figures) = (samples.paths(), samples.figures());
    let height = TOP + paths.len() * LINE + 16;
    let (width, rows) = (PANEL * COLUMNS + 20, figures.len().div_ceil(COLUMNS));
    let total = rows * height + 40;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {total}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text {{ fill: #222 }} .ground {{ fill: #fff }} .direct {{ fill: #999 }} \
         .ours {{ fill: #0a7d62 }} .peer {{ fill: #7a8fb8 }} .small {{ font-size: 10px }}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{total}\"/>\n"
    );
    for (number, figure) in figures.iter().enumerate() {
        let (x, y) = (10 + number % COLUMNS * PANEL, number / COLUMNS * height);
        panel(&mut out, samples, figure, &paths, (x, y));
    }
    let words = escape(&format!("{}; {}", samples.title(), machine.words()));
    let foot = total - 14;
    out += &format!("<text class=\"small\" x=\"10\" y=\"{foot}\">{words}</text>\n</svg>\n");
    out
}

fn panel(
    out: &mut String,
    samples: &Samples,
    figure: &Figure,
    paths: &[&Path],
    (x, y): (usize, usize),
) {
    let better = match figure.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    let title = escape(&format!("{}, {}", figure.label, figure.unit));
    // A String takes whatever is written to it.
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\"><tspan font-weight=\"bold\">{title}</tspan> \
         <tspan class=\"small\">{better}</tspan></text>",
        y + 22
    );
    let medians = paths.iter().map(|path| samples.median(path.id, figure.id));
    let medians: Vec<_> = medians.collect();
    let most = medians
        .iter()
        .flatten()
        .copied()
        .fold(f64::MIN_POSITIVE, f64::max);
    let room = (PANEL - LABELS - VALUES) as f64;
    for (number, (path, median)) in paths.iter().zip(medians).enumerate() {
        let (top, left) = (y + TOP + number * LINE, x + LABELS);
        let (base, label) = (top + BAR - 3, escape(path.label));
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{x}\" y=\"{base}\">{label}</text>"
        );
        let (length, value) = match median {
            Some(median) => (room * median / most, table::show(figure, median)),
            None => (0.0, "-".to_owned()),
        };
        let class = match path.kind {
            Kind::Direct => "direct",
            Kind::Ours => "ours",
            Kind::Peer => "peer",
        };
        let end = left as f64 + length + 4.0;
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{length:.1}\" \
             height=\"{BAR}\"/><text class=\"small\" x=\"{end:.1}\" y=\"{base}\">{value}</text>"
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::suite::AMBASSADOR;

    #[test]
    fn the_longest_bar_fills_its_panel_and_others_are_in_proportion() {
        let text = "1\tdirect\tbulk1\t4e9\n1\tnuncio\tbulk1\t2e9\n";
        let samples = Samples::parse(text, &AMBASSADOR).expect("samples");
        let svg = super::text(&samples, &Machine::here("<&>"));
        assert!(
            svg.contains("width=\"165.0\"") && svg.contains("width=\"82.5\""),
            "{svg}"
        );
        assert!(svg.contains("revision &lt;&amp;&gt;"), "{svg}");
    }
}
