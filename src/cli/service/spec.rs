//! From the flags that create and update share to a specification.

use std::str::FromStr;

use anyhow::bail;
use bollard_stubs::models::{
    EndpointSpec, EndpointSpecModeEnum, HealthConfig, Limit, ResourceObject, ServiceSpec,
    ServiceSpecRollbackConfig, ServiceSpecRollbackConfigFailureActionEnum,
    ServiceSpecRollbackConfigOrderEnum, ServiceSpecUpdateConfig,
    ServiceSpecUpdateConfigFailureActionEnum, ServiceSpecUpdateConfigOrderEnum, TaskSpec,
    TaskSpecContainerSpec, TaskSpecContainerSpecIsolationEnum, TaskSpecLogDriver,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};

use super::flags::{
    ContainerFlags, ResourceFlags, RestartFlags, RollbackFlags, ServiceHealthFlags, SharedFlags,
    UpdateFlags,
};
use crate::cli::parse::{Cpus, KeyValue, Size, Span};

/// How long a task is watched after an update, unless said otherwise.
const MONITOR: i64 = 5_000_000_000;
/// How long after its end a task is replaced, unless said otherwise.
const DELAY: i64 = 5_000_000_000;

/// Writes what was asked for into `spec`, and leaves the rest as it is.
///
/// # Errors
///
/// Flags that contradict each other, and what only Windows has.
pub(super) fn apply(flags: &SharedFlags, spec: &mut ServiceSpec) -> anyhow::Result<()> {
    let task = spec.task_template.get_or_insert_default();
    let container = task.container_spec.get_or_insert_default();
    apply_container(&flags.container, container)?;
    apply_health(&flags.health, container)?;
    if let Some(driver) = &flags.container.log_driver {
        task.log_driver = Some(TaskSpecLogDriver {
            name: Some(driver.clone()),
            options: Some(pairs(&flags.container.log_opt)),
        });
    }
    apply_resources(&flags.resources, task);
    apply_restart(&flags.restart, task);
    if let Some(most) = flags.replicas_max_per_node {
        task.placement.get_or_insert_default().max_replicas = Some(most);
    }
    apply_update(&flags.update, spec);
    apply_rollback(&flags.rollback, spec);
    if let Some(mode) = &flags.endpoint_mode {
        let endpoint = spec.endpoint_spec.get_or_insert_with(EndpointSpec::default);
        endpoint.mode = parsed::<EndpointSpecModeEnum>(mode);
    }
    Ok(())
}

/// A map of the pairs; of those with the same key the last.
pub(super) fn pairs<M: FromIterator<(String, String)>>(given: &[KeyValue]) -> M {
    let given = given.iter();
    given
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect()
}

/// A word that clap let through, as the API's.
fn parsed<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn apply_container(
    flags: &ContainerFlags,
    container: &mut TaskSpecContainerSpec,
) -> anyhow::Result<()> {
    match flags.isolation.as_deref() {
        None => {}
        Some("default") => container.isolation = Some(TaskSpecContainerSpecIsolationEnum::DEFAULT),
        Some(other) => bail!("invalid isolation '{other}' on linux: expected default"),
    }
    if flags.credential_spec.is_some() {
        bail!(
            "\"--credential-spec\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
        );
    }
    let take = |given: &Option<String>, field: &mut Option<String>| {
        if given.is_some() {
            field.clone_from(given);
        }
    };
    take(&flags.hostname, &mut container.hostname);
    take(&flags.user, &mut container.user);
    take(&flags.workdir, &mut container.dir);
    take(&flags.stop_signal, &mut container.stop_signal);
    if let Some(words) = &flags.entrypoint {
        container.command = Some(words.0.clone());
    }
    container.init = flags.init.or(container.init);
    container.tty = flags.tty.or(container.tty);
    container.read_only = flags.read_only.or(container.read_only);
    container.oom_score_adj = flags.oom_score_adj.or(container.oom_score_adj);
    let grace = flags.stop_grace_period.map(Span::nanoseconds);
    container.stop_grace_period = grace.or(container.stop_grace_period);
    Ok(())
}

fn apply_health(
    flags: &ServiceHealthFlags,
    container: &mut TaskSpecContainerSpec,
) -> anyhow::Result<()> {
    let nanos = |span: Option<Span>| span.map(Span::nanoseconds);
    let given = HealthConfig {
        test: flags.health_cmd.as_deref().map(|command| match command {
            "" => Vec::new(),
            command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        }),
        interval: nanos(flags.health_interval),
        timeout: nanos(flags.health_timeout),
        retries: flags.health_retries,
        start_period: nanos(flags.health_start_period),
        start_interval: nanos(flags.health_start_interval),
    };
    let is_given = given != HealthConfig::default();
    if flags.no_healthcheck {
        if is_given {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        container.health_check = Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        });
    } else if is_given {
        let health = container.health_check.get_or_insert_default();
        if health
            .test
            .as_deref()
            .is_some_and(|test| test.first().is_some_and(|word| word == "NONE"))
        {
            health.test = None;
        }
        *health = HealthConfig {
            test: given.test.or(health.test.take()),
            interval: given.interval.or(health.interval),
            timeout: given.timeout.or(health.timeout),
            retries: given.retries.or(health.retries),
            start_period: given.start_period.or(health.start_period),
            start_interval: given.start_interval.or(health.start_interval),
        };
    }
    Ok(())
}

