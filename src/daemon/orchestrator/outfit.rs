//! The container that a task is: the service's specification as a request to make a container, in the words of Docker's API.

use std::collections::BTreeMap;

use bollard_stubs::models::{
    ServiceSpec, TaskSpecContainerSpec, TaskSpecContainerSpecPrivilegesSeccompModeEnum,
};
use nuncio_orchestration::Slot;
use serde_json::{Map, Value, json};

use super::spec;
use crate::daemon::refusal::Refusal;
use crate::daemon::{offering, service_check, services};

/// Labels of a task's container, as Swarm's.
pub(crate) const TASK_ID: &str = "com.docker.swarm.task.id";
const TASK: &str = "com.docker.swarm.task";
const TASK_NAME: &str = "com.docker.swarm.task.name";
pub(crate) const SERVICE_ID: &str = "com.docker.swarm.service.id";
pub(crate) const SERVICE_NAME: &str = "com.docker.swarm.service.name";
const NODE_ID: &str = "com.docker.swarm.node.id";
/// The network by which published ports lead to tasks.
pub(crate) const INGRESS: &str = "ingress";
/// The value of the label by which tasks are not looked at.
const NO_CHECK: &str = "none";
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A task, its service and its host, as the container's settings may name them.
pub(crate) struct Setting<'a> {
    pub(crate) task: &'a str,
    pub(crate) slot: &'a Slot,
    pub(crate) service: &'a str,
    pub(crate) node: &'a str,
    pub(crate) hostname: &'a str,
}

impl Setting<'_> {
    /// `SERVICE.SLOT.ID`, or `SERVICE.NODE.ID` of a service that is on each host.
    pub(crate) fn name(&self, service: &str) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{service}.{number}.{}", self.task),
            Slot::Node(node) => format!("{service}.{node}.{}", self.task),
        }
    }

    fn slot(&self) -> String {
        match self.slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => node.clone(),
        }
    }

    /// Replaces `{{.Task.Slot}}` and its kin.
    fn fill(&self, text: &str, service: &str) -> Result<String, Refusal> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((field, after)) = after.split_once("}}") else {
                return Err(Refusal::invalid(format!(
                    "invalid template {text:?}: {{{{ without }}}}"
                )));
            };
            filled.push_str(before);
            filled.push_str(&match field.trim() {
                ".Service.ID" => self.service.to_owned(),
                ".Service.Name" => service.to_owned(),
                ".Node.ID" => self.node.to_owned(),
                ".Node.Hostname" => self.hostname.to_owned(),
                ".Node.Platform.OS" => "linux".to_owned(),
                ".Node.Platform.Architecture" => std::env::consts::ARCH.to_owned(),
                ".Task.ID" => self.task.to_owned(),
                ".Task.Name" => self.name(service),
                ".Task.Slot" => self.slot(),
                other => {
                    return Err(Refusal::invalid(format!(
                        "invalid template {text:?}: {other:?} is none of .Service.ID, .Service.Name, .Node.ID, \
                         .Node.Hostname, .Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, .Task.Name, .Task.Slot"
                    )));
                }
            });
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The body of `POST /containers/create` for a task.
///
/// # Errors
///
/// [`Refusal`], if a setting names what there is not.
pub(crate) fn body(spec: &ServiceSpec, setting: &Setting<'_>) -> Result<Value, Refusal> {
    let task = spec.task_template.clone().unwrap_or_default();
    let container = task.container_spec.clone().unwrap_or_default();
    let service = spec.name.clone().unwrap_or_default();
    let fill = |text: &String| setting.fill(text, &service);
    let env = container.env.iter().flatten().map(fill);
    let env = env.collect::<Result<Vec<_>, _>>()?;
    let grace = container
        .stop_grace_period
        .map(|grace| (grace + NANOS_PER_SECOND - 1) / NANOS_PER_SECOND);
    let exposed: Map<String, Value> = spec::ports(spec)
        .iter()
        .map(|port| {
            let target = port.target_port.unwrap_or_default();
            (format!("{target}/{}", spec::protocol(port)), json!({}))
        })
        .collect();
    let (mode, endpoints) = networks(spec, &service);
    let mut host = host_config(spec, &container, &task.resources.unwrap_or_default());
    host.insert("NetworkMode".to_owned(), mode.into());
    if let Some(driver) = task.log_driver {
        host.insert(
            "LogConfig".to_owned(),
            json!({ "Type": driver.name.unwrap_or_default(), "Config": driver.options }),
        );
    }
    let mounts = host.get_mut("Mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        if let Some(Value::String(source)) = mount.get_mut("Source") {
            *source = setting.fill(source, &service)?;
        }
    }
    Ok(json!({
        "Image": container.image,
        "Hostname": container.hostname.as_ref().map(fill).transpose()?,
        "Env": env,
        "Entrypoint": container.command.filter(|words| !words.is_empty()),
        "Cmd": container.args.filter(|words| !words.is_empty()),
        "WorkingDir": container.dir,
        "User": container.user,
        "Tty": container.tty,
        "OpenStdin": container.open_stdin,
        "Labels": labels(spec, &container.labels.clone().into_iter().flatten().collect(), setting, &service),
        "StopSignal": container.stop_signal,
        "StopTimeout": grace,
        "Healthcheck": container.health_check,
        "ExposedPorts": exposed,
        "HostConfig": host,
        "NetworkingConfig": { "EndpointsConfig": endpoints },
    }))
}

