//! Volumes whose content is elsewhere: `type`, `device` and `o`, as Docker's local driver takes them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Why options are refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidVolumeOptions {
    /// One that the local driver does not know.
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// One that the others need.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// A file system that is not mounted here.
    #[error(
        "not built: local volumes of type {0:?}; tmpfs is, and a directory of the host: type=none, o=bind, device=/PATH"
    )]
    Type(String),
    /// A path that could be anybody's.
    #[error("invalid device {0:?}: expected the absolute path of a directory")]
    Device(String),
    /// Something that would end the option where it stands.
    #[error("invalid value of option {0:?}: it contains a NUL byte")]
    Nul(String),
}

/// What is mounted on a volume's directory before a container uses it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Nothing: the directory itself is the volume.
    Own,
    /// A directory of the host.
    Bind { device: String, flags: MountFlags },
    /// Memory, empty whenever the first container begins to use it.
    Tmpfs { flags: MountFlags, data: CString },
}

impl Content {
    pub(super) fn of(options: &BTreeMap<String, String>) -> Result<Self, InvalidVolumeOptions> {
        let known = ["type", "device", "o"];
        if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(InvalidVolumeOptions::Unknown(unknown.clone()));
        }
        if let Some((key, _)) = options.iter().find(|(_, value)| value.contains('\0')) {
            return Err(InvalidVolumeOptions::Nul(key.clone()));
        }
        if options.is_empty() {
            return Ok(Self::Own);
        }
        let need = |key: &'static str| options.get(key).ok_or(InvalidVolumeOptions::Missing(key));
        let (device, kind) = (need("device")?, need("type")?);
        let asked = options.get("o").map_or("", String::as_str);
        let (flags, data) = split(asked);
        let binds = data
            .iter()
            .any(|option| matches!(*option, "bind" | "rbind"));
        match kind.as_str() {
            "tmpfs" => Ok(Self::Tmpfs {
                flags,
                data: CString::new(data.join(",")).unwrap_or_default(), // it has no NUL, see above
            }),
            "none" | "bind" | "" if binds || kind == "bind" => {
                if !device.starts_with('/') {
                    return Err(InvalidVolumeOptions::Device(device.clone()));
                }
                Ok(Self::Bind {
                    device: device.clone(),
                    flags,
                })
            }
            other => Err(InvalidVolumeOptions::Type(other.to_owned())),
        }
    }

    /// Mounts it, unless it is.
    pub(super) fn mount(&self, target: &Path) -> io::Result<()> {
        if is_mounted(target) {
            return Ok(());
        }
        match self {
            Self::Own => Ok(()),
            Self::Tmpfs { flags, data } => Ok(rustix::mount::mount(
                "tmpfs",
                target,
                "tmpfs",
                *flags,
                data.as_c_str(),
            )?),
            Self::Bind { device, flags } => {
                rustix::mount::mount_bind_recursive(device, target)?;
                if flags.is_empty() {
                    return Ok(());
                }
                // A bind mount gets its flags by a second call.
                let flags = *flags | MountFlags::BIND;
                Ok(rustix::mount::mount_remount(target, flags, "")?)
            }
        }
    }

    /// Takes down what [`Content::mount`] put up.
    pub(super) fn unmount(&self, target: &Path) -> io::Result<()> {
        if *self == Self::Own {
            return Ok(());
        }
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Flags of mount(2), and what is left for the file system.
fn split(options: &str) -> (MountFlags, Vec<&str>) {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "rw" | "suid" | "dev" | "exec" | "defaults" => {}
            other => rest.push(other),
        }
    }
    (flags, rest)
}

fn is_mounted(path: &Path) -> bool {
    let found = rustix::fs::statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    );
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Content, InvalidVolumeOptions> {
        let pairs = pairs.iter().map(|&(key, value)| (key.into(), value.into()));
        Content::of(&pairs.collect())
    }

    #[test]
    fn what_is_mounted_is_told_by_the_options() {
        assert_eq!(of(&[]), Ok(Content::Own));
        assert_eq!(
            of(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]),
            Ok(Content::Bind {
                device: "/srv".into(),
                flags: MountFlags::RDONLY
            })
        );
        assert_eq!(
            of(&[
                ("type", "tmpfs"),
                ("device", "tmpfs"),
                ("o", "size=1m,nodev,uid=7")
            ]),
            Ok(Content::Tmpfs {
                flags: MountFlags::NODEV,
                data: c"size=1m,uid=7".into()
            })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |pairs: &[(&str, &str)]| of(pairs).expect_err("refused").to_string();
        assert_eq!(refused(&[("colour", "red")]), "invalid option: \"colour\"");
        assert_eq!(
            refused(&[("type", "tmpfs")]),
            "missing required option: \"device\""
        );
        assert_eq!(
            refused(&[("device", "/dev/sda1")]),
            "missing required option: \"type\""
        );
        let nfs = [("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")];
        assert!(refused(&nfs).starts_with("not built: local volumes of type \"nfs\""));
        let relative = [("type", "none"), ("device", "srv"), ("o", "bind")];
        assert!(refused(&relative).starts_with("invalid device \"srv\""));
    }

    proptest! {
        #[test]
        fn any_options_are_taken_or_refused(kind in "[a-z]{0,5}", device in "\\PC{0,8}", o in "[a-z=,\\x00]{0,16}") {
            let _ = of(&[("type", &kind), ("device", &device), ("o", &o)]);
        }
    }
}
