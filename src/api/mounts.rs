//! `Binds`, `Mounts`, `Tmpfs` and `VolumesFrom`: parsed, or refused in Docker's words.

mod bind;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use bollard_stubs::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountTypeEnum,
    MountVolumeOptions,
};
use nuncio_runtime::volume::check_name;

use crate::daemon::mount::{
    BindOptions, MountPoint, MountSource, Propagation, VolumeMount, VolumesFrom,
};
use crate::daemon::refusal::Refusal;

use bind::bind;
pub(crate) use view::{binds_view, mounts_view, points, volumes_from_view};

/// All that a container is to see besides its root file system.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) points: Vec<MountPoint>,
    pub(crate) tmpfs: BTreeMap<String, String>,
}

/// `driver` is that of volumes which name none.
pub(crate) fn mounts(
    binds: Option<Vec<String>>,
    mounts: Option<Vec<Mount>>,
    tmpfs: Option<HashMap<String, String>>,
    driver: &str,
) -> Result<Mounts, Refusal> {
    let mut all = Mounts::default();
    for (target, options) in tmpfs.unwrap_or_default() {
        let cleaned = target_of(&target).map_err(|wrong| specification(&target, &wrong))?;
        if all.tmpfs.insert(cleaned, options).is_some() {
            return Err(duplicate(&target));
        }
    }
    for text in binds.unwrap_or_default() {
        all.add(bind(&text, driver)?)?;
    }
    for asked in mounts.unwrap_or_default() {
        all.add(mount(asked, driver)?)?;
    }
    Ok(all)
}

impl Mounts {
    fn add(&mut self, point: MountPoint) -> Result<(), Refusal> {
        let taken = self.tmpfs.contains_key(&point.target)
            || self.points.iter().any(|other| other.target == point.target);
        if taken {
            return Err(duplicate(&point.target));
        }
        self.points.push(point);
        Ok(())
    }
}

fn mount(asked: Mount, driver: &str) -> Result<MountPoint, Refusal> {
    let kind = match asked.typ {
        Some(MountTypeEnum::BIND) => "bind",
        Some(MountTypeEnum::TMPFS) => "tmpfs",
        Some(MountTypeEnum::VOLUME | MountTypeEnum::EMPTY) | None => "volume",
        Some(MountTypeEnum::IMAGE | MountTypeEnum::CLUSTER | MountTypeEnum::NPIPE) => {
            let kind = asked.typ.map(|kind| kind.to_string()).unwrap_or_default();
            return Err(Refusal::unsupported(format!(
                "not built: --mount type={kind}; bind, tmpfs and volume are"
            )));
        }
    };
    let wrong =
        |why: String| Refusal::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    let extra = |field: &str| wrong(format!("field {field} must not be specified"));
    let target = target_of(asked.target.as_deref().unwrap_or_default()).map_err(wrong)?;
    let source = asked.source.unwrap_or_default();
    let read_only = asked.read_only.unwrap_or_default();
    let others = [
        ("BindOptions", "bind", asked.bind_options.is_some()),
        ("VolumeOptions", "volume", asked.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", asked.tmpfs_options.is_some()),
    ];
    if let Some((field, ..)) = others.iter().find(|(_, of, given)| *given && *of != kind) {
        return Err(extra(field));
    }
    let source = match kind {
        "bind" => MountSource::Bind {
            path: bind_source(&source).map_err(wrong)?,
            options: bind_options(&asked.bind_options.unwrap_or_default(), &target)?,
        },
        "tmpfs" if !source.is_empty() => return Err(extra("Source")),
        "tmpfs" => tmpfs(asked.tmpfs_options.unwrap_or_default(), &target)?,
        _ if source.is_empty() && read_only => {
            let why = "must not set ReadOnly mode when using anonymous volumes";
            return Err(wrong(why.to_owned()));
        }
        _ => {
            if !source.is_empty() {
                check_name(&source).map_err(|error| wrong(error.to_string()))?;
            }
            volume(source, asked.volume_options.unwrap_or_default(), driver)?
        }
    };
    Ok(MountPoint {
        target,
        source,
        read_only,
        mode: String::new(),
        spelled: None,
    })
}

fn bind_source(source: &str) -> Result<String, String> {
    if source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    if !source.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{source}' mount path must be absolute"
        ));
    }
    check_text(source)?;
    Ok(source.to_owned())
}

