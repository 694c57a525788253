//! The mounts of a container.

use serde_json::{Value, json};

use super::{BundleError, INIT_PATH, defaults};
use crate::plan::Plan;
use crate::spec::{ContainerSpec, Mount, MountKind};

/// The default ones and the caller's, in the order in which they are made.
pub(super) fn all(spec: &ContainerSpec, plan: &Plan) -> Result<Vec<Value>, BundleError> {
    let mut mounts = defaults::mounts(&plan.cgroup, spec.privileged);
    if let Some(binary) = &spec.init {
        let target = INIT_PATH.into();
        mounts.push(mount(&Mount {
            kind: MountKind::Bind {
                source: binary.clone(),
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
        MountKind::Bind { source } => {
            source
                .metadata()
                .map_err(|error| BundleError::MountSource {
                    path: source.clone(),
                    source: error,
                })?;
            json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", access] })
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
