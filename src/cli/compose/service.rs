//! A service of a compose file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard_stubs::models::{HealthConfig, ResourcesUlimits};

use super::decode::{Section, text};
use super::deploy::Deploy;
use super::parts::{FileRef, Join, Port, Volume};
use super::yaml::{Node, Value, Wrong};
use crate::cli::parse::{HostEntry, Reference, Restart, Size};

/// What a file says of one service.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Service {
    pub(in crate::cli) name: String,
    pub(in crate::cli) image: Option<Reference>,
    pub(in crate::cli) build: bool,
    pub(in crate::cli) command: Option<Vec<String>>,
    pub(in crate::cli) entrypoint: Option<Vec<String>>,
    /// Without a value it is taken from the client's environment.
    pub(in crate::cli) environment: BTreeMap<String, Option<String>>,
    /// Files of variables, and whether each must be there.
    pub(in crate::cli) env_files: Vec<(PathBuf, bool)>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) annotations: BTreeMap<String, String>,
    pub(in crate::cli) container_name: Option<String>,
    pub(in crate::cli) hostname: Option<String>,
    pub(in crate::cli) domainname: Option<String>,
    pub(in crate::cli) user: Option<String>,
    pub(in crate::cli) working_dir: Option<String>,
    pub(in crate::cli) tty: bool,
    pub(in crate::cli) stdin_open: bool,
    pub(in crate::cli) read_only: bool,
    pub(in crate::cli) privileged: bool,
    pub(in crate::cli) init: Option<bool>,
    pub(in crate::cli) stop_signal: Option<String>,
    /// Nanoseconds.
    pub(in crate::cli) stop_grace_period: Option<i64>,
    pub(in crate::cli) cap_add: Vec<String>,
    pub(in crate::cli) cap_drop: Vec<String>,
    pub(in crate::cli) group_add: Vec<String>,
    pub(in crate::cli) security_opt: Vec<String>,
    pub(in crate::cli) sysctls: BTreeMap<String, String>,
    pub(in crate::cli) ulimits: Vec<ResourcesUlimits>,
    pub(in crate::cli) devices: Vec<String>,
    pub(in crate::cli) dns: Vec<String>,
    pub(in crate::cli) dns_search: Vec<String>,
    pub(in crate::cli) dns_opt: Vec<String>,
    pub(in crate::cli) extra_hosts: Vec<HostEntry>,
    pub(in crate::cli) healthcheck: Option<HealthConfig>,
    pub(in crate::cli) log_driver: Option<String>,
    pub(in crate::cli) log_options: BTreeMap<String, String>,
    pub(in crate::cli) networks: BTreeMap<String, Join>,
    pub(in crate::cli) network_mode: Option<String>,
    pub(in crate::cli) ports: Vec<Port>,
    pub(in crate::cli) expose: Vec<String>,
    pub(in crate::cli) volumes: Vec<Volume>,
    pub(in crate::cli) tmpfs: Vec<String>,
    pub(in crate::cli) secrets: Vec<FileRef>,
    pub(in crate::cli) configs: Vec<FileRef>,
    pub(in crate::cli) depends_on: BTreeMap<String, Dependency>,
    pub(in crate::cli) deploy: Deploy,
    pub(in crate::cli) restart: Option<Restart>,
    pub(in crate::cli) pid: Option<String>,
    pub(in crate::cli) ipc: Option<String>,
    pub(in crate::cli) shm_size: Option<i64>,
    pub(in crate::cli) mem_limit: Option<i64>,
    pub(in crate::cli) cpus: Option<crate::cli::parse::Cpus>,
    pub(in crate::cli) pids_limit: Option<i64>,
    pub(in crate::cli) oom_score_adj: Option<i64>,
    pub(in crate::cli) scale: Option<i64>,
    pub(in crate::cli) platform: Option<String>,
    pub(in crate::cli) pull_policy: Option<String>,
    pub(in crate::cli) profiles: Vec<String>,
    /// Keys that are known and that only some, or nobody, does something about; in the order of the file.
    pub(in crate::cli) given: Vec<String>,
}

