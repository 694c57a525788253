//! What a service's specification, in the words of Docker's API, means to the scheduler; and what is wrong with it.

use std::collections::BTreeMap;

use bollard_stubs::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpecModeEnum, NetworkAttachmentConfig, ServiceSpec, ServiceSpecRollbackConfig,
    ServiceSpecRollbackConfigFailureActionEnum, ServiceSpecRollbackConfigOrderEnum,
    ServiceSpecUpdateConfig, ServiceSpecUpdateConfigFailureActionEnum,
    ServiceSpecUpdateConfigOrderEnum, TaskSpec, TaskSpecPlacement,
    TaskSpecRestartPolicyConditionEnum,
};
use nuncio_orchestration::{
    Condition, Constraint, FailureAction, HostPort, Mode, Order, Placement, Platform, Preference,
    Protocol, Resources, RestartPolicy, Spec, UpdateConfig,
};
use serde_json::{Value, json};

use crate::daemon::refusal::Refusal;
use crate::daemon::services::is_name;

/// A label of a service: no two tasks of a slot may run at the same time, not even while a host is cut off.
const FENCE: &str = "nuncio.fence";
/// A label of a service: its tasks are spread anew whenever they are uneven.
const REBALANCE: &str = "nuncio.rebalance";
/// The greatest number of tasks that one service may want.
const MOST_REPLICAS: i64 = 100_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// Reads a specification as Docker does, which is laxer than its types: an empty object may stand for a mode.
pub(crate) fn parse(spec: &Value) -> Result<ServiceSpec, Refusal> {
    let mut spec = spec.clone();
    let container = spec.pointer_mut("/TaskTemplate/ContainerSpec");
    // Docker's own word for it is another than that of its description.
    if let Some(container) = container.and_then(Value::as_object_mut)
        && let Some(check) = container.remove("Healthcheck")
    {
        container.insert("HealthCheck".to_owned(), check);
    }
    if let Some(Value::Object(mode)) = spec.get_mut("Mode") {
        mode.retain(|_, value| !value.is_null());
        for (_, value) in mode.iter_mut() {
            if !value.is_object() {
                *value = json!({});
            }
        }
    }
    serde_json::from_value(spec).map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))
}

/// Writes down how many tasks are wanted where nobody said, as Docker does.
pub(crate) fn normalize(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let mode = spec.entry("Mode").or_insert_with(|| json!({}));
    let Some(mode) = mode.as_object_mut() else {
        return;
    };
    mode.retain(|_, value| !value.is_null());
    if mode.is_empty() {
        mode.insert("Replicated".to_owned(), json!({}));
    }
    if let Some(replicated) = mode.get_mut("Replicated").and_then(Value::as_object_mut) {
        let replicas = replicated.entry("Replicas").or_insert(Value::Null);
        if replicas.is_null() {
            *replicas = 1.into();
        }
    }
    if let Some(job) = mode.get_mut("ReplicatedJob").and_then(Value::as_object_mut) {
        let concurrent = job
            .get("MaxConcurrent")
            .and_then(Value::as_u64)
            .unwrap_or(1);
        job.insert("MaxConcurrent".to_owned(), concurrent.into());
        let total = job.get("TotalCompletions").and_then(Value::as_u64);
        job.insert(
            "TotalCompletions".to_owned(),
            total.unwrap_or(concurrent).into(),
        );
    }
}

/// Refuses what no service can be, in Docker's words.
pub(crate) fn check(spec: &ServiceSpec) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::invalid(message));
    let name = spec.name.as_deref().unwrap_or_default();
    if !is_name(name) {
        return invalid(format!(
            "invalid service name {name:?}: name must be valid as a DNS name component"
        ));
    }
    let task = spec.task_template.clone().unwrap_or_default();
    if task.plugin_spec.is_some() || task.network_attachment_spec.is_some() {
        return Err(Refusal::unsupported(
            "not built: services of plugins and of network attachments",
        ));
    }
    if task
        .runtime
        .as_deref()
        .is_some_and(|runtime| !["", "container"].contains(&runtime))
    {
        return invalid("runtime is not supported: expected container".to_owned());
    }
    let container = task.container_spec.clone().unwrap_or_default();
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided".to_owned());
    }
    if let Err(error) = image.parse::<nuncio_runtime::image::Reference>() {
        return invalid(format!(
            "ContainerSpec: {image:?} is not a valid repository/tag: {error}"
        ));
    }
    for mount in container.mounts.iter().flatten() {
        if mount.target.as_deref().unwrap_or_default().is_empty() {
            return invalid("mount target must be provided".to_owned());
        }
    }
    check_ports(&ports(spec))?;
    check_mode(spec)?;
    scheduled(spec, 1).map(drop)
}

