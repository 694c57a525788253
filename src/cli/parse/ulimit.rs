//! `--ulimit`.

use std::str::FromStr;

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

const NAMES: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Not a limit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidUlimit {
    #[error("invalid ulimit argument: {0}: expected NAME=SOFT[:HARD], as nofile=1024:2048")]
    Format(String),
    #[error("invalid ulimit type: {0}: expected one of {names}", names = NAMES.join(", "))]
    Name(String),
    #[error("ulimit soft limit must be less than or equal to hard limit: {0}")]
    Order(String),
}

impl FromStr for Ulimit {
    type Err = InvalidUlimit;

    fn from_str(text: &str) -> Result<Self, InvalidUlimit> {
        let wrong = || InvalidUlimit::Format(text.to_owned());
        let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
        if !NAMES.contains(&name) {
            return Err(InvalidUlimit::Name(name.to_owned()));
        }
        let limit = |text: &str| {
            text.parse()
                .ok()
                .filter(|limit| *limit >= -1)
                .ok_or_else(wrong)
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (limit(soft)?, limit(hard)?);
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(InvalidUlimit::Order(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            soft,
            hard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = |text: &str| {
            text.parse::<Ulimit>()
                .map(|limit| (limit.soft, limit.hard))
                .ok()
        };
        assert_eq!(limit("nofile=1024"), Some((1024, 1024)));
        assert_eq!(limit("nofile=1:2"), Some((1, 2)));
        assert_eq!(limit("core=-1"), Some((-1, -1)));
        assert_eq!(limit("core=5:-1"), Some((5, -1)));
        for wrong in [
            "nofile",
            "files=1",
            "nofile=",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=-2",
            "nofile=1:2:3",
        ] {
            assert_eq!(limit(wrong), None, "{wrong:?}");
        }
    }
}
