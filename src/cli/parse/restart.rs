//! `--restart`.

use std::str::FromStr;

use bollard_stubs::models::{RestartPolicy, RestartPolicyNameEnum};

/// `no`, `on-failure[:RETRIES]`, `always` or `unless-stopped`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Restart {
    name: RestartPolicyNameEnum,
    retries: i64,
}

/// Not a policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidRestart {
    #[error(
        "invalid restart policy '{0}': expected no, on-failure[:RETRIES], always or unless-stopped"
    )]
    Name(String),
    #[error("maximum retry count must be a whole number of 0 or more, not {0:?}")]
    Retries(String),
    #[error("invalid restart policy '{0}': maximum retry count can only be used with 'on-failure'")]
    NoRetries(String),
}

impl Restart {
    pub(crate) fn is_no(&self) -> bool {
        self.name == RestartPolicyNameEnum::NO
    }

    pub(crate) fn policy(&self) -> RestartPolicy {
        RestartPolicy {
            name: Some(self.name),
            maximum_retry_count: Some(self.retries),
        }
    }
}

impl FromStr for Restart {
    type Err = InvalidRestart;

    fn from_str(text: &str) -> Result<Self, InvalidRestart> {
        let (name, retries) = match text.split_once(':') {
            Some((name, retries)) => (name, Some(retries)),
            None => (text, None),
        };
        let policy = match name {
            "no" => RestartPolicyNameEnum::NO,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            "always" => RestartPolicyNameEnum::ALWAYS,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            _ => return Err(InvalidRestart::Name(text.to_owned())),
        };
        let retries = match retries {
            None => 0,
            Some(_) if name != "on-failure" => {
                return Err(InvalidRestart::NoRetries(text.to_owned()));
            }
            Some(retries) => match retries.parse() {
                Ok(retries) if retries >= 0 => retries,
                _ => return Err(InvalidRestart::Retries(retries.to_owned())),
            },
        };
        Ok(Self {
            name: policy,
            retries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let retries = |text: &str| text.parse::<Restart>().ok().map(|restart| restart.retries);
        assert_eq!(retries("no"), Some(0));
        assert_eq!(retries("on-failure:3"), Some(3));
        for wrong in [
            "",
            "never",
            "always:3",
            "on-failure:x",
            "on-failure:-1",
            "on-failure:",
        ] {
            assert_eq!(retries(wrong), None, "{wrong:?}");
        }
    }
}
