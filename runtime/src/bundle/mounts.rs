//! The mounts of a container.

use serde_json::{Value, json};

use super::{BundleError, INIT_PATH, defaults};
use crate::plan::Plan;
use crate::spec::{BindOptions, ContainerSpec, Mount, MountKind};

/// Bytes of `/dev/shm` unless the caller says otherwise; Docker's.
const SHM_SIZE: u64 = 64 << 20;

/// The default ones and the caller's, in the order in which they are made.
pub(super) fn all(spec: &ContainerSpec, plan: &Plan) -> Result<Vec<Value>, BundleError> {
    let shm = spec.shm_size.unwrap_or(SHM_SIZE);
    let mut mounts = defaults::mounts(&plan.cgroup, spec.privileged, shm);
    if shm == 0 {
        mounts.retain(|mount| mount["destination"] != "/dev/shm");
    }
    if let Some(binary) = &spec.init {
        let target = INIT_PATH.into();
        mounts.push(mount(&Mount {
            kind: MountKind::Bind {
                source: binary.clone(),
                options: BindOptions::default(),
            },
            target,
            read_only: true,
        })?);
    }
    // parents before what is mounted below them
    let mut given: Vec<_> = spec.mounts.iter().collect();
    given.sort_by_key(|mount| {
        mount
            .target
            .split('/')
            .filter(|part| !part.is_empty())
            .count()
    });
    for wanted in given {
        let entry = mount(wanted)?;
        // a mount of the caller's replaces a default one at the same place
        mounts.retain(|default| default["destination"] != entry["destination"]);
        mounts.push(entry);
    }
    Ok(mounts)
}

fn mount(mount: &Mount) -> Result<Value, BundleError> {
    if !mount.target.starts_with('/') {
        return Err(BundleError::MountTarget(mount.target.clone()));
    }
    let target = match mount.target.trim_end_matches('/') {
        "" => return Err(BundleError::MountTarget(mount.target.clone())),
        target => target,
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    Ok(match &mount.kind {
        MountKind::Bind { source, options } => {
            source
                .metadata()
                .map_err(|error| BundleError::MountSource {
                    path: source.clone(),
                    source: error,
                })?;
            let options = bind_options(*options, mount.read_only);
            json!({ "destination": target, "type": "bind", "source": source, "options": options })
        }
        MountKind::Tmpfs { size, mode } => {
            let mut options = vec![
                "noexec".into(),
                "nosuid".into(),
                "nodev".into(),
                access.into(),
            ];
            options.extend(size.map(|size| format!("size={size}")));
            options.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
    })
}

fn bind_options(options: BindOptions, read_only: bool) -> Vec<&'static str> {
    let (bind, propagation) = match (options.non_recursive, options.slave) {
        (false, false) => ("rbind", "rprivate"),
        (false, true) => ("rbind", "rslave"),
        (true, false) => ("bind", "private"),
        (true, true) => ("bind", "slave"),
    };
    let mut all = vec![bind, propagation, if read_only { "ro" } else { "rw" }];
    if read_only && !options.non_recursive && !options.writable_below {
        all.push("rro");
    }
    all
}
