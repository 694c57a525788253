//! Writes the OCI bundle of a container: `config.json`, and `shim.json` for what the shim does itself.

mod defaults;
mod devices;
mod mounts;
pub(crate) mod resources;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::capabilities::{CapSet, UnknownCapability};
use crate::cgroups::Layout;
use crate::executable::DEFAULT_PATH;
use crate::group_values;
use crate::identity::{self, Identity, IdentityError};
use crate::plan::{Payload, Plan, Role};
use crate::spec::{ContainerSpec, ExecSpec, Namespace, Ulimit};
use crate::status;

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const PROCESS_FILE: &str = "process.json";
/// Where the reaper is put in; Docker's path, so that images that look for it find it.
const INIT_PATH: &str = "/sbin/docker-init";

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The id would not do as a file name.
    #[error("container id {0:?} is not made of letters, digits, '_', '-' and '.'")]
    Id(String),
    /// No program to run.
    #[error("no command specified")]
    NoCommand,
    /// The working directory is relative.
    #[error("working directory {0:?} is not an absolute path")]
    Cwd(String),
    /// The target of a mount is relative.
    #[error("mount target {0:?} is not an absolute path")]
    MountTarget(String),
    /// The source of a bind mount is missing.
    #[error("bind source path does not exist: {}", path.display())]
    MountSource {
        /// The source.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device is missing, or none.
    #[error("error gathering device information while adding custom device {path:?}")]
    Device {
        /// The device.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A disk that is to be limited is missing, or none.
    #[error("limit the use of disk {}", path.display())]
    Disk {
        /// Its device node.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The user cannot be found.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A capability cannot be found.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// A file could not be written.
    #[error("write the bundle in {}", directory.display())]
    Write {
        /// The run directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes `run_dir` ready for [`Shims::spawn`](crate::Shims::spawn).
///
/// # Errors
///
/// [`BundleError`] if `spec` names something that does not exist, or `run_dir` cannot be written.
pub fn write(run_dir: &Path, spec: &ContainerSpec) -> Result<(), BundleError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if spec.id.is_empty() || spec.id.starts_with('.') || !spec.id.chars().all(allowed) {
        return Err(BundleError::Id(spec.id.clone()));
    }
    let capabilities = capabilities(spec)?;
    let mut identity = identity::resolve(&spec.rootfs, &spec.user)?;
    identity
        .groups
        .extend(identity::groups(&spec.rootfs, &spec.groups)?);
    let cwd = working_directory(&spec.cwd, "/")?;
    let mut env = environment(&spec.env, &identity, spec.tty);
    default_variable(&mut env, "HOSTNAME", &spec.hostname);
    if spec.args.is_empty() {
        return Err(BundleError::NoCommand);
    }
    let plan = Plan {
        v: 1,
        id: spec.id.clone(),
        role: Role::Init,
        payload: Payload {
            args: spec.args.clone(),
            env,
            cwd,
            reaper: spec.init.is_some(),
            capabilities,
            filter_for: (spec.seccomp && !spec.privileged).then_some(capabilities),
            oom_score_adj: spec.oom_score_adj,
        },
        tty: spec.tty,
        stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        log: spec.log.as_ref().map(Into::into),
        cgroup: Path::new(&spec.cgroup_parent).join(&spec.id),
        group_values: group_values::of(&spec.resources)
            .map_err(|(path, source)| BundleError::Disk { path, source })?,
    };
    let config = config(spec, &plan, &identity)?;
    save(run_dir, CONFIG_FILE, &config)?;
    plan.save(run_dir).map_err(|source| BundleError::Write {
        directory: run_dir.into(),
        source,
    })
}

/// On a pure cgroup2 nothing yet keeps a container from the devices it makes, so making them has to be asked for.
fn capabilities(spec: &ContainerSpec) -> Result<CapSet, UnknownCapability> {
    if spec.privileged {
        return Ok(CapSet::ALL);
    }
    let asked = |name: &String| name.to_ascii_uppercase().ends_with("MKNOD");
    let mut drop = spec.cap_drop.clone();
    if Layout::detect() == Layout::Unified && !spec.cap_add.iter().any(asked) {
        drop.push("MKNOD".into());
    }
    CapSet::tweaked(&spec.cap_add, &drop)
}

/// Makes `run_dir` ready for a further process in the container of `container_dir`.
pub(crate) fn write_exec(
    run_dir: &Path,
    container_dir: &Path,
    spec: &ExecSpec,
) -> Result<(), BundleError> {
    let unreadable = |source| BundleError::Write {
        directory: container_dir.into(),
        source,
    };
    let container = Plan::load(container_dir).map_err(unreadable)?;
    let config: Value = status::load(&container_dir.join(CONFIG_FILE))
        .map_err(unreadable)?
        .unwrap_or_default();
    let identity = if spec.user.is_empty() {
        serde_json::from_value::<UserOnly>(config["process"]["user"].clone())
            .map(UserOnly::identity)
            .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?
    } else {
        identity::resolve(
            Path::new(config["root"]["path"].as_str().unwrap_or_default()),
            &spec.user,
        )?
    };
    if spec.args.is_empty() {
        return Err(BundleError::NoCommand);
    }
    let plan = Plan {
        v: 1,
        id: container.id,
        role: Role::Exec(container_dir.into()),
        payload: Payload {
            args: spec.args.clone(),
            env: environment(&spec.env, &identity, spec.tty),
            cwd: working_directory(&spec.cwd, &container.payload.cwd.to_string_lossy())?,
            reaper: false,
            capabilities: if spec.privileged {
                CapSet::ALL
            } else {
                container.payload.capabilities
            },
            ..container.payload
        },
        tty: spec.tty,
        stdin: spec.open_stdin,
        stdin_once: true,
        log: None,
        cgroup: container.cgroup,
        group_values: Vec::new(),
    };
    let mut process = process(&plan, &identity);
    for inherited in ["rlimits", "noNewPrivileges"] {
        if let Some(value) = config["process"].get(inherited) {
            process[inherited] = value.clone();
        }
    }
    save(run_dir, PROCESS_FILE, &process)?;
    plan.save(run_dir).map_err(|source| BundleError::Write {
        directory: run_dir.into(),
        source,
    })
}

/// The user as `config.json` has it.
#[derive(serde::Deserialize)]
struct UserOnly {
    uid: u32,
    gid: u32,
    #[serde(default, rename = "additionalGids")]
    groups: Vec<u32>,
}

impl UserOnly {
    fn identity(self) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups,
            home: String::new(),
        }
    }
}

fn save(run_dir: &Path, name: &str, value: &Value) -> Result<(), BundleError> {
    std::fs::create_dir_all(run_dir)
        .and_then(|()| status::save(&run_dir.join(name), value))
        .map_err(|source| BundleError::Write {
            directory: run_dir.into(),
            source,
        })
}

fn working_directory(cwd: &str, default: &str) -> Result<PathBuf, BundleError> {
    match cwd {
        "" => Ok(default.into()),
        _ if cwd.starts_with('/') => Ok(cwd.into()),
        _ => Err(BundleError::Cwd(cwd.into())),
    }
}

/// What Docker adds to the caller's environment.
fn environment(given: &[String], identity: &Identity, tty: bool) -> Vec<String> {
    let mut env = given.to_vec();
    default_variable(&mut env, "PATH", DEFAULT_PATH);
    if !identity.home.is_empty() {
        default_variable(&mut env, "HOME", &identity.home);
    }
    if tty {
        default_variable(&mut env, "TERM", "xterm");
    }
    env
}

fn default_variable(env: &mut Vec<String>, name: &str, value: &str) {
    if !env
        .iter()
        .any(|entry| entry.split_once('=').is_some_and(|(key, _)| key == name))
    {
        env.push(format!("{name}={value}"));
    }
}

/// `config.json`. Seccomp, capabilities, working directory and oom_score_adj are absent: the shim's payload does them.
fn config(spec: &ContainerSpec, plan: &Plan, identity: &Identity) -> Result<Value, BundleError> {
    let mut process = process(plan, identity);
    process["noNewPrivileges"] = spec.no_new_privileges.into();
    process["rlimits"] = spec.ulimits.iter().map(rlimit).collect();
    let (devices, device_rules) = devices::all(&spec.devices, &spec.device_rules)?;
    let paths = |asked: &Option<Vec<String>>, default: &[&str]| match asked {
        Some(paths) => paths.clone(),
        None if spec.privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let all_devices = if spec.privileged {
        defaults::host_devices()
    } else {
        devices
    };
    let own_names = spec.utsns == Namespace::Own;
    let hostname = own_names.then_some(&spec.hostname);
    let domainname = Some(&spec.domainname).filter(|name| own_names && !name.is_empty());
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "domainname": domainname,
        "annotations": spec.annotations,
        "root": { "path": spec.rootfs, "readonly": spec.readonly_rootfs },
        "process": process,
        "mounts": mounts::all(spec, plan)?,
        "linux": {
            "namespaces": namespaces(spec),
            "cgroupsPath": plan.cgroup,
            "resources": resources::all(spec, device_rules),
            "devices": all_devices,
            "maskedPaths": paths(&spec.masked_paths, defaults::MASKED),
            "readonlyPaths": paths(&spec.readonly_paths, defaults::READ_ONLY),
            "sysctl": sysctls(spec),
        },
    }))
}

