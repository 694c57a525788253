//! `RestartPolicy`, of create and update requests.

use bollard_stubs::models::{self, RestartPolicyNameEnum};
use serde_json::Value;

use crate::daemon::config::RestartPolicy;
use crate::daemon::refusal::Refusal;

/// Refuses the names that [`RestartPolicyNameEnum`] does not have, in Docker's words.
pub(crate) fn check_name(policy: &Value) -> Result<(), Refusal> {
    match policy["Name"].as_str() {
        None | Some("" | "no" | "always" | "on-failure" | "unless-stopped") => Ok(()),
        Some(name) => Err(Refusal::invalid(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

pub(crate) fn policy(asked: Option<models::RestartPolicy>) -> Result<RestartPolicy, Refusal> {
    let asked = asked.unwrap_or_default();
    let count = asked.maximum_retry_count.unwrap_or_default();
    let name = asked.name.unwrap_or(RestartPolicyNameEnum::EMPTY);
    let uncounted = |policy| match count {
        0 => Ok(policy),
        _ => {
            let more = if count < 0 {
                " and cannot be negative"
            } else {
                ""
            };
            Err(Refusal::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{more}"
            )))
        }
    };
    match name {
        RestartPolicyNameEnum::EMPTY => Ok(RestartPolicy::No), // of old clients, with any count
        RestartPolicyNameEnum::NO => uncounted(RestartPolicy::No),
        RestartPolicyNameEnum::ALWAYS => uncounted(RestartPolicy::Always),
        RestartPolicyNameEnum::UNLESS_STOPPED => uncounted(RestartPolicy::UnlessStopped),
        RestartPolicyNameEnum::ON_FAILURE => match u32::try_from(count) {
            Ok(retries) => Ok(RestartPolicy::OnFailure { retries }),
            Err(_) => Err(Refusal::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            )),
        },
    }
}

/// From which [`policy`] makes the same one again.
pub(crate) fn view(policy: RestartPolicy) -> models::RestartPolicy {
    let (name, count) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, 0),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, 0),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, 0),
        RestartPolicy::OnFailure { retries } => {
            (RestartPolicyNameEnum::ON_FAILURE, i64::from(retries))
        }
    };
    models::RestartPolicy {
        name: Some(name),
        maximum_retry_count: Some(count),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<RestartPolicy, String> {
        check_name(body).map_err(|refusal| refusal.message)?;
        let asked = serde_json::from_value(body.clone()).expect("a policy");
        policy(Some(asked)).map_err(|refusal| refusal.message)
    }

    #[test]
    fn policies_survive_the_round_trip() {
        for policy in [
            RestartPolicy::No,
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
            RestartPolicy::OnFailure { retries: 0 },
            RestartPolicy::OnFailure { retries: 5 },
        ] {
            let body = serde_json::to_value(view(policy)).expect("serialises");
            assert_eq!(parse(&body), Ok(policy));
        }
        assert_eq!(policy(None).expect("none"), RestartPolicy::No);
    }

    #[test]
    fn what_is_wrong_is_told_in_dockers_words() {
        for (body, words) in [
            (json!({"Name": "never"}), "unknown policy 'never'"),
            (
                json!({"Name": "always", "MaximumRetryCount": 3}),
                "can only be used with 'on-failure'",
            ),
            (
                json!({"Name": "on-failure", "MaximumRetryCount": -1}),
                "cannot be negative",
            ),
        ] {
            let message = parse(&body).expect_err(words);
            assert!(message.starts_with("invalid restart policy: "), "{message}");
            assert!(message.contains(words), "{message}");
        }
    }
}
