//! How a service's members are looked at, as their labels say.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nuncio_ambassador::{Check, CheckKind};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::cli::Span;

/// What is looked at: `tcp`, `http:/PATH` or `cmd:COMMAND`.
pub(super) const LABEL: &str = "nuncio.service.check";
const INTERVAL_LABEL: &str = "nuncio.service.check.interval";
const TIMEOUT_LABEL: &str = "nuncio.service.check.timeout";
/// What that is where no label says.
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Between what an interval and a timeout must be.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);
const EXPECTED: &str = "expected tcp, http:/PATH, or cmd:COMMAND";

/// A check of a container's, by its own host and by who connects to it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct ServiceCheck {
    pub(super) kind: Kind,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Whether it takes a connection.
    Tcp,
    /// How it answers `GET` of a path.
    Http(String),
    /// How a line ends that the container's shell runs.
    Command(String),
}

impl ServiceCheck {
    /// What the labels ask for, if they ask for something.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(super) fn of(labels: &BTreeMap<String, String>) -> Result<Option<Self>, Refusal> {
        let interval = time(labels, INTERVAL_LABEL, INTERVAL)?;
        let timeout = time(labels, TIMEOUT_LABEL, TIMEOUT)?;
        let Some(text) = labels.get(LABEL) else {
            return Ok(None);
        };
        let kind = parse(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "invalid check {text:?} in label {LABEL}: {EXPECTED}"
            ))
        })?;
        Ok(Some(Self {
            kind,
            interval,
            timeout,
        }))
    }

    /// As an ambassador makes it. What a container runs, its own host alone can.
    pub(super) fn of_ambassador(&self) -> Option<Check> {
        let kind = match &self.kind {
            Kind::Tcp => CheckKind::Tcp,
            Kind::Http(path) => http(path),
            Kind::Command(_) => return None,
        };
        Some(Check {
            interval: self.interval,
            timeout: self.timeout,
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            ..Check::new(kind)
        })
    }
}

/// A GET that must succeed, or lead elsewhere.
pub(super) fn http(path: &str) -> CheckKind {
    CheckKind::Http {
        path: path.to_owned(),
        host: None,
        status: 200..=399,
    }
}

/// Whether it can be asked for in a request's line.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse(text: &str) -> Option<Kind> {
    match text.split_once(':') {
        None if text == "tcp" => Some(Kind::Tcp),
        Some(("http", path)) if is_path(path) => Some(Kind::Http(path.to_owned())),
        Some(("cmd", line)) if !line.trim().is_empty() => Some(Kind::Command(line.to_owned())),
        _ => None,
    }
}

fn time(
    labels: &BTreeMap<String, String>,
    label: &str,
    usual: Duration,
) -> Result<Duration, Refusal> {
    let Some(text) = labels.get(label) else {
        return Ok(usual);
    };
    span(text).ok_or_else(|| {
        Refusal::invalid(format!(
            "invalid time {text:?} in label {label}: expected one from {LEAST:?} to {MOST:?}, as 5s"
        ))
    })
}

/// A time that a check may take, or be apart from the next.
pub(super) fn span(text: &str) -> Option<Duration> {
    let nanoseconds = text.parse::<Span>().ok()?.nanoseconds();
    let span = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    (LEAST..=MOST).contains(&span).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<ServiceCheck>, Refusal> {
        let pairs = pairs.iter();
        ServiceCheck::of(
            &pairs
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn labels_say_how_a_member_is_looked_at() {
        assert_eq!(of(&[]).expect("no check"), None);
        let check = of(&[(LABEL, "tcp")]).expect("a check").expect("one");
        assert_eq!((check.interval, check.timeout), (INTERVAL, TIMEOUT));
        let http = [
            (LABEL, "http:/ready?x=1"),
            (INTERVAL_LABEL, "500ms"),
            (TIMEOUT_LABEL, "3s"),
        ];
        let check = of(&http).expect("a check").expect("one");
        assert_eq!(check.kind, Kind::Http("/ready?x=1".to_owned()));
        assert_eq!(check.interval, Duration::from_millis(500));
        assert!(check.of_ambassador().is_some());
        let check = of(&[(LABEL, "cmd:redis-cli ping")])
            .expect("a check")
            .expect("one");
        assert_eq!(check.kind, Kind::Command("redis-cli ping".to_owned()));
        assert!(
            check.of_ambassador().is_none(),
            "only its own host runs commands"
        );
    }

    #[test]
    fn what_is_no_check_is_refused() {
        for wrong in [
            "",
            "udp",
            "http",
            "http:",
            "http:x",
            "http:/a b",
            "cmd:",
            "cmd: ",
        ] {
            let refusal = of(&[(LABEL, wrong)]).expect_err("refused");
            assert!(refusal.message.contains(EXPECTED), "{}", refusal.message);
        }
        for wrong in ["", "0", "5", "10ms", "2h", "-1s"] {
            let refusal = of(&[(LABEL, "tcp"), (INTERVAL_LABEL, wrong)]).expect_err("refused");
            assert!(
                refusal.message.contains(INTERVAL_LABEL),
                "{}",
                refusal.message
            );
        }
    }
}
