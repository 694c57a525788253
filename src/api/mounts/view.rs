//! Mounts as inspect and `ps` show them.

use std::path::Path;

use bollard_stubs::models::MountPointTypeEnum;
use bollard_stubs::models::{
    self, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions,
    MountTypeEnum, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use crate::daemon::mount::{MountPoint, MountSource, Propagation, VolumesFrom};

/// The driver of all volumes.
const LOCAL: &str = "local";

/// `HostConfig.Binds`.
pub(crate) fn binds_view(points: &[MountPoint]) -> Option<Vec<String>> {
    let binds: Vec<String> = points
        .iter()
        .filter_map(|point| point.spelled.clone())
        .collect();
    (!binds.is_empty()).then_some(binds)
}

/// `HostConfig.Mounts`.
pub(crate) fn mounts_view(points: &[MountPoint]) -> Option<Vec<Mount>> {
    let mounts: Vec<Mount> = points
        .iter()
        .filter(|point| point.spelled.is_none())
        .map(mount_view)
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

fn mount_view(point: &MountPoint) -> Mount {
    let mut mount = Mount {
        target: Some(point.target.clone()),
        read_only: point.read_only.then_some(true),
        ..Mount::default()
    };
    match &point.source {
        MountSource::Bind { path, options } => {
            mount.typ = Some(MountTypeEnum::BIND);
            mount.source = Some(path.clone());
            let view = MountBindOptions {
                propagation: match options.propagation {
                    Propagation::Rprivate => None,
                    Propagation::Private => Some(MountBindOptionsPropagationEnum::PRIVATE),
                    Propagation::Rslave => Some(MountBindOptionsPropagationEnum::RSLAVE),
                    Propagation::Slave => Some(MountBindOptionsPropagationEnum::SLAVE),
                },
                non_recursive: options.non_recursive.then_some(true),
                create_mountpoint: options.create.then_some(true),
                read_only_non_recursive: options.writable_below.then_some(true),
                read_only_force_recursive: None,
            };
            mount.bind_options = (view != MountBindOptions::default()).then_some(view);
        }
        MountSource::Volume(volume) => {
            mount.typ = Some(MountTypeEnum::VOLUME);
            mount.source = (!volume.anonymous).then(|| volume.name.clone());
            let driver = (!volume.driver.is_empty() || !volume.options.is_empty()).then(|| {
                MountVolumeOptionsDriverConfig {
                    name: Some(volume.driver.clone()),
                    options: Some(volume.options.clone().into_iter().collect()),
                }
            });
            let view = MountVolumeOptions {
                no_copy: (!volume.copy).then_some(true),
                labels: (!volume.labels.is_empty())
                    .then(|| volume.labels.clone().into_iter().collect()),
                driver_config: driver,
                subpath: None,
            };
            mount.volume_options = (view != MountVolumeOptions::default()).then_some(view);
        }
        MountSource::Tmpfs { size, mode } => {
            mount.typ = Some(MountTypeEnum::TMPFS);
            let view = MountTmpfsOptions {
                size_bytes: size.and_then(|size| i64::try_from(size).ok()),
                mode: mode.map(i64::from),
                options: None,
            };
            mount.tmpfs_options = (view != MountTmpfsOptions::default()).then_some(view);
        }
    }
    mount
}

/// `HostConfig.VolumesFrom`.
pub(crate) fn volumes_from_view(all: &[VolumesFrom]) -> Option<Vec<String>> {
    let view = |from: &VolumesFrom| match from.mode.as_str() {
        "" => from.container.clone(),
        mode => format!("{}:{mode}", from.container),
    };
    (!all.is_empty()).then(|| all.iter().map(view).collect())
}

/// `Mounts` of inspect and `ps`; volumes lie in `volumes`.
pub(crate) fn points(points: &[MountPoint], volumes: &Path) -> Vec<models::MountPoint> {
    points.iter().map(|point| view(point, volumes)).collect()
}

fn view(point: &MountPoint, volumes: &Path) -> models::MountPoint {
    let mut view = models::MountPoint {
        destination: Some(point.target.clone()),
        mode: Some(point.mode.clone()),
        rw: Some(!point.read_only),
        propagation: Some(String::new()),
        ..models::MountPoint::default()
    };
    match &point.source {
        MountSource::Bind { path, options } => {
            view.typ = Some(MountPointTypeEnum::BIND);
            view.source = Some(path.clone());
            view.propagation = Some(options.propagation.name().to_owned());
        }
        MountSource::Volume(volume) => {
            view.typ = Some(MountPointTypeEnum::VOLUME);
            view.name = Some(volume.name.clone());
            view.driver = Some(LOCAL.to_owned());
            let source = volumes.join(&volume.name).join("_data");
            view.source = Some(source.to_string_lossy().into_owned());
            if point.mode.is_empty() && !volume.anonymous {
                // Docker notes that it may label its own directories.
                view.mode = Some("z".to_owned());
            }
        }
        MountSource::Tmpfs { .. } => {
            view.typ = Some(MountPointTypeEnum::TMPFS);
            view.source = Some(String::new());
        }
    }
    view
}