fn bind_options(asked: &MountBindOptions, target: &str) -> Result<BindOptions, Refusal> {
    if asked.read_only_force_recursive == Some(true) && asked.non_recursive == Some(true) {
        return Err(Refusal::invalid(
            "mount options conflict: ReadOnlyForceRecursive and NonRecursive",
        ));
    }
    let propagation = match asked.propagation {
        None
        | Some(
            MountBindOptionsPropagationEnum::EMPTY | MountBindOptionsPropagationEnum::RPRIVATE,
        ) => Propagation::Rprivate,
        Some(MountBindOptionsPropagationEnum::PRIVATE) => Propagation::Private,
        Some(MountBindOptionsPropagationEnum::RSLAVE) => Propagation::Rslave,
        Some(MountBindOptionsPropagationEnum::SLAVE) => Propagation::Slave,
        Some(
            other @ (MountBindOptionsPropagationEnum::SHARED
            | MountBindOptionsPropagationEnum::RSHARED),
        ) => return Err(unbuilt_propagation(target, other.as_ref())),
    };
    Ok(BindOptions {
        create: asked.create_mountpoint == Some(true),
        propagation,
        non_recursive: asked.non_recursive == Some(true),
        writable_below: asked.read_only_non_recursive == Some(true),
    })
}

fn unbuilt_propagation(what: &str, propagation: &str) -> Refusal {
    Refusal::unsupported(format!(
        "not built: mount propagation {propagation} of {what}; private, rprivate, slave and rslave are"
    ))
}

fn tmpfs(asked: MountTmpfsOptions, target: &str) -> Result<MountSource, Refusal> {
    if asked.options.is_some_and(|options| !options.is_empty()) {
        return Err(Refusal::unsupported(format!(
            "not built: tmpfs-options of {target}; use --tmpfs"
        )));
    }
    let mode = match asked.mode {
        None | Some(0) => None,
        Some(mode) => match u32::try_from(mode) {
            Ok(mode) if mode <= 0o7777 => Some(mode),
            _ => {
                return Err(Refusal::invalid(format!(
                    "invalid mount config for type \"tmpfs\": invalid mode {mode:o}"
                )));
            }
        },
    };
    let size = asked.size_bytes.unwrap_or_default();
    let size = u64::try_from(size).map_err(|_| {
        Refusal::invalid(format!(
            "invalid mount config for type \"tmpfs\": invalid size {size}"
        ))
    })?;
    Ok(MountSource::Tmpfs {
        size: (size > 0).then_some(size),
        mode,
    })
}

fn volume(name: String, asked: MountVolumeOptions, driver: &str) -> Result<MountSource, Refusal> {
    if let Some(path) = asked.subpath.filter(|path| !path.is_empty()) {
        return Err(Refusal::unsupported(format!(
            "not built: volume-subpath {path}"
        )));
    }
    let config = asked.driver_config.unwrap_or_default();
    let named = config.name.filter(|name| !name.is_empty());
    Ok(MountSource::Volume(VolumeMount {
        anonymous: name.is_empty(),
        name,
        copy: asked.no_copy != Some(true),
        driver: named.unwrap_or_else(|| driver.to_owned()),
        options: config.options.into_iter().flatten().collect(),
        labels: asked.labels.into_iter().flatten().collect(),
    }))
}

/// `NAME[:MODE]` of `--volumes-from`.
pub(crate) fn volumes_from(text: &str) -> Result<VolumesFrom, Refusal> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    if container.is_empty() {
        return Err(Refusal::invalid(format!(
            "invalid volumes from specification: '{text}'"
        )));
    }
    let known = mode.split(',').all(|option| {
        matches!(
            option,
            "" | "ro" | "rw" | "z" | "Z" | "consistent" | "cached" | "delegated"
        )
    });
    if !known {
        return Err(Refusal::invalid(format!("invalid mode: {mode}")));
    }
    Ok(VolumesFrom {
        container: container.to_owned(),
        read_only: mode.split(',').any(|option| option == "ro"),
        mode: mode.to_owned(),
    })
}

/// `Volumes` of a container's or an image's configuration.
pub(crate) fn anonymous_targets(
    volumes: impl IntoIterator<Item = String>,
) -> Result<BTreeSet<String>, Refusal> {
    let targets = volumes.into_iter().map(|target| {
        if target.contains(':') {
            return Err(Refusal::invalid(format!(
                "invalid volume specification: '{target}': a colon has no place in it"
            )));
        }
        target_of(&target).map_err(|wrong| specification(&target, &wrong))
    });
    targets.collect()
}

/// The path cleaned of `.`, `..` and doubled slashes.
fn target_of(target: &str) -> Result<String, String> {
    if target.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    check_text(target)?;
    if !target.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        ));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if parts.is_empty() {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

fn check_text(path: &str) -> Result<(), String> {
    match path.contains('\0') {
        true => Err(format!(
            "invalid mount path: {path:?}: it contains a NUL byte"
        )),
        false => Ok(()),
    }
}

fn specification(text: &str, why: &str) -> Refusal {
    Refusal::invalid(format!("invalid volume specification: '{text}': {why}"))
}

fn duplicate(target: &str) -> Refusal {
    Refusal::invalid(format!("Duplicate mount point: {target}"))
}

#[cfg(test)]
mod tests;