fn check_mode(spec: &ServiceSpec) -> Result<(), Refusal> {
    let Some(mode) = &spec.mode else {
        return Ok(());
    };
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(Refusal::invalid("must specify only one service mode"));
    }
    if (mode.replicated_job.is_some() || mode.global_job.is_some()) && spec.update_config.is_some()
    {
        return Err(Refusal::invalid(
            "update config cannot be specified for a service of mode replicated-job or global-job",
        ));
    }
    Ok(())
}

fn check_ports(ports: &[EndpointPortConfig]) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for port in ports {
        let target = port.target_port.unwrap_or_default();
        let published = port.published_port.unwrap_or_default();
        for (what, number, least) in [("target", target, 1), ("published", published, 0)] {
            if !(least..=65_535).contains(&number) {
                return Err(Refusal::invalid(format!(
                    "invalid {what} port {number}: expected a number from 1 to 65535"
                )));
            }
        }
        if port.protocol == Some(EndpointPortConfigProtocolEnum::SCTP) {
            return Err(Refusal::unsupported(format!(
                "not built: publishing {target}/sctp: expected tcp or udp"
            )));
        }
        let mode = is_ingress(port);
        if published != 0 && !seen.insert((published, protocol(port), mode)) {
            return Err(Refusal::invalid(
                "EndpointSpec: duplicate published ports provided",
            ));
        }
    }
    Ok(())
}

/// The ports that it publishes.
pub(crate) fn ports(spec: &ServiceSpec) -> Vec<EndpointPortConfig> {
    let endpoint = spec.endpoint_spec.as_ref();
    endpoint
        .and_then(|endpoint| endpoint.ports.clone())
        .unwrap_or_default()
}

/// Whether a port is published on every host, not only on those that run a task.
pub(crate) fn is_ingress(port: &EndpointPortConfig) -> bool {
    port.publish_mode != Some(EndpointPortConfigPublishModeEnum::HOST)
}

/// `tcp` or `udp`.
pub(crate) fn protocol(port: &EndpointPortConfig) -> &'static str {
    match port.protocol {
        Some(EndpointPortConfigProtocolEnum::UDP) => "udp",
        _ => "tcp",
    }
}

/// Whether its name leads to the tasks themselves, not to an address of its own.
pub(crate) fn is_round_robin(spec: &ServiceSpec) -> bool {
    let mode = spec
        .endpoint_spec
        .as_ref()
        .and_then(|endpoint| endpoint.mode);
    mode == Some(EndpointSpecModeEnum::DNSRR)
}

/// The networks that its tasks are in, by id or name as it was asked.
pub(crate) fn networks(spec: &ServiceSpec) -> Vec<NetworkAttachmentConfig> {
    let task = spec.task_template.as_ref();
    let of_task = task.and_then(|task| task.networks.clone());
    let given = of_task.filter(|networks| !networks.is_empty());
    given.or_else(|| spec.networks.clone()).unwrap_or_default()
}

/// Whether other hosts find its tasks by name or by a published port.
pub(crate) fn is_found(spec: &ServiceSpec) -> bool {
    let named = networks(spec).iter().any(|network| {
        !["host", "none", "bridge"].contains(&network.target.as_deref().unwrap_or_default())
    });
    named || ports(spec).iter().any(is_ingress)
}

/// Its labels.
pub(crate) fn labels(spec: &ServiceSpec) -> BTreeMap<String, String> {
    spec.labels.clone().into_iter().flatten().collect()
}

