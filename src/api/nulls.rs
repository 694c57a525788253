//! Fields that Docker sends as `null` where there is nothing: scripts reach into them without asking whether they are there.

use serde_json::Value;

const CONFIG: &[&str] = &["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"];
const HOST_CONFIG: &[&str] = &[
    "Binds",
    "CapAdd",
    "CapDrop",
    "CgroupParent",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "PortBindings",
    "SecurityOpt",
    "Ulimits",
    "VolumesFrom",
];
const ENDPOINT: &[&str] = &["Aliases", "DNSNames", "DriverOpts", "IPAMConfig", "Links"];

/// Of a container as `inspect` shows it.
pub(crate) fn container(shown: &mut Value) {
    fill(shown, &["ExecIDs"]);
    fill(&mut shown["Config"], CONFIG);
    fill(&mut shown["HostConfig"], HOST_CONFIG);
    let networks = shown["NetworkSettings"]["Networks"].as_object_mut();
    for (_, endpoint) in networks.into_iter().flatten() {
        fill(endpoint, ENDPOINT);
    }
}

/// Of an image as `inspect` shows it.
pub(crate) fn image(shown: &mut Value) {
    fill(&mut shown["Config"], CONFIG);
}

/// Of an exec, which has no exit code while it runs.
pub(crate) fn exec(shown: &mut Value) {
    fill(shown, &["ExitCode"]);
}

fn fill(shown: &mut Value, keys: &[&str]) {
    if let Value::Object(fields) = shown {
        for &key in keys {
            fields.entry(key).or_insert(Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_there_stays_and_what_is_not_is_null() {
        let mut shown = json!({
            "Config": {"Cmd": ["sh"]},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {"front": {"Aliases": ["db"]}}},
        });
        container(&mut shown);
        assert_eq!(shown["Config"]["Cmd"], json!(["sh"]));
        let front = &shown["NetworkSettings"]["Networks"]["front"];
        assert_eq!(front["Aliases"], json!(["db"]));
        for (place, key) in [
            (&shown["Config"], "Volumes"),
            (&shown["HostConfig"], "Binds"),
            (front, "IPAMConfig"),
        ] {
            assert_eq!(place.get(key), Some(&Value::Null), "{key}");
        }
    }
}
