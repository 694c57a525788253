//! Wrong arguments, told in a line, in Docker's words.

use std::error::Error as _;
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

/// Prints help where it was asked for, else what is wrong with `args` and where to read on.
pub(super) fn report(error: &Error, root: &Command, args: &[String]) -> ExitCode {
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
    let (command, path) = command_of(root, args);
    let message = message(error, root, command);
    warn(&format!(
        "nuncio: {message}\n\nRun '{path} --help' for more information"
    ));
    exit_code(error, root, command).into()
}

/// Docker's: 125 for a flag that is wrong, and for whatever is wrong with `run`'s image; else 1.
pub(super) fn exit_code(error: &Error, root: &Command, command: &Command) -> u8 {
    let wrong = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument => 1,
        ErrorKind::UnknownArgument if !wrong.starts_with('-') => 1,
        ErrorKind::ValueValidation
            if command.get_name() != "run" && flag(root, command, wrong).is_none() =>
        {
            1
        }
        _ => DAEMON_FAILED,
    }
}

/// The command that normalised arguments name, and how it is called.
pub(super) fn command_of<'a>(root: &'a Command, args: &[String]) -> (&'a Command, String) {
    let mut command = root;
    let mut path = root.get_name().to_owned();
    // the values of flags stand with their flags
    for word in args.iter().filter(|word| !word.starts_with('-')) {
        let Some(next) = command.find_subcommand(word) else {
            break;
        };
        command = next;
        path = format!("{path} {word}");
    }
    (command, path)
}

/// What is wrong, in one line.
pub(super) fn message(error: &Error, root: &Command, command: &Command) -> String {
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
    let invalid = |why: String| match flag(root, command, &wrong) {
        Some(flag) => format!("invalid argument {value:?} for {flag:?} flag: {why}"),
        None => why,
    };
    match error.kind() {
        ErrorKind::UnknownArgument if !wrong.starts_with('-') => {
            format!("unexpected argument: {wrong}")
        }
        ErrorKind::UnknownArgument if wrong.starts_with("--") => {
            let hint = did_you_mean(ContextKind::SuggestedArg);
            format!("unknown flag: {wrong}{hint}")
        }
        ErrorKind::UnknownArgument => format!("unknown shorthand flag: {wrong}"),
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let hint = did_you_mean(ContextKind::SuggestedSubcommand);
            format!("unknown command: {wrong}{hint}")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("missing argument: {}", wrong.replace("...", ""))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            let flag = flag(root, command, &wrong).unwrap_or(wrong);
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::InvalidValue => {
            let right = text(ContextKind::ValidValue).unwrap_or_default();
            invalid(format!("expected {right}"))
        }
        ErrorKind::ValueValidation => {
            invalid(error.source().map(ToString::to_string).unwrap_or_default())
        }
        _ => first_line(error),
    }
}

/// A flag as Docker names it, `-p, --publish`, from how clap does; `None` if it is none. Those of `root` hold for
/// every command.
fn flag(root: &Command, command: &Command, text: &str) -> Option<String> {
    let name = text.split([' ', '=', '[']).next()?;
    let long = name.strip_prefix("--")?;
    let arg = command
        .get_arguments()
        .chain(root.get_arguments())
        .find(|arg| arg.get_long() == Some(long));
    Some(match arg.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {name}"),
        None => name.to_owned(),
    })
}

fn first_line(error: &Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}