fn namespaces(spec: &ContainerSpec) -> Vec<Value> {
    let cgroups = match spec.host_cgroups {
        true => Namespace::Host,
        false => Namespace::Own,
    };
    let kinds = [
        ("pid", &spec.pidns),
        ("mount", &Namespace::Own),
        ("uts", &spec.utsns),
        ("ipc", &spec.ipcns),
        ("cgroup", &cgroups),
    ];
    let entry = |(kind, of): (&str, &Namespace)| match of {
        Namespace::Own => Some(json!({ "type": kind })),
        Namespace::Host => None,
        Namespace::Of(path) => Some(json!({ "type": kind, "path": path })),
    };
    let network = spec.netns.as_ref();
    let network = network.map(|path| json!({ "type": "network", "path": path }));
    kinds.into_iter().filter_map(entry).chain(network).collect()
}

/// As Docker does in a network namespace of its own: low ports and ping without privileges, unless the caller says other.
fn sysctls(spec: &ContainerSpec) -> BTreeMap<&str, &str> {
    let mut sysctls = BTreeMap::new();
    if spec.netns.is_some() {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start", "0");
        sysctls.insert("net.ipv4.ping_group_range", "0 2147483647");
    }
    sysctls.extend(
        spec.sysctls
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    sysctls
}

fn process(plan: &Plan, identity: &Identity) -> Value {
    json!({
        "terminal": plan.tty,
        "args": plan.payload.args,
        "env": plan.payload.env,
        "cwd": "/",
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
    })
}

fn rlimit(limit: &Ulimit) -> Value {
    json!({ "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()), "soft": limit.soft, "hard": limit.hard })
}

impl Payload {
    /// The command line as the kernel gets it, the reaper before it if there is one.
    pub(crate) fn command(&self) -> Vec<String> {
        if self.reaper {
            [INIT_PATH, "init", "--"]
                .map(String::from)
                .into_iter()
                .chain(self.args.iter().cloned())
                .collect()
        } else {
            self.args.clone()
        }
    }
}

#[cfg(test)]
mod tests;
