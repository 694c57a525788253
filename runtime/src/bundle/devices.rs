//! Devices of the host that a container is given.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::BundleError;
use crate::spec::{Device, DeviceRule};

/// What is asked for: the nodes to make, and the rules that let them be used.
pub(super) fn all(
    devices: &[Device],
    rules: &[DeviceRule],
) -> Result<(Vec<Value>, Vec<Value>), BundleError> {
    let (mut nodes, mut allowed) = (Vec::new(), Vec::new());
    for device in devices {
        let failed = |source| BundleError::Device {
            path: device.source.clone(),
            source,
        };
        for (source, target) in below(&device.source, &device.target).map_err(failed)? {
            let (node, rule) = node(&source, &target, &device.access).map_err(failed)?;
            nodes.push(node);
            allowed.push(rule);
        }
    }
    allowed.extend(rules.iter().map(|rule| {
        let mut value =
            json!({ "allow": true, "type": rule.kind.to_string(), "access": rule.access });
        if let Some(major) = rule.major {
            value["major"] = major.into();
        }
        if let Some(minor) = rule.minor {
            value["minor"] = minor.into();
        }
        value
    }));
    Ok((nodes, allowed))
}

/// The device itself, or all that are in a directory and below, with their places in the container.
fn below(source: &Path, target: &str) -> io::Result<Vec<(PathBuf, String)>> {
    let metadata = fs::metadata(source)?;
    if !metadata.is_dir() {
        return Ok(vec![(source.to_owned(), target.to_owned())]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let target = format!(
            "{}/{}",
            target.trim_end_matches('/'),
            name.to_string_lossy()
        );
        if kind.is_dir() {
            found.extend(below(&entry.path(), &target)?);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push((entry.path(), target));
        }
    }
    Ok(found)
}

fn node(source: &Path, target: &str, access: &str) -> io::Result<(Value, Value)> {
    let metadata = fs::metadata(source)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a device node",
            ));
        }
    };
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let node = json!({
        "path": target,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": metadata.mode() & 0o777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    });
    let rule =
        json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
    Ok((node, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(source: &str, target: &str) -> Device {
        Device {
            source: source.into(),
            target: target.to_owned(),
            access: "rw".to_owned(),
        }
    }

    #[test]
    fn a_device_has_a_node_and_a_rule() {
        let rule = DeviceRule {
            kind: 'b',
            major: Some(7),
            minor: None,
            access: "r".to_owned(),
        };
        let (nodes, rules) = all(&[device("/dev/null", "/dev/nothing")], &[rule]).expect("there");
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0]["path"], "/dev/nothing");
        assert_eq!(
            (&nodes[0]["major"], &nodes[0]["minor"]),
            (&json!(1), &json!(3))
        );
        assert_eq!(
            rules[0],
            json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"})
        );
        assert_eq!(
            rules[1],
            json!({"allow": true, "type": "b", "access": "r", "major": 7})
        );
    }

    #[test]
    fn what_is_no_device_is_told() {
        let missing = all(&[device("/dev/no-such", "/x")], &[]).expect_err("missing");
        assert!(missing.to_string().contains("/dev/no-such"), "{missing}");
        assert!(all(&[device("/etc/hostname", "/x")], &[]).is_err());
    }
}
