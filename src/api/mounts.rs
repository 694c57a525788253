//! Host directories and in-memory file systems: `Binds`, `Mounts` and `Tmpfs`.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    self, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountPoint, MountPointTypeEnum,
    MountTypeEnum,
};

use crate::daemon::config::{Bind, HostOptions};
use crate::daemon::refusal::Refusal;

/// All that a container is to see besides its root file system.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) binds: Vec<Bind>,
    pub(crate) tmpfs: BTreeMap<String, String>,
}

pub(crate) fn mounts(
    binds: Option<Vec<String>>,
    mounts: Option<Vec<Mount>>,
    tmpfs: Option<HashMap<String, String>>,
) -> Result<Mounts, Refusal> {
    let mut all = Mounts::default();
    for text in binds.unwrap_or_default() {
        all.binds.push(bind(&text)?);
    }
    for mount in mounts.unwrap_or_default() {
        add_mount(&mut all, mount)?;
    }
    for (target, options) in tmpfs.unwrap_or_default() {
        check_target(&target, &target)?;
        all.add_tmpfs(target, options)?;
    }
    let mut targets: Vec<&str> = all
        .binds
        .iter()
        .map(|bind| bind.target.trim_end_matches('/'))
        .collect();
    targets.extend(all.tmpfs.keys().map(|target| target.trim_end_matches('/')));
    targets.sort_unstable();
    match targets.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(duplicate(pair[0])),
        None => Ok(all),
    }
}

impl Mounts {
    fn add_tmpfs(&mut self, target: String, options: String) -> Result<(), Refusal> {
        match self.tmpfs.insert(target.clone(), options) {
            None => Ok(()),
            Some(_) => Err(duplicate(&target)),
        }
    }
}

/// `SOURCE:TARGET[:OPTIONS]`.
fn bind(text: &str) -> Result<Bind, Refusal> {
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), None, ..) => return Err(unbuilt_volume(text)),
        (Some(source), Some(target), options, None) => (source, target, options),
        _ => {
            return Err(Refusal::invalid(format!(
                "invalid volume specification: '{text}'"
            )));
        }
    };
    if source.is_empty() {
        return Err(Refusal::invalid(format!(
            "invalid volume specification: '{text}': empty source"
        )));
    }
    if !source.starts_with('/') {
        return Err(unbuilt_volume(text));
    }
    check_target(target, text)?;
    check_text(source)?;
    let mut read_only = false;
    for option in options.unwrap_or_default().split(',') {
        match option {
            "ro" => read_only = true,
            // The rest changes nothing here: without SELinux there are no labels, and recursive private is the default.
            "" | "rw" | "z" | "Z" | "rprivate" | "cached" | "delegated" | "consistent"
            | "default" => {}
            "shared" | "rshared" | "slave" | "rslave" | "private" => {
                let message = format!(
                    "--volume {text}: mount propagation {option} is not built, only rprivate"
                );
                return Err(Refusal::unsupported(message));
            }
            _ => {
                return Err(Refusal::invalid(format!(
                    "invalid mode: {option}: in volume specification '{text}'"
                )));
            }
        }
    }
    Ok(Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    })
}

