//! What of `HostConfig` a container may do and see of its host: devices, namespaces, security options.

use bollard_stubs::models::DeviceMapping;

use crate::daemon::config::{Device, HostOptions, Ipc, Shared};
use crate::daemon::refusal::Refusal;
use crate::daemon::{device_rule, is_device_access};

/// Bytes of `/dev/shm` unless the user says otherwise.
const SHM_SIZE: u64 = 64 << 20;

pub(crate) fn shm_size(asked: Option<i64>) -> Result<u64, Refusal> {
    match u64::try_from(asked.unwrap_or_default()) {
        Ok(0) => Ok(SHM_SIZE),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Refusal::invalid("SHM size can not be less than 0")),
    }
}

pub(crate) fn shm_size_view(bytes: u64) -> i64 {
    let bytes = if bytes == 0 { SHM_SIZE } else { bytes };
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(crate) fn devices(asked: Option<Vec<DeviceMapping>>) -> Result<Vec<Device>, Refusal> {
    let device = |mapping: DeviceMapping| {
        let source = mapping.path_on_host.unwrap_or_default();
        let or = |text: Option<String>, default: &str| match text {
            Some(text) if !text.is_empty() => text,
            _ => default.to_owned(),
        };
        let target = or(mapping.path_in_container, &source);
        let access = or(mapping.cgroup_permissions, "rwm");
        if !source.starts_with('/') || !target.starts_with('/') || target.contains('\0') {
            return Err(Refusal::invalid(format!(
                "invalid --device {source}:{target}: expected absolute paths"
            )));
        }
        if !is_device_access(&access) {
            return Err(Refusal::invalid(format!(
                "invalid --device {source}: {access:?} is not made of r, w and m"
            )));
        }
        Ok(Device {
            source,
            target,
            access,
        })
    };
    asked.unwrap_or_default().into_iter().map(device).collect()
}

pub(crate) fn devices_view(devices: &[Device]) -> Vec<DeviceMapping> {
    let view = |device: &Device| DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(device.access.clone()),
    };
    devices.iter().map(view).collect()
}

pub(crate) fn device_rules(asked: Option<Vec<String>>) -> Result<Vec<String>, Refusal> {
    let rules = asked.unwrap_or_default();
    match rules.iter().find(|rule| device_rule(rule).is_none()) {
        Some(wrong) => Err(Refusal::invalid(format!(
            "invalid device cgroup rule format: '{wrong}'"
        ))),
        None => Ok(rules),
    }
}

/// `container:NAME`.
fn container(text: &str) -> Option<&str> {
    text.strip_prefix("container:")
        .filter(|name| !name.is_empty())
}

pub(crate) fn pid(text: &str) -> Result<Shared, Refusal> {
    match (text, container(text)) {
        ("", _) => Ok(Shared::Own),
        ("host", _) => Ok(Shared::Host),
        (_, Some(name)) => Ok(Shared::Container(name.to_owned())),
        _ => Err(Refusal::invalid(format!("invalid PID mode: {text}"))),
    }
}

pub(crate) fn pid_view(pid: &Shared) -> String {
    match pid {
        Shared::Own => String::new(),
        Shared::Host => "host".to_owned(),
        Shared::Container(name) => format!("container:{name}"),
    }
}

pub(crate) fn ipc(text: &str) -> Result<Ipc, Refusal> {
    match (text, container(text)) {
        ("" | "private", _) => Ok(Ipc::Private),
        ("none", _) => Ok(Ipc::None),
        ("shareable", _) => Ok(Ipc::Shareable),
        ("host", _) => Ok(Ipc::Host),
        (_, Some(name)) => Ok(Ipc::Container(name.to_owned())),
        _ => Err(Refusal::invalid(format!("invalid IPC mode: {text}"))),
    }
}

pub(crate) fn ipc_view(ipc: &Ipc) -> String {
    match ipc {
        Ipc::Private => "private".to_owned(),
        Ipc::None => "none".to_owned(),
        Ipc::Shareable => "shareable".to_owned(),
        Ipc::Host => "host".to_owned(),
        Ipc::Container(name) => format!("container:{name}"),
    }
}