/// What of a specification a running task would notice: another one makes other tasks.
pub(crate) fn substance(spec: &Value) -> Value {
    let mut task = spec["TaskTemplate"].clone();
    // By what tasks are spread, and whether they are begun again, those that are there need not know.
    if let Some(task) = task.as_object_mut() {
        task.remove("RestartPolicy");
        if let Some(placement) = task.get_mut("Placement").and_then(Value::as_object_mut) {
            placement.remove("Preferences");
            placement.retain(|_, value| !is_nothing(value));
        }
        task.retain(|_, value| !is_nothing(value));
    }
    let ports = spec["EndpointSpec"]["Ports"].as_array();
    let host_ports: Vec<&Value> = ports
        .into_iter()
        .flatten()
        .filter(|port| port["PublishMode"] == "host")
        .collect();
    let has_ingress = ports.is_some_and(|ports| ports.len() > host_ports.len());
    let targets: Vec<&Value> = ports
        .into_iter()
        .flatten()
        .map(|port| &port["TargetPort"])
        .collect();
    json!({
        "TaskTemplate": task,
        "HostPorts": host_ports,
        "HasIngress": has_ingress,
        "Targets": targets,
        "Mode": spec["EndpointSpec"]["Mode"],
        "Networks": spec["Networks"],
    })
}

/// The same but for where tasks may run: who is where it may be need not notice that.
pub(crate) fn bare_substance(spec: &Value) -> Value {
    let mut substance = substance(spec);
    if let Some(task) = substance["TaskTemplate"].as_object_mut() {
        task.remove("Placement");
    }
    substance
}

/// Whether a field says no more than its absence.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(_) | Value::String(_) => false,
    }
}

/// The specification as the scheduler has it.
pub(crate) fn scheduled(spec: &ServiceSpec, version: u64) -> Result<Spec, Refusal> {
    let task = spec.task_template.clone().unwrap_or_default();
    let labels = labels(spec);
    let mode = mode(spec)?;
    let default_condition = match mode {
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => Condition::OnFailure,
        Mode::Replicated { .. } | Mode::Global => Condition::Any,
    };
    let grace = task
        .container_spec
        .as_ref()
        .and_then(|container| container.stop_grace_period);
    Ok(Spec {
        version,
        akin: std::collections::BTreeSet::new(),
        mode,
        placement: placement(&task, spec)?,
        restart: restart(&task, default_condition)?,
        update: update_config(spec.update_config.as_ref())?,
        rollback: rollback_config(spec.rollback_config.as_ref())?,
        fence: is_set(&labels, FENCE)?,
        stop_grace: match grace {
            Some(grace) => millis("StopGracePeriod", grace)?,
            None => Spec::default().stop_grace,
        },
    })
}

/// Whether its tasks are to be spread anew whenever they are uneven.
pub(crate) fn rebalances(spec: &ServiceSpec) -> bool {
    labels(spec)
        .get(REBALANCE)
        .is_some_and(|value| value == "auto")
}

fn is_set(labels: &BTreeMap<String, String>, label: &str) -> Result<bool, Refusal> {
    match labels.get(label).map(String::as_str) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(Refusal::invalid(format!(
            "invalid label {label}={other}: expected true or false"
        ))),
    }
}

fn mode(spec: &ServiceSpec) -> Result<Mode, Refusal> {
    let count = |what: &str, number: i64| match number {
        0..=MOST_REPLICAS => Ok(u64::try_from(number).unwrap_or_default()),
        _ => Err(Refusal::invalid(format!(
            "invalid {what} {number}: expected a number from 0 to {MOST_REPLICAS}"
        ))),
    };
    let mode = spec.mode.clone().unwrap_or_default();
    if let Some(job) = mode.replicated_job {
        let concurrent = job.max_concurrent.unwrap_or(1);
        return Ok(Mode::ReplicatedJob {
            total: count(
                "TotalCompletions",
                job.total_completions.unwrap_or(concurrent),
            )?,
            concurrent: count("MaxConcurrent", concurrent)?,
        });
    }
    Ok(match (mode.global, mode.global_job) {
        (Some(_), _) => Mode::Global,
        (_, Some(_)) => Mode::GlobalJob,
        _ => {
            let replicas = mode.replicated.and_then(|mode| mode.replicas).unwrap_or(1);
            Mode::Replicated {
                replicas: count("number of replicas", replicas)?,
            }
        }
    })
}

