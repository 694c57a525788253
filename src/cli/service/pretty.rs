//! A service in words, as Docker sets them.

use std::fmt::Write as _;

use bollard_stubs::models::{
    EndpointSpec, Limit, Mount, ResourceObject, Service, ServiceSpec, ServiceSpecMode,
    ServiceUpdateStatus, TaskSpec, TaskSpecContainerSpec, TaskSpecPlacement,
};
use jiff::{SignedDuration, Timestamp};

use crate::cli::human;
use crate::cli::tasks::Names;

/// All that a user would ask of a service.
pub(super) fn service(service: &Service, names: &Names) -> String {
    let mut out = Text::default();
    let spec = service.spec.clone().unwrap_or_default();
    out.field("ID:\t\t", service.id.as_deref().unwrap_or_default());
    out.field("Name:\t\t", spec.name.as_deref().unwrap_or_default());
    out.map("Labels:", spec.labels.iter().flatten());
    mode(&mut out, spec.mode.as_ref());
    if let Some(status) = &service.update_status {
        update_status(&mut out, status);
    }
    let task = spec.task_template.clone().unwrap_or_default();
    placement(&mut out, task.placement.as_ref());
    configs(&mut out, &spec);
    container(&mut out, task.container_spec.as_ref());
    resources(&mut out, &task);
    let networks = task.networks.as_ref().or(spec.networks.as_ref());
    let targets = networks
        .into_iter()
        .flatten()
        .filter_map(|network| network.target.as_deref());
    let targets: Vec<&str> = targets.map(|id| names.of(id)).collect();
    if !targets.is_empty() {
        out.field("Networks: ", &targets.join(" "));
    }
    endpoint(&mut out, service, spec.endpoint_spec.as_ref());
    out.0
}

/// Lines, as they come.
#[derive(Default)]
pub(in crate::cli) struct Text(pub(in crate::cli) String);

impl Text {
    pub(in crate::cli) fn line(&mut self, text: &str) {
        self.0.push_str(text.trim_end());
        self.0.push('\n');
    }

    pub(in crate::cli) fn field(&mut self, name: &str, value: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name}{value}");
    }

    /// A field that may be there.
    pub(in crate::cli) fn optional(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.field(name, &value.to_string());
        }
    }

    /// Pairs below a heading, sorted; nothing, if there are none.
    pub(in crate::cli) fn map<'a>(
        &mut self,
        heading: &str,
        pairs: impl Iterator<Item = (&'a String, &'a String)>,
    ) {
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort();
        if !pairs.is_empty() {
            self.line(heading);
        }
        for (key, value) in pairs {
            self.line(&format!(" {key}={value}"));
        }
    }
}

/// As Go writes them, `1m30s`.
fn span(nanoseconds: i64) -> String {
    let span = SignedDuration::from_nanos(nanoseconds);
    match span.is_zero() {
        true => "0s".to_owned(),
        false => format!("{span:#}").replace(' ', ""),
    }
}

/// How long ago a time is, in the API's form.
pub(in crate::cli) fn ago(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human::ago(time.as_second()),
        Err(_) => time.to_owned(),
    }
}

fn mode(out: &mut Text, mode: Option<&ServiceSpecMode>) {
    let Some(mode) = mode else { return };
    let (name, job) = match mode {
        mode if mode.global.is_some() => ("Global", None),
        mode if mode.global_job.is_some() => ("GlobalJob", None),
        mode if mode.replicated_job.is_some() => ("ReplicatedJob", mode.replicated_job.as_ref()),
        _ => ("Replicated", None),
    };
    out.field("Service Mode:\t", name);
    let replicas = mode.replicated.as_ref().and_then(|mode| mode.replicas);
    out.optional(" Replicas:\t", replicas);
    if let Some(job) = job {
        out.optional(" Max Concurrent:\t", job.max_concurrent);
        out.optional(" Total Completions:\t", job.total_completions);
    }
}

fn update_status(out: &mut Text, status: &ServiceUpdateStatus) {
    out.line("UpdateStatus:");
    out.optional(" State:\t\t", status.state);
    out.optional(" Started:\t", status.started_at.as_deref().map(ago));
    out.optional(" Completed:\t", status.completed_at.as_deref().map(ago));
    out.optional(" Message:\t", status.message.as_deref());
}

