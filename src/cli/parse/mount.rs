//! `--mount`.

use std::path::Path;
use std::str::FromStr;

use bollard_stubs::models::{
    Mount, MountBindOptionsPropagationEnum, MountTypeEnum, MountVolumeOptionsDriverConfig,
};

use super::Size;
use super::volume::resolve;

/// Not a mount. The first words are Docker's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidMount {
    #[error("invalid spec: {0}: expected [SOURCE:]TARGET[:OPTIONS]")]
    Spec(String),
    #[error(
        "invalid volume specification: '{0}': invalid mount path: '{1}' mount path must be absolute"
    )]
    Relative(String, String),
    #[error(
        "invalid volume specification: '{0}': invalid mount config: '/' is no place for a volume"
    )]
    Root(String),
    #[error("unexpected key '{key}' in '{field}': expected one of {keys}", keys = KEYS.join(", "))]
    Key { key: String, field: String },
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("{0} is required in --mount {1}")]
    Missing(&'static str, String),
    #[error("invalid argument {0:?} for --mount: a quotation mark is missing, or out of place")]
    Quotes(String),
    #[error("cannot mix '{key}' with mount type '{kind}'")]
    Mixed {
        key: &'static str,
        kind: &'static str,
    },
}

const KEYS: &[&str] = &[
    "type",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "bind-propagation",
    "bind-nonrecursive",
    "bind-recursive",
    "consistency",
    "volume-nocopy",
    "volume-driver",
    "volume-label",
    "volume-opt",
    "tmpfs-size",
    "tmpfs-mode",
];

/// `type=bind,source=/a,target=/b,readonly` and so on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MountSpec(Mount);

impl MountSpec {
    /// As the API wants it, relative paths of the host resolved in `here`.
    pub(crate) fn into_mount(mut self, here: &Path) -> Mount {
        if self.0.typ == Some(MountTypeEnum::BIND) {
            self.0.source = self.0.source.map(|source| resolve(&source, here));
        }
        self.0
    }
}

impl FromStr for MountSpec {
    type Err = InvalidMount;

    fn from_str(text: &str) -> Result<Self, InvalidMount> {
        let mut mount = Mount {
            typ: Some(MountTypeEnum::VOLUME),
            ..Mount::default()
        };
        for field in fields(text).ok_or_else(|| InvalidMount::Quotes(text.to_owned()))? {
            set_field(&mut mount, &field)?;
        }
        check_options(&mount)?;
        let missing = |what| InvalidMount::Missing(what, text.to_owned());
        if mount.target.is_none() {
            return Err(missing("target"));
        }
        if mount.typ == Some(MountTypeEnum::BIND) && mount.source.is_none() {
            return Err(missing("source"));
        }
        Ok(Self(mount))
    }
}

/// The fields of a line of comma-separated values, which may be in quotation marks.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut rest = text.chars().peekable();
    let mut quoted = false;
    while let Some(next) = rest.next() {
        let field = fields.last_mut()?;
        match next {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' if quoted => {
                quoted = false;
                if !matches!(rest.peek(), None | Some(',')) {
                    return None;
                }
            }
            '"' if field.is_empty() => quoted = true,
            '"' => return None,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

fn set_field(mount: &mut Mount, field: &str) -> Result<(), InvalidMount> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (field, None),
    };
    let key = key.trim().to_ascii_lowercase();
    let wrong = || InvalidMount::Value {
        key: key.clone(),
        value: value.unwrap_or("").to_owned(),
    };
    let text = || {
        value
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .ok_or_else(wrong)
    };
    let switch = || match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(wrong()),
    };
    match key.as_str() {
        "type" => {
            mount.typ = Some(match value {
                Some("bind") => MountTypeEnum::BIND,
                Some("volume") => MountTypeEnum::VOLUME,
                Some("tmpfs") => MountTypeEnum::TMPFS,
                _ => return Err(wrong()),
            });
        }
        "source" | "src" => mount.source = Some(text()?),
        "target" | "dst" | "destination" => {
            mount.target = Some(text()?).filter(|target| target.starts_with('/'));
            if mount.target.is_none() {
                return Err(wrong());
            }
        }
        "readonly" | "ro" => mount.read_only = Some(switch()?),
        "bind-propagation" => {
            mount.bind_options.get_or_insert_default().propagation =
                Some(propagation(value).ok_or_else(wrong)?);
        }
        "bind-nonrecursive" => {
            mount.bind_options.get_or_insert_default().non_recursive = Some(switch()?);
        }
        "bind-recursive" => {
            let options = mount.bind_options.get_or_insert_default();
            match value {
                Some("enabled") => {}
                Some("disabled") => options.non_recursive = Some(true),
                Some("writable") => options.read_only_non_recursive = Some(true),
                Some("readonly") => options.read_only_force_recursive = Some(true),
                _ => return Err(wrong()),
            }
        }
        // It means something on other systems only.
        "consistency" => drop(text()?),
        "volume-driver" => driver(mount).name = Some(text()?),
        "volume-label" | "volume-opt" => {
            let given = text()?;
            let (name, value) = given.split_once('=').unwrap_or((&given, ""));
            let map = match key.as_str() {
                "volume-opt" => driver(mount).options.get_or_insert_default(),
                _ => {
                    let options = mount.volume_options.get_or_insert_default();
                    options.labels.get_or_insert_default()
                }
            };
            map.insert(name.to_owned(), value.to_owned());
        }
        "volume-nocopy" => mount.volume_options.get_or_insert_default().no_copy = Some(switch()?),
        "tmpfs-size" => {
            let size: Size = text()?.parse().map_err(|_| wrong())?;
            mount.tmpfs_options.get_or_insert_default().size_bytes = Some(size.bytes());
        }
        "tmpfs-mode" => {
            let mode = i64::from_str_radix(&text()?, 8).map_err(|_| wrong())?;
            mount.tmpfs_options.get_or_insert_default().mode = Some(mode);
        }
        _ => {
            return Err(InvalidMount::Key {
                key: key.clone(),
                field: field.to_owned(),
            });
        }
    }
    Ok(())
}