fn placement(task: &TaskSpec, spec: &ServiceSpec) -> Result<Placement, Refusal> {
    let TaskSpecPlacement {
        constraints,
        preferences,
        max_replicas,
        platforms,
    } = task.placement.clone().unwrap_or_default();
    let constraints = constraints.unwrap_or_default();
    let parsed = constraints
        .iter()
        .map(|text| Constraint::parse(text).map_err(|error| Refusal::invalid(error.to_string())));
    let constraints = parsed.collect::<Result<Vec<_>, _>>()?;
    let spread = preferences.unwrap_or_default().into_iter();
    let spread = spread.filter_map(|preference| preference.spread?.spread_descriptor);
    let reservations = task
        .resources
        .as_ref()
        .and_then(|resources| resources.reservations.clone())
        .unwrap_or_default();
    if reservations
        .generic_resources
        .as_ref()
        .is_some_and(|generic| !generic.is_empty())
    {
        return Err(Refusal::unsupported("not built: generic resources"));
    }
    let number = |what: &str, value: Option<i64>| {
        let value = value.unwrap_or_default();
        u64::try_from(value).map_err(|_| {
            Refusal::invalid(format!(
                "invalid {what} {value}: expected a number of at least 0"
            ))
        })
    };
    let platform = |platform: bollard_stubs::models::Platform| Platform {
        os: platform.os.unwrap_or_default(),
        arch: platform.architecture.unwrap_or_default(),
    };
    let host_ports = ports(spec)
        .into_iter()
        .filter(|port| !is_ingress(port))
        .filter_map(|port| {
            let number = u16::try_from(port.published_port?).ok()?;
            let protocol = match protocol(&port) {
                "udp" => Protocol::Udp,
                _ => Protocol::Tcp,
            };
            let port = HostPort {
                protocol,
                port: number,
            };
            (number != 0).then_some(port)
        });
    Ok(Placement {
        constraints,
        preferences: spread.map(|spread| Preference { spread }).collect(),
        max_per_node: number("MaxReplicas", max_replicas)?,
        reservations: Resources {
            cpus: number("reservation of CPUs", reservations.nano_cpus)?,
            memory: number("reservation of memory", reservations.memory_bytes)?,
        },
        platforms: platforms
            .unwrap_or_default()
            .into_iter()
            .map(platform)
            .collect(),
        host_ports: host_ports.collect(),
    })
}

fn restart(task: &TaskSpec, default: Condition) -> Result<RestartPolicy, Refusal> {
    let usual = RestartPolicy {
        condition: default,
        ..RestartPolicy::default()
    };
    let Some(asked) = &task.restart_policy else {
        return Ok(usual);
    };
    let attempts = asked.max_attempts.unwrap_or_default();
    Ok(RestartPolicy {
        condition: match asked.condition {
            Some(TaskSpecRestartPolicyConditionEnum::NONE) => Condition::None,
            Some(TaskSpecRestartPolicyConditionEnum::ON_FAILURE) => Condition::OnFailure,
            Some(TaskSpecRestartPolicyConditionEnum::ANY) => Condition::Any,
            Some(TaskSpecRestartPolicyConditionEnum::EMPTY) | None => default,
        },
        delay: match asked.delay {
            Some(delay) => millis("restart delay", delay)?,
            None => usual.delay,
        },
        max_attempts: u64::try_from(attempts).map_err(|_| {
            Refusal::invalid(format!(
                "invalid MaxAttempts {attempts}: expected at least 0"
            ))
        })?,
        window: millis("restart window", asked.window.unwrap_or_default())?,
    })
}

fn update_config(asked: Option<&ServiceSpecUpdateConfig>) -> Result<UpdateConfig, Refusal> {
    let Some(asked) = asked else {
        return Ok(UpdateConfig::default());
    };
    use ServiceSpecUpdateConfigFailureActionEnum as Action;
    steps(
        asked.parallelism,
        asked.delay,
        asked.monitor,
        asked.max_failure_ratio,
        match asked.failure_action {
            Some(Action::CONTINUE) => FailureAction::Continue,
            Some(Action::ROLLBACK) => FailureAction::Rollback,
            Some(Action::PAUSE | Action::EMPTY) | None => FailureAction::Pause,
        },
        match asked.order {
            Some(ServiceSpecUpdateConfigOrderEnum::START_FIRST) => Order::StartFirst,
            _ => Order::StopFirst,
        },
    )
}

