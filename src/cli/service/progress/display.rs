//! Progress on a terminal, as rows that change; elsewhere a line whenever one does.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::Row;
use crate::cli::output::line;

/// Width of a whole bar.
const WIDTH: u64 = 50;

pub(super) enum Display {
    None,
    Rows {
        all: MultiProgress,
        rows: HashMap<String, ProgressBar>,
    },
    Lines {
        seen: HashMap<String, String>,
    },
}

impl Display {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Self::None
        } else if std::io::stdout().is_terminal() {
            Self::Rows {
                all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
                rows: HashMap::new(),
            }
        } else {
            Self::Lines {
                seen: HashMap::new(),
            }
        }
    }

    pub(super) fn show(&mut self, shown: &[Row]) -> anyhow::Result<()> {
        for row in shown {
            match (&mut *self, row.of) {
                (Self::Rows { .. }, Some((done, all))) => {
                    let text = format!("{} [{}]", row.text, bar(done, all));
                    self.tell(&row.key, &text)?;
                }
                _ => self.tell(&row.key, &row.text)?,
            }
        }
        Ok(())
    }

    /// A row by its name, made or changed.
    pub(super) fn tell(&mut self, key: &str, text: &str) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Rows { all, rows } => {
                let row = rows.entry(key.to_owned()).or_insert_with(|| {
                    let row = all.add(ProgressBar::no_length());
                    row.set_style(
                        ProgressStyle::with_template("{msg}").expect("a template of ours"),
                    );
                    row
                });
                row.set_message(format!("{key}: {text}"));
                Ok(())
            }
            Self::Lines { seen } => {
                // Seconds that pass are no news.
                let text = text.trim_end();
                let told = match key {
                    "verify" => text.replace(|c: char| c.is_ascii_digit(), ""),
                    _ => text.to_owned(),
                };
                if text.is_empty() || seen.insert(key.to_owned(), told.clone()) == Some(told) {
                    return Ok(());
                }
                line(&format!("{key}: {text}"))
            }
        }
    }

    /// A line by itself.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Rows { all, .. } => all.suspend(|| line(text)),
            Self::Lines { .. } => line(text),
        }
    }

    /// Leaves the rows as they are.
    pub(super) fn finish(&self) {
        if let Self::Rows { rows, .. } = self {
            rows.values().for_each(ProgressBar::abandon);
        }
    }
}

/// As `[=====>    ]` within, `done` of `all`.
fn bar(done: u64, all: u64) -> String {
    let filled = (done.min(all) * WIDTH / all.max(1)) as usize;
    let head = if filled > 0 { ">" } else { "" };
    let width = WIDTH as usize + 1;
    format!("{:<width$}", format!("{}{head}", "=".repeat(filled)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(0, 9).trim_end(), "");
        assert_eq!(bar(9, 9), format!("{}>", "=".repeat(50)));
        assert_eq!(bar(3, 9).trim_end(), format!("{}>", "=".repeat(16)));
        assert_eq!(bar(1, 0).len(), 51);
    }
}