fn placement(out: &mut Text, placement: Option<&TaskSpecPlacement>) {
    out.line("Placement:");
    let Some(placement) = placement else { return };
    if let Some(constraints) = placement
        .constraints
        .as_ref()
        .filter(|list| !list.is_empty())
    {
        out.field(" Constraints:\t", &format!("[{}]", constraints.join(" ")));
    }
    let preferences = placement.preferences.iter().flatten();
    let spreads = preferences.filter_map(|one| one.spread.as_ref()?.spread_descriptor.as_deref());
    let spreads: Vec<String> = spreads.map(|what| format!("spread={what}")).collect();
    if !spreads.is_empty() {
        out.field(" Preferences:\t", &format!("[{}]", spreads.join(" ")));
    }
    let most = placement.max_replicas.filter(|most| *most > 0);
    out.optional(" Max Replicas Per Node:\t", most);
}

fn configs(out: &mut Text, spec: &ServiceSpec) {
    let number = |number: Option<i64>| number.unwrap_or_default().to_string();
    let word = |word: Option<String>, default: &str| match word {
        Some(word) if !word.is_empty() => word,
        _ => default.to_owned(),
    };
    if let Some(config) = &spec.update_config {
        out.line("UpdateConfig:");
        out.field(" Parallelism:\t", &number(config.parallelism));
        out.optional(" Delay:\t\t", config.delay.map(span));
        out.field(
            " On failure:\t",
            &word(config.failure_action.map(|it| it.to_string()), "pause"),
        );
        out.optional(" Monitoring Period: ", config.monitor.map(span));
        out.field(
            " Max failure ratio: ",
            &config.max_failure_ratio.unwrap_or_default().to_string(),
        );
        out.field(
            " Update order:      ",
            &word(config.order.map(|it| it.to_string()), "stop-first"),
        );
    }
    if let Some(config) = &spec.rollback_config {
        out.line("RollbackConfig:");
        out.field(" Parallelism:\t", &number(config.parallelism));
        out.optional(" Delay:\t\t", config.delay.map(span));
        out.field(
            " On failure:\t",
            &word(config.failure_action.map(|it| it.to_string()), "pause"),
        );
        out.optional(" Monitoring Period: ", config.monitor.map(span));
        out.field(
            " Max failure ratio: ",
            &config.max_failure_ratio.unwrap_or_default().to_string(),
        );
        out.field(
            " Rollback order:    ",
            &word(config.order.map(|it| it.to_string()), "stop-first"),
        );
    }
}

fn container(out: &mut Text, container: Option<&TaskSpecContainerSpec>) {
    out.line("ContainerSpec:");
    let Some(container) = container else { return };
    let words = |words: &Option<Vec<String>>| {
        let words = words.as_ref().filter(|words| !words.is_empty());
        words.map(|words| words.join(" "))
    };
    out.optional(" Image:\t\t", container.image.as_deref());
    out.optional(" Command:\t", words(&container.command));
    out.optional(" Args:\t\t", words(&container.args));
    out.optional(" Env:\t\t", words(&container.env));
    out.optional(
        " Dir:\t\t",
        container.dir.as_deref().filter(|dir| !dir.is_empty()),
    );
    out.optional(
        " User:\t\t",
        container.user.as_deref().filter(|user| !user.is_empty()),
    );
    out.optional(" Init:\t\t", container.init);
    let mounts: Vec<&Mount> = container.mounts.iter().flatten().collect();
    if !mounts.is_empty() {
        out.line("Mounts:");
    }
    for mount in mounts {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        out.field(" Target:\t", &text(&mount.target));
        out.field("  Source:\t", &text(&mount.source));
        out.field(
            "  ReadOnly:\t",
            &mount.read_only.unwrap_or_default().to_string(),
        );
        out.optional("  Type:\t\t", mount.typ);
    }
    let configs = container.configs.iter().flatten();
    let configs = configs.map(|one| {
        (
            one.config_name.clone(),
            one.file.as_ref().and_then(|file| file.name.clone()),
        )
    });
    granted(out, "Configs:", configs);
    let secrets = container.secrets.iter().flatten();
    let secrets = secrets.map(|one| {
        (
            one.secret_name.clone(),
            one.file.as_ref().and_then(|file| file.name.clone()),
        )
    });
    granted(out, "Secrets:", secrets);
}