/// What another service must have come to before this one starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cli) enum Condition {
    Started,
    Healthy,
    Completed,
}

/// A service that is to be there first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cli) struct Dependency {
    pub(in crate::cli) condition: Condition,
    /// Whether it may be missing.
    pub(in crate::cli) required: bool,
}

/// Known keys of which nothing here makes use.
const UNUSED: [&str; 22] = [
    "attach",
    "blkio_config",
    "cgroup",
    "cgroupns_mode",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpuset",
    "develop",
    "device_cgroup_rules",
    "external_links",
    "isolation",
    "links",
    "mac_address",
    "mem_reservation",
    "memswap_limit",
    "runtime",
    "userns_mode",
    "uts",
];

/// Keys that are refused, and what is right in their place.
const FORBIDDEN: [(&str, &str); 4] = [
    (
        "extends",
        "`extends` is not built: use a YAML anchor, or a second file by -c",
    ),
    (
        "volume_driver",
        "define a volume at the top level and say its driver there",
    ),
    (
        "volumes_from",
        "define a volume at the top level and name it in each service",
    ),
    ("credential_spec", "it is of Windows"),
];

impl Service {
    /// # Errors
    ///
    /// What is unknown, missing or of another kind, with its place.
    pub(super) fn decode(name: &str, mut section: Section) -> Result<Self, Wrong> {
        for (key, why) in FORBIDDEN {
            if let Some(node) = section.take(key) {
                return Err(node.at.wrong(format!("{}: {why}", section.path_of(key))));
            }
        }
        let mut service = Self {
            name: name.to_owned(),
            image: section.parsed("image")?,
            command: section.command("command")?,
            entrypoint: section.command("entrypoint")?,
            environment: section.pairs("environment")?,
            env_files: env_files(&mut section)?,
            labels: section.labels("labels")?,
            annotations: section.labels("annotations")?,
            container_name: section.text("container_name")?,
            hostname: section.text("hostname")?,
            domainname: section.text("domainname")?,
            user: section.text("user")?,
            working_dir: section.text("working_dir")?,
            tty: section.flag("tty")?.unwrap_or_default(),
            stdin_open: section.flag("stdin_open")?.unwrap_or_default(),
            read_only: section.flag("read_only")?.unwrap_or_default(),
            privileged: section.flag("privileged")?.unwrap_or_default(),
            init: section.flag("init")?,
            stop_signal: section.text("stop_signal")?,
            stop_grace_period: section.span("stop_grace_period")?,
            cap_add: section.texts("cap_add")?,
            cap_drop: section.texts("cap_drop")?,
            group_add: section.texts("group_add")?,
            security_opt: section.texts("security_opt")?,
            sysctls: section.labels("sysctls")?,
            ulimits: ulimits(&mut section)?,
            devices: section.texts("devices")?,
            dns: section.texts("dns")?,
            dns_search: section.texts("dns_search")?,
            dns_opt: section.texts("dns_opt")?,
            extra_hosts: extra_hosts(&mut section)?,
            healthcheck: healthcheck(&mut section)?,
            networks: Join::decode_all(&mut section)?,
            network_mode: section.text("network_mode")?,
            ports: Port::decode_all(&mut section)?,
            expose: section.texts("expose")?,
            volumes: Volume::decode_all(&mut section)?,
            tmpfs: section.texts("tmpfs")?,
            secrets: FileRef::decode_all(&mut section, "secrets")?,
            configs: FileRef::decode_all(&mut section, "configs")?,
            depends_on: depends_on(&mut section)?,
            deploy: Deploy::decode(section.section("deploy")?)?,
            restart: section.parsed("restart")?,
            pid: section.text("pid")?,
            ipc: section.text("ipc")?,
            shm_size: section.size("shm_size")?,
            mem_limit: section.parsed::<Size>("mem_limit")?.map(Size::bytes),
            cpus: section.parsed("cpus")?,
            pids_limit: section.integer("pids_limit")?,
            oom_score_adj: section.integer("oom_score_adj")?,
            scale: section.integer("scale")?,
            platform: section.text("platform")?,
            pull_policy: section.text("pull_policy")?,
            profiles: section.texts("profiles")?,
            build: section.drop_key("build"),
            ..Self::default()
        };
        if let Some(mut logging) = section.section("logging")? {
            service.log_driver = logging.text("driver")?;
            service.log_options = logging.labels("options")?;
            logging.finish()?;
        }
        service.given = service.named();
        let unused = UNUSED.iter().filter(|key| section.drop_key(key));
        service.given.extend(unused.map(|key| (*key).to_owned()));
        service.given.sort();
        section.finish()?;
        Ok(service)
    }

