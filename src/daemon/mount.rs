//! What a container sees besides its root file system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Something mounted at a path: as asked for, and with its volume's name once that is decided.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    /// Absolute, without `.` and `..`, and not the root.
    pub(crate) target: String,
    pub(crate) source: MountSource,
    pub(crate) read_only: bool,
    /// The third part of a `-v`, as inspect shows it.
    pub(crate) mode: String,
    /// How `-v` spelled it; `None`: it came by `--mount`, by `--volumes-from` or from the image.
    pub(crate) spelled: Option<String>,
}

/// Where the content is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub(crate) enum MountSource {
    /// A file or directory of the host.
    Bind {
        path: String,
        #[serde(default)]
        options: BindOptions,
    },
    Volume(VolumeMount),
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        mode: Option<u32>,
    },
}

/// How a file or directory of the host is mounted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct BindOptions {
    /// Make a directory where there is nothing, as `-v` does.
    pub(crate) create: bool,
    pub(crate) propagation: Propagation,
    /// Leave out what is mounted below it.
    pub(crate) non_recursive: bool,
    /// What is mounted below it stays writable though it is read-only itself.
    pub(crate) writable_below: bool,
}

/// Whether mounts made on one side appear on the other (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Propagation {
    #[default]
    Rprivate,
    Private,
    Rslave,
    Slave,
}

impl Propagation {
    /// As mount(8) and Docker call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
        }
    }
}

/// A volume and how it is mounted.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumeMount {
    /// Empty as long as an anonymous one has none.
    pub(crate) name: String,
    /// Nobody gave it a name: it goes with the last container that has it.
    pub(crate) anonymous: bool,
    /// Whether an empty volume gets what the image has at its place.
    pub(crate) copy: bool,
    /// Empty: `local`.
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl MountPoint {
    /// An anonymous volume.
    pub(crate) fn anonymous(target: &str, driver: &str) -> Self {
        Self {
            target: target.to_owned(),
            source: MountSource::Volume(VolumeMount {
                anonymous: true,
                copy: true,
                driver: driver.to_owned(),
                ..VolumeMount::default()
            }),
            read_only: false,
            mode: String::new(),
            spelled: None,
        }
    }

    pub(crate) fn volume(&self) -> Option<&VolumeMount> {
        match &self.source {
            MountSource::Volume(volume) => Some(volume),
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
        }
    }

    pub(super) fn volume_mut(&mut self) -> Option<&mut VolumeMount> {
        match &mut self.source {
            MountSource::Volume(volume) => Some(volume),
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
        }
    }
}

/// `--volumes-from`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumesFrom {
    /// Name or id of the container whose mounts are taken.
    pub(crate) container: String,
    pub(crate) read_only: bool,
    /// As given, `ro` for example.
    pub(crate) mode: String,
}
