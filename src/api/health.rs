//! `Healthcheck` of create requests, and `State.Health`.

use bollard_stubs::models::{self, HealthConfig, HealthStatusEnum, HealthcheckResult};

use crate::daemon::config::HealthCheck;
use crate::daemon::health::{Health, HealthStatus};
use crate::daemon::refusal::Refusal;

/// Nanoseconds; a shorter pause is none.
const SHORTEST: i64 = 1_000_000;

pub(crate) fn check(asked: HealthConfig) -> Result<HealthCheck, Refusal> {
    let duration = |name: &str, nanos: Option<i64>| match nanos.unwrap_or_default() {
        nanos @ (0 | SHORTEST..) => Ok(nanos),
        _ => Err(Refusal::invalid(format!(
            "{name} in Healthcheck cannot be less than 1ms"
        ))),
    };
    Ok(HealthCheck {
        test: asked.test.unwrap_or_default(),
        interval: duration("Interval", asked.interval)?,
        timeout: duration("Timeout", asked.timeout)?,
        start_period: duration("StartPeriod", asked.start_period)?,
        start_interval: duration("StartInterval", asked.start_interval)?,
        retries: u32::try_from(asked.retries.unwrap_or_default())
            .map_err(|_| Refusal::invalid("Retries in Healthcheck cannot be negative"))?,
    })
}

/// From which [`check`] makes the same again.
pub(crate) fn check_view(check: &HealthCheck) -> HealthConfig {
    let some = |nanos: i64| (nanos != 0).then_some(nanos);
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: some(check.interval),
        timeout: some(check.timeout),
        retries: some(check.retries.into()),
        start_period: some(check.start_period),
        start_interval: some(check.start_interval),
    }
}

pub(crate) fn view(health: &Health) -> models::Health {
    let log = health.log.iter().map(|result| HealthcheckResult {
        start: Some(result.start.to_string()),
        end: Some(result.end.to_string()),
        exit_code: Some(result.code.into()),
        output: Some(result.output.clone()),
    });
    models::Health {
        status: Some(match health.status {
            HealthStatus::Starting => HealthStatusEnum::STARTING,
            HealthStatus::Healthy => HealthStatusEnum::HEALTHY,
            HealthStatus::Unhealthy => HealthStatusEnum::UNHEALTHY,
        }),
        failing_streak: Some(health.streak.into()),
        log: Some(log.collect()),
    }
}

/// As `ps` shows it behind how long a container is up.
pub(crate) fn remark(health: &Health) -> &'static str {
    match health.status {
        HealthStatus::Starting => " (health: starting)",
        HealthStatus::Healthy => " (healthy)",
        HealthStatus::Unhealthy => " (unhealthy)",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: Value) -> Result<HealthCheck, String> {
        check(serde_json::from_value(body).expect("a check")).map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_check_survives_the_round_trip() {
        let body = json!({
            "Test": ["CMD", "true"], "Interval": 1_000_000_000, "Timeout": 2_000_000, "Retries": 2,
            "StartPeriod": 3_000_000, "StartInterval": 4_000_000,
        });
        let found = parse(body.clone()).expect("valid");
        assert_eq!(
            serde_json::to_value(check_view(&found)).expect("serialises"),
            body
        );
    }

    #[test]
    fn what_is_wrong_is_told_in_dockers_words() {
        for (body, message) in [
            (
                json!({"Interval": 1}),
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (
                json!({"StartPeriod": -5}),
                "StartPeriod in Healthcheck cannot be less than 1ms",
            ),
            (
                json!({"Retries": -1}),
                "Retries in Healthcheck cannot be negative",
            ),
        ] {
            assert_eq!(parse(body).expect_err(message), message);
        }
    }
}