fn rollback_config(asked: Option<&ServiceSpecRollbackConfig>) -> Result<UpdateConfig, Refusal> {
    let Some(asked) = asked else {
        return Ok(UpdateConfig::default());
    };
    steps(
        asked.parallelism,
        asked.delay,
        asked.monitor,
        asked.max_failure_ratio,
        match asked.failure_action {
            Some(ServiceSpecRollbackConfigFailureActionEnum::CONTINUE) => FailureAction::Continue,
            _ => FailureAction::Pause,
        },
        match asked.order {
            Some(ServiceSpecRollbackConfigOrderEnum::START_FIRST) => Order::StartFirst,
            _ => Order::StopFirst,
        },
    )
}

fn steps(
    parallelism: Option<i64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    ratio: Option<f64>,
    on_failure: FailureAction,
    order: Order,
) -> Result<UpdateConfig, Refusal> {
    let usual = UpdateConfig::default();
    let parallelism = parallelism.unwrap_or(1);
    let max_failure_ratio = ratio.unwrap_or_default();
    if !(0.0..=1.0).contains(&max_failure_ratio) {
        return Err(Refusal::invalid(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ));
    }
    Ok(UpdateConfig {
        parallelism: u64::try_from(parallelism).map_err(|_| {
            Refusal::invalid(format!(
                "invalid parallelism {parallelism}: expected at least 0"
            ))
        })?,
        delay: millis("update delay", delay.unwrap_or_default())?,
        on_failure,
        monitor: match monitor {
            None | Some(0) => usual.monitor,
            Some(monitor) => millis("update monitor", monitor)?,
        },
        max_failure_ratio,
        order,
    })
}

fn millis(what: &str, nanos: i64) -> Result<u64, Refusal> {
    u64::try_from(nanos / NANOS_PER_MILLI)
        .ok()
        .filter(|_| nanos >= 0)
        .ok_or_else(|| Refusal::invalid(format!("TaskSpec: {what} cannot be negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_said_is_written_down() {
        for (given, expected) in [
            (json!({}), json!({"Replicated": {"Replicas": 1}})),
            (
                json!({"Mode": {"Replicated": {}}}),
                json!({"Replicated": {"Replicas": 1}}),
            ),
            (
                json!({"Mode": {"Replicated": null, "Global": {}}}),
                json!({"Global": {}}),
            ),
            (
                json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": 3}}}),
                json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}),
            ),
        ] {
            let mut spec = given;
            normalize(&mut spec);
            assert_eq!(spec["Mode"], expected);
        }
    }

    #[test]
    fn what_no_service_can_be_is_refused_in_dockers_words() {
        let image = json!({"ContainerSpec": {"Image": "busybox"}});
        let port = |published: u64| json!({"TargetPort": 80, "PublishedPort": published});
        for (spec, words) in [
            (
                json!({"Name": "-a", "TaskTemplate": image}),
                "name must be valid as a DNS name component",
            ),
            (
                json!({"Name": "a"}),
                "ContainerSpec: image reference must be provided",
            ),
            (
                json!({"Name": "a", "TaskTemplate": image, "Mode": {"Global": {}, "Replicated": {}}}),
                "must specify only one service mode",
            ),
            (
                json!({"Name": "a", "TaskTemplate": image, "EndpointSpec": {"Ports": [port(80), port(80)]}}),
                "duplicate published ports",
            ),
            (
                json!({"Name": "a", "TaskTemplate": image, "EndpointSpec": {"Ports": [port(70_000)]}}),
                "invalid published port 70000",
            ),
            (
                json!({"Name": "a", "TaskTemplate": image, "UpdateConfig": {"MaxFailureRatio": 2.0}}),
                "bigger than 1",
            ),
            (
                json!({"Name": "a", "TaskTemplate": image, "UpdateConfig": {"Delay": -1}}),
                "cannot be negative",
            ),
        ] {
            let parsed = parse(&spec).expect("a specification");
            let refusal = check(&parsed).expect_err(words);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,64}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = parse(&value).map(|spec| check(&spec));
            }
            let _ = check(&parse(&json!({"Name": text, "TaskTemplate": {"Placement": {"Constraints": [text]}}})).unwrap_or_default());
        }
    }
}
