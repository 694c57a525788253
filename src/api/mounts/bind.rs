//! `SOURCE:TARGET[:OPTIONS]`.

use nuncio_runtime::volume::check_name;

use super::{bind_source, specification, target_of, unbuilt_propagation};
use crate::daemon::mount::{BindOptions, MountPoint, MountSource, Propagation, VolumeMount};
use crate::daemon::refusal::Refusal;

/// The groups of options of which one may be given.
const GROUPS: [&[&str]; 5] = [
    &["ro", "rw"],
    &["z", "Z"],
    &[
        "private", "rprivate", "slave", "rslave", "shared", "rshared",
    ],
    &["nocopy"],
    &["consistent", "cached", "delegated", "default"],
];

/// Parses an entry of `HostConfig.Binds`; a source that is no absolute path names a volume.
pub(super) fn bind(text: &str, driver: &str) -> Result<MountPoint, Refusal> {
    let invalid = || Refusal::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match *parts.as_slice() {
        [target] => ("", target, ""),
        [source, target] if !is_mode(target) => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid()),
    };
    if parts[0].is_empty() {
        return Err(invalid());
    }
    if !is_mode(mode) && !mode.is_empty() {
        return Err(Refusal::invalid(format!("invalid mode: {mode}")));
    }
    let kind = if source.starts_with('/') {
        "bind"
    } else {
        "volume"
    };
    let config = |why: String| {
        specification(
            text,
            &format!("invalid mount config for type \"{kind}\": {why}"),
        )
    };
    let target = target_of(target).map_err(config)?;
    let options: Vec<&str> = mode.split(',').collect();
    let has = |option: &str| options.contains(&option);
    let source = if kind == "bind" {
        if has("nocopy") {
            return Err(config(
                "field VolumeOptions must not be specified".to_owned(),
            ));
        }
        MountSource::Bind {
            path: bind_source(source).map_err(config)?,
            options: BindOptions {
                create: true,
                propagation: propagation(&options, text)?,
                ..BindOptions::default()
            },
        }
    } else {
        if !source.is_empty() {
            check_name(source).map_err(|error| config(error.to_string()))?;
        }
        if options.iter().any(|option| GROUPS[2].contains(option)) {
            return Err(config("field BindOptions must not be specified".to_owned()));
        }
        MountSource::Volume(VolumeMount {
            name: source.to_owned(),
            anonymous: source.is_empty(),
            copy: !has("nocopy"),
            driver: driver.to_owned(),
            ..VolumeMount::default()
        })
    };
    Ok(MountPoint {
        target,
        source,
        read_only: has("ro"),
        mode: mode.to_owned(),
        spelled: Some(text.to_owned()),
    })
}

/// Whether it is a list of options, at most one of each group.
fn is_mode(text: &str) -> bool {
    let options: Vec<&str> = text.split(',').collect();
    let known = |option: &&str| GROUPS.iter().any(|group| group.contains(option));
    options.iter().all(known)
        && GROUPS.iter().all(|group| {
            options
                .iter()
                .filter(|option| group.contains(option))
                .count()
                <= 1
        })
}

fn propagation(options: &[&str], text: &str) -> Result<Propagation, Refusal> {
    let asked = options.iter().find(|option| GROUPS[2].contains(option));
    Ok(match asked.copied() {
        None | Some("rprivate") => Propagation::Rprivate,
        Some("private") => Propagation::Private,
        Some("slave") => Propagation::Slave,
        Some("rslave") => Propagation::Rslave,
        Some(other) => return Err(unbuilt_propagation(text, other)),
    })
}