fn add_mount(all: &mut Mounts, mount: Mount) -> Result<(), Refusal> {
    let target = mount.target.unwrap_or_default();
    let source = mount.source.unwrap_or_default();
    let read_only = mount.read_only.unwrap_or_default();
    let described = format!("--mount target={target}");
    check_target(&target, &described)?;
    match mount.typ {
        Some(MountTypeEnum::BIND) => {
            if !source.starts_with('/') {
                let message = format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{source}' must be absolute"
                );
                return Err(Refusal::invalid(message));
            }
            check_text(&source)?;
            check_bind_options(&described, &mount.bind_options.unwrap_or_default())?;
            all.binds.push(Bind {
                source,
                target,
                read_only,
            });
            Ok(())
        }
        Some(MountTypeEnum::TMPFS) => {
            if !source.is_empty() {
                let message =
                    "invalid mount config for type \"tmpfs\": field Source must not be specified";
                return Err(Refusal::invalid(message));
            }
            let asked = mount.tmpfs_options.unwrap_or_default();
            if asked.options.is_some_and(|options| !options.is_empty()) {
                return Err(Refusal::unsupported(format!(
                    "{described}: tmpfs-options is not built; use --tmpfs"
                )));
            }
            let mut options: Vec<String> = Vec::new();
            options.extend(read_only.then(|| "ro".to_owned()));
            options.extend(
                asked
                    .size_bytes
                    .filter(|&bytes| bytes > 0)
                    .map(|bytes| format!("size={bytes}")),
            );
            options.extend(
                asked
                    .mode
                    .filter(|&mode| mode > 0)
                    .map(|mode| format!("mode={mode:o}")),
            );
            all.add_tmpfs(target, options.join(","))
        }
        Some(MountTypeEnum::VOLUME) | Some(MountTypeEnum::EMPTY) | None => {
            Err(unbuilt_volume(&described))
        }
        Some(other) => Err(Refusal::unsupported(format!(
            "{described}: mount type {} is not built, only bind and tmpfs",
            other.as_ref()
        ))),
    }
}

fn check_bind_options(described: &str, options: &MountBindOptions) -> Result<(), Refusal> {
    let propagation = !matches!(
        options.propagation,
        None | Some(
            MountBindOptionsPropagationEnum::EMPTY | MountBindOptionsPropagationEnum::RPRIVATE
        )
    );
    let asked = [
        (propagation, "bind-propagation"),
        (options.non_recursive == Some(true), "bind-nonrecursive"),
        (
            options.read_only_non_recursive == Some(true),
            "bind-recursive=writable",
        ),
        (
            options.read_only_force_recursive == Some(true),
            "bind-recursive=readonly",
        ),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(Refusal::unsupported(format!(
            "{described}: {option} is not built"
        ))),
        None => Ok(()),
    }
}

fn check_target(target: &str, described: &str) -> Result<(), Refusal> {
    let wrong = if !target.starts_with('/') {
        format!("invalid mount path: '{target}' mount path must be absolute")
    } else if target.trim_end_matches('/').is_empty() {
        "invalid specification: destination can't be '/'".to_owned()
    } else {
        return check_text(target);
    };
    Err(Refusal::invalid(format!(
        "invalid volume specification: '{described}': {wrong}"
    )))
}

fn check_text(path: &str) -> Result<(), Refusal> {
    match path.contains('\0') {
        true => Err(Refusal::invalid(format!(
            "invalid mount path: {path:?}: it contains a NUL byte"
        ))),
        false => Ok(()),
    }
}

fn unbuilt_volume(text: &str) -> Refusal {
    Refusal::unsupported(format!(
        "volume {text}: volumes are not built; name an absolute directory of the host, as in --volume /srv/data:/data"
    ))
}

fn duplicate(target: &str) -> Refusal {
    Refusal::invalid(format!("Duplicate mount point: {target}"))
}

/// The host's files and directories that must be there already, as `--mount` demands and `--volume` does not.
pub(crate) fn required_sources(body: &serde_json::Value) -> Vec<String> {
    let mounts = body["HostConfig"]["Mounts"].as_array();
    let required = mounts.into_iter().flatten().filter(|mount| {
        mount["Type"] == "bind" && mount["BindOptions"]["CreateMountpoint"] != true
    });
    required
        .filter_map(|mount| mount["Source"].as_str().map(str::to_owned))
        .collect()
}

/// `HostConfig.Binds`, from which [`mounts`] makes the same binds again.
pub(crate) fn binds_view(binds: &[Bind]) -> Option<Vec<String>> {
    let view = |bind: &Bind| {
        format!(
            "{}:{}{}",
            bind.source,
            bind.target,
            if bind.read_only { ":ro" } else { "" }
        )
    };
    (!binds.is_empty()).then(|| binds.iter().map(view).collect())
}