fn apply_resources(flags: &ResourceFlags, task: &mut TaskSpec) {
    let (cpus, memory) = (
        flags.limit_cpu.map(Cpus::nano),
        flags.limit_memory.map(Size::bytes),
    );
    if cpus.is_some() || memory.is_some() || flags.limit_pids.is_some() {
        let resources = task.resources.get_or_insert_default();
        let before = resources.limits.take().unwrap_or_default();
        resources.limits = Some(Limit {
            nano_cpus: cpus.or(before.nano_cpus),
            memory_bytes: memory.or(before.memory_bytes),
            pids: flags.limit_pids.or(before.pids),
        });
    }
    let (cpus, memory) = (
        flags.reserve_cpu.map(Cpus::nano),
        flags.reserve_memory.map(Size::bytes),
    );
    if cpus.is_some() || memory.is_some() {
        let resources = task.resources.get_or_insert_default();
        let before = resources.reservations.take().unwrap_or_default();
        resources.reservations = Some(ResourceObject {
            nano_cpus: cpus.or(before.nano_cpus),
            memory_bytes: memory.or(before.memory_bytes),
            generic_resources: before.generic_resources,
        });
    }
}

fn apply_restart(flags: &RestartFlags, task: &mut TaskSpec) {
    let RestartFlags {
        restart_condition: condition,
        restart_delay: delay,
        restart_max_attempts: attempts,
        restart_window: window,
    } = flags;
    if condition.is_none() && delay.is_none() && attempts.is_none() && window.is_none() {
        return;
    }
    let policy = task.restart_policy.get_or_insert(TaskSpecRestartPolicy {
        condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
        delay: Some(DELAY),
        max_attempts: Some(0),
        window: None,
    });
    if let Some(condition) = condition {
        policy.condition = parsed(condition);
    }
    policy.delay = delay.map(Span::nanoseconds).or(policy.delay);
    policy.max_attempts = attempts.or(policy.max_attempts);
    policy.window = window.map(Span::nanoseconds).or(policy.window);
}

fn apply_update(flags: &UpdateFlags, spec: &mut ServiceSpec) {
    let given = ServiceSpecUpdateConfig {
        parallelism: flags.update_parallelism,
        delay: flags.update_delay.map(Span::nanoseconds),
        monitor: flags.update_monitor.map(Span::nanoseconds),
        failure_action: flags.update_failure_action.as_deref().and_then(parsed),
        max_failure_ratio: flags.update_max_failure_ratio,
        order: flags.update_order.as_deref().and_then(parsed),
    };
    if given == ServiceSpecUpdateConfig::default() {
        return;
    }
    let before = spec
        .update_config
        .take()
        .unwrap_or(ServiceSpecUpdateConfig {
            parallelism: Some(1),
            delay: None,
            monitor: Some(MONITOR),
            failure_action: Some(ServiceSpecUpdateConfigFailureActionEnum::PAUSE),
            max_failure_ratio: None,
            order: Some(ServiceSpecUpdateConfigOrderEnum::STOP_FIRST),
        });
    spec.update_config = Some(ServiceSpecUpdateConfig {
        parallelism: given.parallelism.or(before.parallelism),
        delay: given.delay.or(before.delay),
        monitor: given.monitor.or(before.monitor),
        failure_action: given.failure_action.or(before.failure_action),
        max_failure_ratio: given.max_failure_ratio.or(before.max_failure_ratio),
        order: given.order.or(before.order),
    });
}

fn apply_rollback(flags: &RollbackFlags, spec: &mut ServiceSpec) {
    let given = ServiceSpecRollbackConfig {
        parallelism: flags.rollback_parallelism,
        delay: flags.rollback_delay.map(Span::nanoseconds),
        monitor: flags.rollback_monitor.map(Span::nanoseconds),
        failure_action: flags.rollback_failure_action.as_deref().and_then(parsed),
        max_failure_ratio: flags.rollback_max_failure_ratio,
        order: flags.rollback_order.as_deref().and_then(parsed),
    };
    if given == ServiceSpecRollbackConfig::default() {
        return;
    }
    let before = spec
        .rollback_config
        .take()
        .unwrap_or(ServiceSpecRollbackConfig {
            parallelism: Some(1),
            delay: None,
            monitor: Some(MONITOR),
            failure_action: Some(ServiceSpecRollbackConfigFailureActionEnum::PAUSE),
            max_failure_ratio: None,
            order: Some(ServiceSpecRollbackConfigOrderEnum::STOP_FIRST),
        });
    spec.rollback_config = Some(ServiceSpecRollbackConfig {
        parallelism: given.parallelism.or(before.parallelism),
        delay: given.delay.or(before.delay),
        monitor: given.monitor.or(before.monitor),
        failure_action: given.failure_action.or(before.failure_action),
        max_failure_ratio: given.max_failure_ratio.or(before.max_failure_ratio),
        order: given.order.or(before.order),
    });
}
