//! `POST /containers/{id}/update`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use bollard_stubs::models::ContainerUpdateBody;
use serde_json::{Value, json};

use super::body::JsonBody;
use super::error::ApiError;
use super::{Answer, Server, disk_limits, restart_policy};
use crate::daemon::refusal::Refusal;
use crate::daemon::update::Changes;

pub(crate) async fn update(
    State(daemon): Server,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let container = daemon.container(&id)?;
    let changes = parse(body)?;
    daemon.update(&container, &changes).await?;
    Ok(Json(json!({ "Warnings": [] })).into_response())
}

pub(super) fn parse(body: Value) -> Result<Changes, ApiError> {
    restart_policy::check_name(&body["RestartPolicy"])?;
    let named = body["RestartPolicy"]["Name"]
        .as_str()
        .is_some_and(|name| !name.is_empty());
    let asked: ContainerUpdateBody = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    refuse_unbuilt(&asked)?;
    let number = |value: Option<i64>| value.filter(|value| *value != 0);
    let text = |value: Option<String>| value.filter(|value| !value.is_empty());
    let restart = restart_policy::policy(asked.restart_policy)?;
    let changes = Changes {
        memory: number(asked.memory),
        memory_swap: number(asked.memory_swap),
        memory_reservation: number(asked.memory_reservation),
        nano_cpus: number(asked.nano_cpus),
        cpu_period: number(asked.cpu_period),
        cpu_quota: number(asked.cpu_quota),
        cpu_shares: number(asked.cpu_shares),
        cpuset_cpus: text(asked.cpuset_cpus),
        cpuset_mems: text(asked.cpuset_mems),
        pids_limit: number(asked.pids_limit),
        blkio_weight: disk_limits::weight(asked.blkio_weight)?,
        cpu_rt_period: number(asked.cpu_realtime_period),
        cpu_rt_runtime: number(asked.cpu_realtime_runtime),
        restart: named.then_some(restart),
    };
    Ok(changes)
}

fn refuse_unbuilt(asked: &ContainerUpdateBody) -> Result<(), Refusal> {
    let nonzero = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let unbuilt = [
        (nonzero(asked.kernel_memory_tcp), "kernel memory limits"),
        (
            disk_limits::by_disk([
                &asked.blkio_device_read_bps,
                &asked.blkio_device_write_bps,
                &asked.blkio_device_read_iops,
                &asked.blkio_device_write_iops,
            ]),
            "limits of single disks",
        ),
    ];
    match unbuilt.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Refusal::unsupported(format!("not built: update {flag}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::RestartPolicy;

    #[test]
    fn what_is_zero_or_empty_stays_as_it_is() {
        // As the docker client sends it.
        let body = json!({
            "CpuShares": 0, "Memory": 67_108_864, "NanoCpus": 0, "CpusetCpus": "", "PidsLimit": null,
            "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
        });
        let expected = Changes {
            memory: Some(67_108_864),
            ..Changes::default()
        };
        assert_eq!(parse(body).expect("valid"), expected);
        let body = json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}});
        let restart = parse(body).expect("valid").restart;
        assert_eq!(restart, Some(RestartPolicy::OnFailure { retries: 2 }));
    }

    #[test]
    fn what_is_wrong_or_not_built_is_told() {
        for (body, words) in [
            (
                json!({"RestartPolicy": {"Name": "never"}}),
                "unknown policy",
            ),
            (json!({"Memory": "x"}), "invalid JSON"),
            (
                json!({"BlkioWeight": 5}),
                "Range of blkio weight is from 10 to 1000",
            ),
        ] {
            let error = parse(body).expect_err(words);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
