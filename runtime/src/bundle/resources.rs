//! The limits of a container, as `config.json` has them.

use serde_json::{Map, Value, json};

use super::defaults;
use crate::cgroups::Layout;
use crate::spec::{ContainerSpec, Resources};

/// Microseconds in which a number of processors is counted.
pub(crate) const CPU_PERIOD: i64 = 100_000;

/// `device_rules` are those that the caller asked for.
pub(super) fn all(spec: &ContainerSpec, device_rules: Vec<Value>) -> Value {
    let mut devices = defaults::device_rules(spec.privileged);
    devices.extend(device_rules);
    let mut resources = json!({ "devices": devices });
    for (name, limits) in [
        ("memory", memory(&spec.resources)),
        ("cpu", cpu(&spec.resources)),
    ] {
        if !limits.is_empty() {
            resources[name] = limits.into();
        }
    }
    if let Some(limit) = spec.resources.pids_limit {
        resources["pids"] = json!({ "limit": limit });
    }
    resources
}

fn memory(limits: &Resources) -> Map<String, Value> {
    let mut memory = Map::new();
    if let Some(limit) = limits.memory {
        let swap = limits.memory_swap.unwrap_or(limit.saturating_mul(2));
        memory.insert("limit".into(), limit.into());
        if swap_is_counted() {
            memory.insert("swap".into(), swap.into());
        }
    }
    if let Some(bytes) = limits.memory_reservation {
        memory.insert("reservation".into(), bytes.into());
    }
    if matches!(Layout::detect(), Layout::V1 { .. }) {
        if let Some(swappiness) = limits.memory_swappiness {
            memory.insert("swappiness".into(), swappiness.into());
        }
        if limits.oom_kill_disable {
            memory.insert("disableOOMKiller".into(), true.into());
        }
    }
    memory
}

fn cpu(limits: &Resources) -> Map<String, Value> {
    let mut cpu = Map::new();
    let (period, quota) = quota(limits);
    let shares = limits.cpu_shares.map(Value::from);
    for (name, value) in [
        ("period", period.map(Value::from)),
        ("quota", quota.map(Value::from)),
        ("shares", shares),
        ("cpus", limits.cpuset_cpus.clone().map(Value::from)),
        ("mems", limits.cpuset_mems.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            cpu.insert(name.into(), value);
        }
    }
    cpu
}

/// Period and quota of the processors, in microseconds, as far as they are limited.
pub(crate) fn quota(limits: &Resources) -> (Option<i64>, Option<i64>) {
    match limits.nano_cpus {
        Some(nano) => (
            Some(CPU_PERIOD),
            Some((nano / 1_000 * CPU_PERIOD / 1_000_000).max(1_000)),
        ),
        None => (limits.cpu_period, limits.cpu_quota),
    }
}

/// A v1 kernel without swap accounting has no file to write the limit to.
fn swap_is_counted() -> bool {
    match Layout::detect() {
        Layout::V1 { hierarchies, .. } => hierarchies
            .iter()
            .any(|path| path.join("memory.memsw.limit_in_bytes").exists()),
        Layout::Unified | Layout::Absent => true,
    }
}