/// Below which group of each hierarchy a container has its own; from the root, whether or not it begins with a slash.
pub(crate) fn cgroup_parent(text: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let wrong = |part: &&str| [".", ".."].contains(part) || part.contains(['\0', '\n']);
    if parts.is_empty() || parts.iter().any(wrong) {
        return Err(Refusal::invalid(format!(
            "invalid CgroupParent {text:?}: expected a path of cgroups, as /batch/nightly"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

pub(crate) fn host_uts(text: &str) -> Result<bool, Refusal> {
    match text {
        "" => Ok(false),
        "host" => Ok(true),
        _ => Err(Refusal::invalid(format!("invalid UTS mode: {text}"))),
    }
}

/// What `--security-opt` says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Security {
    pub(crate) seccomp_unconfined: bool,
    pub(crate) no_new_privileges: bool,
}

/// Reads the options, of which those are refused that would confine a container in a way not built here.
pub(crate) fn security(options: &[String]) -> Result<Security, Refusal> {
    let mut found = Security::default();
    for option in options {
        match option.replacen(':', "=", 1).as_str() {
            "seccomp=unconfined" => found.seccomp_unconfined = true,
            "seccomp=builtin" => found.seccomp_unconfined = false,
            "no-new-privileges" | "no-new-privileges=true" => found.no_new_privileges = true,
            "no-new-privileges=false" => found.no_new_privileges = false,
            // Neither SELinux nor AppArmor confines anything here, so there is nothing to take away.
            "label=disable" | "apparmor=unconfined" => {}
            other if other.starts_with("seccomp=") => {
                return Err(Refusal::unsupported(
                    "not built: --security-opt seccomp with a profile of one's own; only unconfined and builtin",
                ));
            }
            _ => {
                return Err(Refusal::unsupported(format!(
                    "not built: --security-opt {option}"
                )));
            }
        }
    }
    Ok(found)
}

pub(crate) fn security_view(host: &HostOptions) -> Option<Vec<String>> {
    let options = [
        (host.seccomp_unconfined, "seccomp=unconfined"),
        (host.no_new_privileges, "no-new-privileges"),
    ];
    let set: Vec<String> = options
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, option)| option.to_owned())
        .collect();
    (!set.is_empty()).then_some(set)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn modes_survive_the_round_trip() {
        for text in ["", "host", "container:db"] {
            assert_eq!(pid_view(&pid(text).expect(text)), text);
        }
        for text in ["private", "none", "shareable", "host", "container:db"] {
            assert_eq!(ipc_view(&ipc(text).expect(text)), text);
        }
        assert!(pid("container:").is_err() && ipc("other").is_err() && host_uts("x").is_err());
    }

    #[test]
    fn a_parent_of_cgroups_is_a_path_from_the_root() {
        for (text, expected) in [("", ""), ("batch", "/batch"), ("/a//b/", "/a/b")] {
            assert_eq!(cgroup_parent(text).expect(text), expected);
        }
        for wrong in ["/", "..", "/a/../b", "a/."] {
            assert!(cgroup_parent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices_are_absolute_and_have_an_access() {
        let parse = |body: Value| devices(serde_json::from_value(body).expect("devices"));
        let found = parse(json!([{"PathOnHost": "/dev/fuse"}])).expect("valid");
        assert_eq!(
            (found[0].target.as_str(), found[0].access.as_str()),
            ("/dev/fuse", "rwm")
        );
        for wrong in [
            json!([{"PathOnHost": "fuse"}]),
            json!([{"PathOnHost": "/dev/fuse", "CgroupPermissions": "x"}]),
        ] {
            assert!(parse(wrong).is_err());
        }
        assert!(device_rules(Some(vec!["c 10:229 rwm".to_owned()])).is_ok());
        assert!(device_rules(Some(vec!["c 10 rwm".to_owned()])).is_err());
    }

    #[test]
    fn security_options_are_taken_or_refused() {
        let found = |option: &str| security(&[option.to_owned()]);
        assert!(
            found("seccomp=unconfined")
                .expect("built")
                .seccomp_unconfined
        );
        assert!(
            found("seccomp:unconfined")
                .expect("the old spelling")
                .seccomp_unconfined
        );
        assert!(found("no-new-privileges").expect("built").no_new_privileges);
        assert_eq!(
            found("label=disable").expect("nothing to do"),
            Security::default()
        );
        assert!(found("seccomp={}").is_err());
        assert!(found("label=type:x").is_err());
    }
}