    /// Those of its keys that services and containers do not both have.
    fn named(&self) -> Vec<String> {
        let given = [
            ("build", self.build),
            ("container_name", self.container_name.is_some()),
            ("depends_on", !self.depends_on.is_empty()),
            ("devices", !self.devices.is_empty()),
            ("domainname", self.domainname.is_some()),
            ("expose", !self.expose.is_empty()),
            ("ipc", self.ipc.is_some()),
            ("mem_limit", self.mem_limit.is_some()),
            ("cpus", self.cpus.is_some()),
            ("pids_limit", self.pids_limit.is_some()),
            ("network_mode", self.network_mode.is_some()),
            ("pid", self.pid.is_some()),
            ("platform", self.platform.is_some()),
            ("privileged", self.privileged),
            ("profiles", !self.profiles.is_empty()),
            ("pull_policy", self.pull_policy.is_some()),
            ("restart", self.restart.is_some()),
            ("scale", self.scale.is_some()),
            ("security_opt", !self.security_opt.is_empty()),
            ("shm_size", self.shm_size.is_some()),
            ("annotations", !self.annotations.is_empty()),
        ];
        let given = given.into_iter().filter(|(_, is)| *is);
        given.map(|(key, _)| key.to_owned()).collect()
    }
}

fn env_files(section: &mut Section) -> Result<Vec<(PathBuf, bool)>, Wrong> {
    let path = section.path_of("env_file");
    let items = match section.take("env_file") {
        None => Vec::new(),
        Some(Node {
            value: Value::List(items),
            ..
        }) => items,
        Some(one) => vec![one],
    };
    let file = |node: Node| match node.value {
        Value::Map(_) => {
            let mut section = Section::new(&path, node)?;
            let file = section.text("path")?;
            let file = file.ok_or_else(|| section.wrong("path is required"))?;
            let required = section.flag("required")?.unwrap_or(true);
            section.drop_key("format");
            section.finish()?;
            Ok((file.into(), required))
        }
        _ => Ok((text(&path, node)?.into(), true)),
    };
    items.into_iter().map(file).collect()
}

fn ulimits(section: &mut Section) -> Result<Vec<ResourcesUlimits>, Wrong> {
    let Some(mut all) = section.section("ulimits")? else {
        return Ok(Vec::new());
    };
    let mut limits = Vec::new();
    for (name, node) in all.rest() {
        let path = format!("{}.{name}", all.path);
        let (soft, hard) = match node.value {
            Value::Map(_) => {
                let mut limit = Section::new(&path, node)?;
                let (soft, hard) = (limit.integer("soft")?, limit.integer("hard")?);
                match (soft, hard) {
                    (Some(soft), Some(hard)) => {
                        limit.finish()?;
                        (soft, hard)
                    }
                    _ => return Err(limit.wrong("soft and hard are required")),
                }
            }
            _ => {
                let at = node.at.clone();
                let given = text(&path, node)?;
                let number = given.parse().map_err(|_| {
                    at.wrong(format!(
                        "{path} must be a whole number, or soft and hard, and is {given:?}"
                    ))
                })?;
                (number, number)
            }
        };
        limits.push(ResourcesUlimits {
            name: Some(name),
            soft: Some(soft),
            hard: Some(hard),
        });
    }
    limits.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(limits)
}