fn driver(mount: &mut Mount) -> &mut MountVolumeOptionsDriverConfig {
    let options = mount.volume_options.get_or_insert_default();
    options.driver_config.get_or_insert_default()
}

fn propagation(value: Option<&str>) -> Option<MountBindOptionsPropagationEnum> {
    Some(match value? {
        "private" => MountBindOptionsPropagationEnum::PRIVATE,
        "rprivate" => MountBindOptionsPropagationEnum::RPRIVATE,
        "shared" => MountBindOptionsPropagationEnum::SHARED,
        "rshared" => MountBindOptionsPropagationEnum::RSHARED,
        "slave" => MountBindOptionsPropagationEnum::SLAVE,
        "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
        _ => return None,
    })
}

/// Options of one type do not go with another.
fn check_options(mount: &Mount) -> Result<(), InvalidMount> {
    let Mount {
        typ,
        source,
        bind_options,
        volume_options,
        tmpfs_options,
        ..
    } = mount;
    let kind = match typ {
        Some(MountTypeEnum::BIND) => "bind",
        Some(MountTypeEnum::TMPFS) => "tmpfs",
        _ => "volume",
    };
    let given = [
        ("bind-propagation", "bind", bind_options.is_some()),
        ("volume-nocopy", "volume", volume_options.is_some()),
        ("tmpfs-size", "tmpfs", tmpfs_options.is_some()),
    ];
    for (key, wants, given) in given {
        if given && kind != wants {
            return Err(InvalidMount::Mixed { key, kind });
        }
    }
    if kind == "tmpfs" && source.is_some() {
        return Err(InvalidMount::Mixed {
            key: "source",
            kind,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts() {
        let mount = |text: &str| {
            text.parse::<MountSpec>()
                .map(|spec| spec.into_mount(Path::new("/here")))
        };
        let bind = mount("type=bind,src=/a,dst=/b,readonly").expect("a bind mount");
        assert_eq!(
            (bind.source.as_deref(), bind.target.as_deref()),
            (Some("/a"), Some("/b"))
        );
        assert_eq!(
            (bind.typ, bind.read_only),
            (Some(MountTypeEnum::BIND), Some(true))
        );
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").expect("a tmpfs");
        let options = tmpfs.tmpfs_options.expect("options");
        assert_eq!(
            (options.size_bytes, options.mode),
            (Some(1 << 20), Some(0o1770))
        );
        let wrong = |text: &str| mount(text).expect_err(text).to_string();
        let volume =
            mount(r#"src=db,dst=/db,volume-driver=local,volume-label=a=b,"volume-opt=o=bind,ro""#);
        let options = volume.expect("a volume").volume_options.expect("options");
        assert_eq!(options.labels.expect("labels")["a"], "b");
        let driver = options.driver_config.expect("a driver");
        assert_eq!(driver.name.as_deref(), Some("local"));
        assert_eq!(driver.options.expect("options")["o"], "bind,ro");
        let bind = mount("type=bind,src=/a,dst=/b,bind-recursive=writable,consistency=cached");
        let options = bind.expect("a bind mount").bind_options.expect("options");
        assert_eq!(options.read_only_non_recursive, Some(true));
        assert!(wrong("src=\"db,dst=/b").contains("quotation mark"));
        assert!(wrong("type=bind,target=/b").starts_with("source is required"));
        assert!(wrong("type=bind,source=/b").starts_with("target is required"));
        assert!(wrong("type=nfs,target=/b").starts_with("invalid value for type: nfs"));
        assert!(wrong("foo=bar").starts_with("unexpected key 'foo' in 'foo=bar'"));
        assert!(wrong("type=tmpfs,src=/a,dst=/b").starts_with("cannot mix 'source'"));
        assert!(
            wrong("type=bind,src=/a,dst=/b,tmpfs-size=1").starts_with("cannot mix 'tmpfs-size'")
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,32}") {
            let _ = text.parse::<MountSpec>();
        }
    }
}
