//! What the host's ambassador counts, passed on.

use std::collections::BTreeSet;

use crate::daemon::Daemon;

/// Endpoints of forwards of which the figures are passed on, with all that is counted of each.
const ENDPOINTS: usize = 4000;
/// What the process itself takes is told of the daemon too, under these names.
const PROCESS: &str = "process_";
const END: &str = "# EOF";

#[derive(Debug)]
pub(super) struct AmbassadorFigures {
    /// OpenMetrics, without its end.
    pub(super) text: String,
    /// Endpoints that were left out.
    pub(super) omitted: usize,
}

impl Daemon {
    pub(super) async fn ambassador_figures(&self) -> Option<AmbassadorFigures> {
        match self.ambassador.ask("/metrics").await {
            Ok(text) => Some(passed_on(&String::from_utf8_lossy(&text))),
            Err(error) => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "ask for the ambassador's figures"
                );
                None
            }
        }
    }
}

fn passed_on(text: &str) -> AmbassadorFigures {
    let mut out = String::with_capacity(text.len());
    let mut shown = BTreeSet::new();
    let mut omitted = BTreeSet::new();
    for line in text.lines() {
        if line == END {
            break;
        }
        if let Some(place) = place(line)
            && !shown.contains(place)
        {
            if shown.len() == ENDPOINTS {
                omitted.insert(place);
                continue;
            }
            shown.insert(place);
        }
        out.push_str(&renamed(line));
        out.push('\n');
    }
    AmbassadorFigures {
        omitted: omitted.len(),
        text: out,
    }
}

/// The forward and the endpoint of a figure, which its labels begin with.
fn place(line: &str) -> Option<&str> {
    let labels = line.split_once('{')?.1;
    let end = labels
        .find("\",endpoint=\"")
        .map(|at| at + "\",endpoint=\"".len())?;
    let length = labels[end..].find('"')?;
    labels
        .starts_with("forward=")
        .then(|| &labels[..end + length])
}

/// `line` with the name of a figure of the process under the ambassador's.
fn renamed(line: &str) -> String {
    let head = ["# HELP ", "# TYPE ", "# UNIT ", ""];
    for head in head {
        if let Some(rest) = line.strip_prefix(head)
            && rest.starts_with(PROCESS)
        {
            return format!("{head}nuncio_ambassador_{rest}");
        }
    }
    line.to_owned()
}

/// One text of both.
pub(super) fn joined(text: &str, more: &str) -> String {
    let text = text.trim_end().trim_end_matches(END);
    format!("{text}{more}{END}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_passed_on_beside_the_daemons_own() {
        let theirs = "# HELP process_cpu_seconds Time.\n# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1\n\
                      # TYPE nuncio_ambassador_flows counter\nnuncio_ambassador_flows_total{forward=\"a\",endpoint=\"b\"} 2\n# EOF\n";
        let figures = passed_on(theirs);
        assert_eq!(figures.omitted, 0);
        let text = joined("# TYPE up gauge\nup 1\n# EOF\n", &figures.text);
        let expected = "# TYPE up gauge\nup 1\n# HELP nuncio_ambassador_process_cpu_seconds Time.\n\
                        # TYPE nuncio_ambassador_process_cpu_seconds counter\nnuncio_ambassador_process_cpu_seconds_total 1\n\
                        # TYPE nuncio_ambassador_flows counter\nnuncio_ambassador_flows_total{forward=\"a\",endpoint=\"b\"} 2\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn endpoints_beyond_the_bound_are_counted_once() {
        let mut text = String::new();
        for name in ["flows_open", "flows_total"] {
            for number in 0..ENDPOINTS + 3 {
                text += &format!("{name}{{forward=\"a\",endpoint=\"{number}\"}} 1\n");
            }
        }
        let figures = passed_on(&text);
        assert_eq!(figures.omitted, 3);
        assert_eq!(figures.text.lines().count(), 2 * ENDPOINTS);
    }
}