fn labels(
    spec: &ServiceSpec,
    own: &BTreeMap<String, String>,
    setting: &Setting<'_>,
    service: &str,
) -> BTreeMap<String, String> {
    let mut labels = own.clone();
    let mut drop_check = false;
    let mut set = |label: &str, value: &str| {
        labels.insert(label.to_owned(), value.to_owned());
    };
    set(TASK, "");
    set(TASK_ID, setting.task);
    set(TASK_NAME, &setting.name(service));
    set(SERVICE_ID, setting.service);
    set(SERVICE_NAME, service);
    set(NODE_ID, setting.node);
    if spec::is_found(spec) && !spec::is_round_robin(spec) {
        set(services::LABEL, service);
        match own.get(service_check::LABEL).map(String::as_str) {
            // One that does not listen yet is not to be led to, unless somebody knows better.
            None => set(service_check::LABEL, "tcp"),
            Some(NO_CHECK) => drop_check = true,
            Some(_) => {}
        }
        let networks = spec::networks(spec);
        let aliases = networks
            .iter()
            .flat_map(|network| network.aliases.iter().flatten());
        let aliases: std::collections::BTreeSet<&str> = aliases
            .map(String::as_str)
            .filter(|alias| *alias != service && services::is_name(alias))
            .collect();
        if !aliases.is_empty() {
            let aliases: Vec<&str> = aliases.into_iter().collect();
            set(offering::ALSO, &aliases.join(","));
        }
    }
    if drop_check {
        labels.remove(service_check::LABEL);
    }
    labels
}

/// The network that a task's container begins with, and all that it is in.
fn networks(spec: &ServiceSpec, service: &str) -> (String, Map<String, Value>) {
    let mut endpoints = Map::new();
    let mut first = None;
    let round_robin = spec::is_round_robin(spec);
    for network in spec::networks(spec) {
        let target = network.target.unwrap_or_default();
        let mut aliases = network.aliases.unwrap_or_default();
        match round_robin {
            true => aliases.push(service.to_owned()),
            false => aliases.clear(), // they are other names of the service's address
        }
        if !["host", "none", "bridge"].contains(&target.as_str()) {
            endpoints.insert(target.clone(), json!({ "Aliases": aliases }));
        }
        first.get_or_insert(target);
    }
    if spec::ports(spec).iter().any(spec::is_ingress) {
        endpoints.insert(INGRESS.to_owned(), json!({}));
        first.get_or_insert_with(|| INGRESS.to_owned());
    }
    (first.unwrap_or_else(|| "bridge".to_owned()), endpoints)
}

