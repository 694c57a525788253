//! `--device`.

use std::str::FromStr;

use bollard_stubs::models::DeviceMapping;

/// `HOST[:CONTAINER][:PERMISSIONS]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeviceSpec(DeviceMapping);

/// Not a device.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid device specification {0:?}: expected HOST_PATH[:CONTAINER_PATH][:PERMISSIONS], absolute paths, and permissions out of r, w and m"
)]
pub(crate) struct InvalidDevice(String);

impl DeviceSpec {
    pub(crate) fn mapping(&self) -> DeviceMapping {
        self.0.clone()
    }
}

impl FromStr for DeviceSpec {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
        let (source, target, access) = match text.split(':').collect::<Vec<_>>()[..] {
            [source] => (source, source, "rwm"),
            [source, access] if is_access(access) => (source, source, access),
            [source, target] => (source, target, "rwm"),
            [source, target, access] if is_access(access) => (source, target, access),
            _ => return Err(InvalidDevice(text.to_owned())),
        };
        if !source.starts_with('/') || !target.starts_with('/') {
            return Err(InvalidDevice(text.to_owned()));
        }
        Ok(Self(DeviceMapping {
            path_on_host: Some(source.to_owned()),
            path_in_container: Some(target.to_owned()),
            cgroup_permissions: Some(access.to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_parts() {
        let parts = |text: &str| {
            let mapping = text.parse::<DeviceSpec>().ok()?.mapping();
            Some([
                mapping.path_on_host?,
                mapping.path_in_container?,
                mapping.cgroup_permissions?,
            ])
        };
        for (text, expected) in [
            ("/dev/fuse", ["/dev/fuse", "/dev/fuse", "rwm"]),
            ("/dev/fuse:r", ["/dev/fuse", "/dev/fuse", "r"]),
            ("/dev/sda:/dev/xvdc", ["/dev/sda", "/dev/xvdc", "rwm"]),
            ("/dev/sda:/dev/xvdc:rm", ["/dev/sda", "/dev/xvdc", "rm"]),
        ] {
            assert_eq!(parts(text), Some(expected.map(str::to_owned)), "{text}");
        }
        for wrong in ["", "fuse", "/a:/b:x", "/a:/b:r:w", "/a:b"] {
            assert_eq!(parts(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[/:rwma-c]{0,16}") {
            let _ = text.parse::<DeviceSpec>();
        }
    }
}
