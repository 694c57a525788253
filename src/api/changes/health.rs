//! `HEALTHCHECK` as an image's configuration has it.

use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{strings, words::words};
use crate::daemon::refusal::Refusal;

/// `NONE`, or `[--interval=TIME ..] CMD COMMAND`.
pub(super) fn parse(rest: &str) -> Result<Value, Refusal> {
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let (key, value) = option(name, value)?;
        check.insert(key.to_owned(), value);
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => vec!["NONE".to_owned()],
        "CMD" if command.is_empty() => {
            return Err(Refusal::invalid("Missing command after HEALTHCHECK CMD"));
        }
        "CMD" => match strings(command) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => {
            let kind = words(kind)?.join(" ");
            let message = format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)");
            return Err(Refusal::invalid(message));
        }
    };
    let mut whole = json!({ "Test": test });
    if let Some(fields) = whole.as_object_mut() {
        fields.append(&mut check);
    }
    Ok(whole)
}

fn option(name: &str, value: &str) -> Result<(&'static str, Value), Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid --{name}={value} of HEALTHCHECK: expected a time as 30s, or a number of retries"
        ))
    };
    let key = match name {
        "interval" => "Interval",
        "timeout" => "Timeout",
        "start-period" => "StartPeriod",
        "start-interval" => "StartInterval",
        "retries" => {
            let retries: u32 = value.parse().map_err(|_| wrong())?;
            return Ok(("Retries", retries.into()));
        }
        _ => return Err(Refusal::invalid(format!("Unknown flag: {name}"))),
    };
    let time: SignedDuration = value.parse().map_err(|_| wrong())?;
    let nanoseconds = u64::try_from(time.as_nanos()).map_err(|_| wrong())?;
    Ok((key, nanoseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_none() {
        assert_eq!(parse("NONE").ok(), Some(json!({"Test": ["NONE"]})));
        assert_eq!(
            parse("--start-period=1m30s CMD curl -f localhost").ok(),
            Some(
                json!({"Test": ["CMD-SHELL", "curl -f localhost"], "StartPeriod": 90_000_000_000_u64})
            )
        );
        for wrong in [
            "",
            "CMD",
            "--interval=x CMD a",
            "--interval=-1s CMD a",
            "--x=1 CMD a",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
