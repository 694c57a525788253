//! Which etcds will do.

use std::fmt;

use crate::client::{CallError, Registry};

/// The first version that has all that is asked of it: comparing ranges of keys, and leases, in transactions (3.3); answers to
/// those who ask how far a watch has come, large ones of which come in pieces (3.4). Without these a watch would be held to
/// have fallen silent, and a decision would be made by what is no more.
const LEAST: (u64, u64) = (3, 4);

/// What a registry says that it is, if that is none to use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TooOld(String);

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => write!(f, "does not say which version of etcd it is")?,
            found => write!(f, "is etcd {found}")?,
        }
        write!(f, ", expected {}.{}.0 or later", LEAST.0, LEAST.1)
    }
}

/// Whether that will do. Of what comes after the second number nothing is asked.
fn check(version: &str) -> Result<(), TooOld> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let mut number = || numbers.next()?.parse::<u64>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= LEAST => Ok(()),
        _ => Err(TooOld(version.chars().take(64).collect())),
    }
}

impl Registry {
    /// Whether the member that is spoken to is an etcd that will do.
    pub(crate) async fn check_version(&self) -> Result<Result<(), TooOld>, CallError> {
        let mut client = self.client();
        let status = self.call("ask for the version", client.status()).await?;
        Ok(check(status.version()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers_and_whatever_follows() {
        for good in [
            "3.4.0",
            "3.4.23",
            "3.5.0-rc.1",
            "3.6",
            "v3.10.1+git",
            "4.0.0",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("3.2.32", "is etcd 3.2.32, expected 3.4.0 or later"),
            ("2.9.9", "is etcd 2.9.9, expected 3.4.0 or later"),
            ("3", "is etcd 3, expected 3.4.0 or later"),
            ("new", "is etcd new, expected 3.4.0 or later"),
            (
                "",
                "does not say which version of etcd it is, expected 3.4.0 or later",
            ),
        ] {
            let refused = check(bad).map_err(|old| old.to_string());
            assert_eq!(refused, Err(told.to_owned()));
        }
    }
}