/// `Mounts` of inspect and `ps`.
pub(crate) fn points(host: &HostOptions) -> Vec<MountPoint> {
    let binds = host.binds.iter().map(|bind| MountPoint {
        typ: Some(MountPointTypeEnum::BIND),
        source: Some(bind.source.clone()),
        destination: Some(bind.target.clone()),
        mode: Some(if bind.read_only { "ro" } else { "" }.to_owned()),
        rw: Some(!bind.read_only),
        propagation: Some("rprivate".to_owned()),
        ..models::MountPoint::default()
    });
    binds.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::daemon::refusal::RefusalKind;

    fn parse(body: Value) -> Result<Mounts, Refusal> {
        let host: models::HostConfig = serde_json::from_value(body).expect("a host configuration");
        mounts(host.binds, host.mounts, host.tmpfs)
    }

    #[test]
    fn host_paths_come_in_two_forms() {
        let all = parse(json!({
            "Binds": ["/srv:/data:ro,z"],
            "Mounts": [
                {"Type": "bind", "Source": "/etc/x", "Target": "/x", "ReadOnly": true},
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
            ],
            "Tmpfs": {"/run": "size=64m"},
        }))
        .expect("valid");
        assert_eq!(
            binds_view(&all.binds).expect("two"),
            ["/srv:/data:ro", "/etc/x:/x:ro"]
        );
        assert_eq!(all.tmpfs["/t"], "size=1024,mode=700");
        assert_eq!(all.tmpfs["/run"], "size=64m");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (body, kind, words) in [
            (
                json!({"Binds": ["data:/data"]}),
                RefusalKind::Unsupported,
                "volume data:/data: volumes are not built",
            ),
            (
                json!({"Binds": ["/data"]}),
                RefusalKind::Unsupported,
                "volumes are not built",
            ),
            (
                json!({"Binds": ["/a:b"]}),
                RefusalKind::Invalid,
                "mount path must be absolute",
            ),
            (
                json!({"Binds": ["/a:/"]}),
                RefusalKind::Invalid,
                "destination can't be '/'",
            ),
            (
                json!({"Binds": ["/a:/b:rx"]}),
                RefusalKind::Invalid,
                "invalid mode: rx",
            ),
            (
                json!({"Binds": ["/a:/b:rshared"]}),
                RefusalKind::Unsupported,
                "mount propagation rshared",
            ),
            (
                json!({"Binds": ["/a:/b:c:d"]}),
                RefusalKind::Invalid,
                "invalid volume specification: '/a:/b:c:d'",
            ),
            (
                json!({"Binds": ["/a:/b", "/c:/b/"]}),
                RefusalKind::Invalid,
                "Duplicate mount point: /b",
            ),
            (
                json!({"Mounts": [{"Type": "volume", "Target": "/b"}]}),
                RefusalKind::Unsupported,
                "volumes are not built",
            ),
            (
                json!({"Mounts": [{"Type": "image", "Target": "/b"}]}),
                RefusalKind::Unsupported,
                "mount type image",
            ),
        ] {
            let error = parse(body).expect_err(words);
            assert_eq!(error.kind, kind, "{}", error.message);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    proptest! {
        #[test]
        fn any_bind_is_parsed_or_refused(text in ".*") {
            let _ = bind(&text);
        }

        #[test]
        fn binds_survive_the_round_trip(source in "/[a-z/]{0,9}", target in "/[a-z]{1,9}", read_only: bool) {
            let wanted = Bind { source, target, read_only };
            let text = binds_view(std::slice::from_ref(&wanted)).expect("one");
            let found = bind(&text[0]).expect("our own view is valid");
            prop_assert_eq!((found.source, found.target, found.read_only), (wanted.source, wanted.target, read_only));
        }
    }
}