fn granted(
    out: &mut Text,
    heading: &str,
    files: impl Iterator<Item = (Option<String>, Option<String>)>,
) {
    let files: Vec<_> = files.collect();
    if !files.is_empty() {
        out.line(heading);
    }
    for (name, target) in files {
        out.field(" Target:\t", &target.unwrap_or_default());
        out.field("  Source:\t", &name.unwrap_or_default());
    }
}

fn resources(out: &mut Text, task: &TaskSpec) {
    let Some(all) = &task.resources else { return };
    let cpus = |nanos: i64| (nanos as f64 / 1e9).to_string();
    let reserved = all
        .reservations
        .clone()
        .filter(|one| *one != ResourceObject::default());
    let limits = all.limits.clone().filter(|one| *one != Limit::default());
    if reserved.is_some() || limits.is_some() {
        out.line("Resources:");
    }
    if let Some(reserved) = reserved {
        out.line(" Reservations:");
        out.optional(
            "  CPU:\t\t",
            reserved.nano_cpus.filter(|it| *it > 0).map(cpus),
        );
        out.optional(
            "  Memory:\t",
            reserved.memory_bytes.filter(|it| *it > 0).map(bytes),
        );
    }
    if let Some(limits) = limits {
        out.line(" Limits:");
        out.optional(
            "  CPU:\t\t",
            limits.nano_cpus.filter(|it| *it > 0).map(cpus),
        );
        out.optional(
            "  Memory:\t",
            limits.memory_bytes.filter(|it| *it > 0).map(bytes),
        );
        out.optional("  PIDs:\t\t", limits.pids.filter(|it| *it > 0));
    }
}

/// `bytes` with a unit of powers of 1024, as `512MiB`.
pub(in crate::cli) fn bytes(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{}", UNITS[unit])
}

fn endpoint(out: &mut Text, service: &Service, spec: Option<&EndpointSpec>) {
    let endpoint = service.endpoint.as_ref();
    let shown = endpoint
        .and_then(|endpoint| endpoint.spec.as_ref())
        .or(spec);
    let mode = shown
        .and_then(|spec| spec.mode)
        .map(|mode| mode.to_string());
    out.optional("Endpoint Mode:\t", mode.filter(|mode| !mode.is_empty()));
    let told = endpoint.and_then(|endpoint| endpoint.ports.as_ref());
    let ports = told.or(spec.and_then(|spec| spec.ports.as_ref()));
    let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
        return;
    };
    out.line("Ports:");
    for port in ports {
        out.field(
            " PublishedPort = ",
            &port.published_port.unwrap_or_default().to_string(),
        );
        out.optional("  Protocol = ", port.protocol);
        out.field(
            "  TargetPort = ",
            &port.target_port.unwrap_or_default().to_string(),
        );
        out.optional("  PublishMode = ", port.publish_mode);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_in_words() {
        let told: Service = serde_json::from_value(json!({
            "ID": "abc",
            "Spec": {
                "Name": "web", "Labels": {"b": "2", "a": "1"}, "Mode": {"Replicated": {"Replicas": 3}},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "nginx", "Args": ["-g", "x"]},
                    "Placement": {"Constraints": ["node.role==worker"]},
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 536_870_912}},
                },
                "UpdateConfig": {"Parallelism": 2, "Delay": 90_000_000_000_i64},
                "EndpointSpec": {"Mode": "vip", "Ports": [{"PublishedPort": 80, "TargetPort": 8080, "Protocol": "tcp"}]},
            },
        }))
        .expect("a service");
        let text = service(&told, &Names::default());
        for line in [
            "ID:\t\tabc",
            "Labels:",
            " a=1",
            " b=2",
            "Service Mode:\tReplicated",
            " Replicas:\t3",
            " Constraints:\t[node.role==worker]",
            " Parallelism:\t2",
            " Delay:\t\t1m30s",
            " Update order:      stop-first",
            " Image:\t\tnginx",
            " Args:\t\t-g x",
            "  CPU:\t\t0.5",
            "  Memory:\t512MiB",
            "Endpoint Mode:\tvip",
            " PublishedPort = 80",
            "  TargetPort = 8080",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line:?} in\n{text}"
            );
        }
    }
}
