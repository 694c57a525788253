//! Keeps what libcontainer logs, in the shim's log.
//!
//! It logs the cause of an error where it happens, in the new process, and sends only a summary back.

use std::fmt::{Debug, Write as _};
use std::fs::{self, File};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::LOG_FILE;

/// A log longer than this is not searched.
const LONGEST_LOG: usize = 1 << 20;

/// Writes errors to the shim's log; standard error is the container's by the time that most of them happen.
struct Errors {
    log: File,
    /// Begins the lines of this shim and what it forks, not those of an earlier run.
    mark: String,
}

pub(super) fn install(log: File) {
    // the caller may have one already, which does as well
    let _ = tracing::subscriber::set_global_default(Errors { log, mark: mark() });
}

/// The first error of the last run: those that follow tell the same from further away.
pub(super) fn first_error() -> Option<String> {
    let log = fs::read(LOG_FILE)
        .ok()
        .filter(|log| log.len() <= LONGEST_LOG)?;
    let log = String::from_utf8_lossy(&log);
    let marker = mark();
    log.lines()
        .find_map(|line| line.strip_prefix(&marker).map(String::from))
}

fn mark() -> String {
    format!("error in {}: ", super::own_pid())
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}{}\n", self.mark, line.message, line.fields);
        let _ = (&self.log).write_all(text.as_bytes()); // there is no other place to tell it
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // writing to a string cannot fail
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, ", {}: {value:?}", field.name())
        };
    }
}