fn host_config(
    spec: &ServiceSpec,
    container: &TaskSpecContainerSpec,
    resources: &bollard_stubs::models::TaskSpecResources,
) -> Map<String, Value> {
    let bindings: Map<String, Value> = spec::ports(spec)
        .iter()
        .filter(|port| !spec::is_ingress(port))
        .map(|port| {
            let target = port.target_port.unwrap_or_default();
            let published = port.published_port.unwrap_or_default();
            let at = match published {
                0 => String::new(),
                number => number.to_string(),
            };
            (
                format!("{target}/{}", spec::protocol(port)),
                json!([{ "HostPort": at }]),
            )
        })
        .collect();
    let dns = container.dns_config.clone().unwrap_or_default();
    let limits = resources.limits.clone().unwrap_or_default();
    let reservations = resources.reservations.clone().unwrap_or_default();
    let privileges = container.privileges.clone().unwrap_or_default();
    let mut security = Vec::new();
    if privileges.no_new_privileges == Some(true) {
        security.push("no-new-privileges");
    }
    let seccomp = privileges.seccomp.and_then(|seccomp| seccomp.mode);
    if seccomp == Some(TaskSpecContainerSpecPrivilegesSeccompModeEnum::UNCONFINED) {
        security.push("seccomp=unconfined");
    }
    let hosts: Vec<String> = container
        .hosts
        .iter()
        .flatten()
        .flat_map(|line| host(line))
        .collect();
    let body = json!({
        "Mounts": container.mounts,
        "PortBindings": bindings,
        "Dns": dns.nameservers,
        "DnsSearch": dns.search,
        "DnsOptions": dns.options,
        "ExtraHosts": hosts,
        "CapAdd": container.capability_add,
        "CapDrop": container.capability_drop,
        "GroupAdd": container.groups,
        "ReadonlyRootfs": container.read_only,
        "Init": container.init,
        "Sysctls": container.sysctls,
        "Ulimits": container.ulimits,
        "OomScoreAdj": container.oom_score_adj,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "PidsLimit": limits.pids.filter(|pids| *pids > 0),
        "MemoryReservation": reservations.memory_bytes,
        "SecurityOpt": security,
    });
    let Value::Object(mut body) = body else {
        unreachable!("it is written as an object")
    };
    body.retain(|_, value| !value.is_null());
    body
}

/// A line of a hosts file, `ADDRESS NAME [NAME…]`, as `--add-host` has it.
fn host(line: &str) -> Vec<String> {
    let mut words = line.split_whitespace();
    let address = words.next().unwrap_or_default();
    words.map(|name| format!("{name}:{address}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting<'a>(slot: &'a Slot) -> Setting<'a> {
        Setting {
            task: "t1",
            slot,
            service: "s1",
            node: "n1",
            hostname: "host-1",
        }
    }

    #[test]
    fn a_task_is_a_container_of_the_services_names_and_networks() {
        let spec = spec::parse(&json!({
            "Name": "web", "Labels": {"a": "b"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "busybox", "Args": ["httpd", "-f"], "Env": ["SLOT={{.Task.Slot}}", "AT={{ .Node.Hostname }}"],
                    "Hostname": "{{.Service.Name}}-{{.Task.Slot}}", "StopGracePeriod": 1_500_000_000_i64,
                    "Hosts": ["10.0.0.1 a b"], "Healthcheck": {"Test": ["CMD", "true"]},
                },
                "Resources": {"Limits": {"MemoryBytes": 67_108_864, "NanoCPUs": 500_000_000}},
                "Networks": [{"Target": "front", "Aliases": ["www", "web"]}],
            },
            "EndpointSpec": {"Ports": [
                {"TargetPort": 80, "PublishedPort": 8080},
                {"TargetPort": 53, "PublishedPort": 53, "Protocol": "udp", "PublishMode": "host"},
            ]},
        })).expect("a specification");
        let slot = Slot::Replica(2);
        let body = body(&spec, &setting(&slot)).expect("a container");
        assert_eq!(body["Hostname"], "web-2");
        assert_eq!(body["Env"], json!(["SLOT=2", "AT=host-1"]));
        assert_eq!(body["StopTimeout"], 2);
        assert_eq!(body["Healthcheck"]["Test"], json!(["CMD", "true"]));
        assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(
            body["HostConfig"]["PortBindings"],
            json!({"53/udp": [{"HostPort": "53"}]})
        );
        assert_eq!(
            body["HostConfig"]["ExtraHosts"],
            json!(["a:10.0.0.1", "b:10.0.0.1"])
        );
        assert_eq!(body["HostConfig"]["NetworkMode"], "front");
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"],
            json!({"front": {"Aliases": []}, "ingress": {}})
        );
        let labels = &body["Labels"];
        assert_eq!(
            (&labels["nuncio.service"], &labels[offering::ALSO]),
            (&json!("web"), &json!("www"))
        );
        assert_eq!(labels["com.docker.swarm.task.name"], "web.2.t1");
        let parsed = crate::api::container_config(body);
        assert!(
            parsed.is_ok(),
            "{:?}",
            parsed.err().map(|error| error.message)
        );
    }

    #[test]
    fn templates_that_name_nothing_are_refused() {
        let slot = Slot::Node("n1".to_owned());
        let setting = setting(&slot);
        assert_eq!(
            setting.fill("a{{.Task.Slot}}b", "web").expect("a template"),
            "an1b"
        );
        for wrong in ["{{.Task.Slot", "{{.Nobody}}"] {
            let refusal = setting.fill(wrong, "web").expect_err("refused");
            assert!(
                refusal.message.contains("invalid template"),
                "{}",
                refusal.message
            );
        }
    }
}
