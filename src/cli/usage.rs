//! Wrong arguments, told in a line, in Docker's words.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::failure::DAEMON_FAILED;
use super::output::warn;

pub(super) fn not_unicode(argument: &OsStr) -> ExitCode {
    warn(&format!(
        "nuncio: argument {argument:?} is not UTF-8, which the API needs"
    ));
    DAEMON_FAILED.into()
}

/// Prints help where it was asked for, else what is wrong and where to read on.
pub(super) fn report(error: &Error, root: &Command) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // a reader that has seen enough is no error
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let command = usage_of(error, root);
    warn(&format!(
        "nuncio: {}\n\nRun '{command} --help' for more information",
        message(error)
    ));
    DAEMON_FAILED.into()
}

/// The command that the usage in `error` is of.
fn usage_of(error: &Error, root: &Command) -> String {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return root.get_name().to_owned();
    };
    let usage = usage.to_string();
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    let words: Vec<&str> = words
        .take_while(|word| !word.starts_with(['[', '<', '-']))
        .collect();
    if words.is_empty() {
        root.get_name().to_owned()
    } else {
        words.join(" ")
    }
}

pub(super) fn message(error: &Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let wrong = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let did_you_mean = |kind| match text(kind) {
        Some(right) => format!(": did you mean {right}?"),
        None => String::new(),
    };
    match error.kind() {
        ErrorKind::UnknownArgument if !wrong.starts_with('-') => {
            format!("unexpected argument: {wrong}")
        }
        ErrorKind::UnknownArgument if wrong.starts_with("--") => {
            format!(
                "unknown flag: {wrong}{}",
                did_you_mean(ContextKind::SuggestedArg)
            )
        }
        ErrorKind::UnknownArgument => format!("unknown shorthand flag: {wrong}"),
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!(
                "unknown command: {wrong}{}",
                did_you_mean(ContextKind::SuggestedSubcommand)
            )
        }
        ErrorKind::MissingRequiredArgument => {
            format!("missing argument: {}", wrong.replace("...", ""))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("flag needs an argument: {}", flag(&wrong))
        }
        ErrorKind::InvalidValue => format!(
            "invalid argument {value:?} for {:?} flag: expected {}",
            flag(&wrong),
            text(ContextKind::ValidValue).unwrap_or_default()
        ),
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            if wrong.starts_with('<') || wrong.starts_with('[') {
                return why;
            }
            format!(
                "invalid argument {value:?} for {:?} flag: {why}",
                flag(&wrong)
            )
        }
        _ => first_line(error),
    }
}

/// A flag without the name of its value.
fn flag(text: &str) -> &str {
    text.split([' ', '=']).next().unwrap_or(text)
}

fn first_line(error: &Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}