fn extra_hosts(section: &mut Section) -> Result<Vec<HostEntry>, Wrong> {
    let path = section.path_of("extra_hosts");
    let Some(node) = section.take("extra_hosts") else {
        return Ok(Vec::new());
    };
    let at = node.at.clone();
    let entry = |text: String| {
        text.parse()
            .map_err(|error| at.wrong(format!("{path}: {error}")))
    };
    match node.value {
        Value::List(items) => items
            .into_iter()
            .map(|item| entry(text(&path, item)?))
            .collect(),
        Value::Map(members) => members
            .into_iter()
            .map(|(name, node)| entry(format!("{name}={}", text(&path, node)?)))
            .collect(),
        other => Err(node.at.wrong(format!(
            "{path} must be a list of NAME:IP or a mapping, and is {}",
            other.kind()
        ))),
    }
}

fn healthcheck(section: &mut Section) -> Result<Option<HealthConfig>, Wrong> {
    let Some(mut check) = section.section("healthcheck")? else {
        return Ok(None);
    };
    let none = || vec!["NONE".to_owned()];
    let test = match check.take("test") {
        None => None,
        Some(Node {
            value: Value::List(items),
            at,
        }) => {
            let path = check.path_of("test");
            let words: Result<Vec<_>, _> =
                items.into_iter().map(|item| text(&path, item)).collect();
            let words = words?;
            match words.first().map(String::as_str) {
                Some("NONE" | "CMD" | "CMD-SHELL") | None => Some(words),
                Some(other) => {
                    return Err(at.wrong(format!(
                        "{path}: a list must begin with NONE, CMD or CMD-SHELL, and begins with {other:?}"
                    )));
                }
            }
        }
        Some(line) => {
            let line = text(&check.path_of("test"), line)?;
            Some(vec!["CMD-SHELL".to_owned(), line])
        }
    };
    let is_off = check.flag("disable")?.unwrap_or_default();
    if is_off && test.is_some() {
        return Err(check.wrong("test and disable can't be set at the same time"));
    }
    let config = HealthConfig {
        test: if is_off { Some(none()) } else { test },
        interval: check.span("interval")?,
        timeout: check.span("timeout")?,
        retries: check.integer("retries")?,
        start_period: check.span("start_period")?,
        start_interval: check.span("start_interval")?,
    };
    check.finish()?;
    Ok(Some(config))
}

fn depends_on(section: &mut Section) -> Result<BTreeMap<String, Dependency>, Wrong> {
    let started = Dependency {
        condition: Condition::Started,
        required: true,
    };
    let path = section.path_of("depends_on");
    let Some(node) = section.take("depends_on") else {
        return Ok(BTreeMap::new());
    };
    if let Value::List(items) = node.value {
        let names = items
            .into_iter()
            .map(|item| Ok((text(&path, item)?, started)));
        return names.collect();
    }
    let mut all = Section::new(&path, node)?;
    let mut found = BTreeMap::new();
    for (name, node) in all.rest() {
        let mut one = Section::new(&format!("{path}.{name}"), node)?;
        let condition = match one.text("condition")?.as_deref() {
            None | Some("service_started") => Condition::Started,
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::Completed,
            Some(other) => {
                return Err(one.wrong(format!(
                    "condition {other:?} is none: expected service_started, service_healthy or service_completed_successfully"
                )));
            }
        };
        let required = one.flag("required")?.unwrap_or(true);
        one.drop_key("restart");
        one.finish()?;
        found.insert(
            name,
            Dependency {
                condition,
                required,
            },
        );
    }
    Ok(found)
}
