//! `events --explain`: what happened to a name, told in order.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::output::line;

/// Says in a sentence each what `events`, the oldest first, have to do with `name`.
///
/// # Errors
///
/// If nobody reads, or there is nothing to tell.
pub(super) fn tell(events: &[Value], name: &str) -> anyhow::Result<()> {
    let ids = ids(events, name);
    let mut told = false;
    for event in events.iter().filter(|event| concerns(event, name, &ids)) {
        // Of several hosts each has its own to tell.
        let host = event["Node"].as_str();
        let host = host.map_or_else(String::new, |host| format!("{host}: "));
        let (time, sentence) = (super::time(event), sentence(event, name));
        line(&format!("{time}  {host}{sentence}"))?;
        told = true;
    }
    if !told {
        anyhow::bail!(
            "nothing is remembered of {name} where it was asked for: see `nuncio ps -a`, or ask all hosts by --all-nodes"
        );
    }
    Ok(())
}

fn attribute<'e>(event: &'e Value, name: &str) -> &'e str {
    event["Actor"]["Attributes"][name]
        .as_str()
        .unwrap_or_default()
}

fn id(event: &Value) -> &str {
    event["Actor"]["ID"].as_str().unwrap_or_default()
}

/// The containers, networks and hosts that had the name at some time.
fn ids(events: &[Value], name: &str) -> BTreeSet<String> {
    let has_it = |event: &&Value| {
        let old = attribute(event, "oldName").trim_start_matches('/');
        let named = [attribute(event, "name"), old].contains(&name);
        let is_own = attribute(event, "cause").is_empty() && event["Type"] == "daemon";
        named && !is_own || name.len() >= 12 && id(event).starts_with(name)
    };
    let found = events.iter().filter(has_it).map(id);
    found
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect()
}

fn concerns(event: &Value, name: &str, ids: &BTreeSet<String>) -> bool {
    let container = attribute(event, "container");
    ids.contains(id(event))
        || ids.contains(container)
        || [attribute(event, "host"), attribute(event, "object")]
            .iter()
            .any(|about| about.split(' ').any(|word| word == name))
}

fn sentence(event: &Value, name: &str) -> String {
    let action = event["Action"].as_str().unwrap_or_default();
    let kind = event["Type"].as_str().unwrap_or_default();
    let who = attribute(event, "name");
    let of = |key: &str| attribute(event, key);
    let mut text = match (kind, action) {
        ("container", "create") => format!("{who} was made from {}", of("image")),
        ("container", "start") => format!("{who} was started"),
        ("container", "die") => format!("{who} ended with exit code {}", of("exitCode")),
        ("container", "kill") => format!("{who} was sent signal {}", of("signal")),
        ("container", "oom") => format!("{who} had no memory left"),
        ("container", "stop") => format!("{who} was stopped by request"),
        ("container", "restart") => format!("{who} was restarted by request"),
        ("container", "destroy") => format!("{who} was removed"),
        ("container", "rename") => {
            format!(
                "{} was renamed to {who}",
                of("oldName").trim_start_matches('/')
            )
        }
        ("network", "connect") => format!("{name} came into network {who}"),
        ("network", "disconnect") => format!("{name} left network {who}"),
        ("volume", "mount") => format!("volume {} was mounted at {}", id(event), of("destination")),
        ("volume", "unmount") => format!("volume {} was unmounted", id(event)),
        ("daemon", "endpoint_up") => format!("{who} came up in network {}", of("network")),
        ("daemon", "endpoint_move") => format!("{who} moved in network {}", of("network")),
        ("daemon", "endpoint_down") => format!("{who} left network {}", of("network")),
        ("daemon", "peer_join") => format!("host {who} became known"),
        ("daemon", "peer_leave") => format!("host {who} was forgotten"),
        ("daemon", "peer_alive") => format!("host {who} lives"),
        ("daemon", "peer_dead") => format!("host {who} is not heard of"),
        ("daemon", "leader") => format!("{} leads", of("after")),
        ("daemon", "reader_dropped") => "a reader was let go".to_owned(),
        ("daemon", "repair") => format!("{} was mended: others had changed it", of("object")),
        ("daemon", action) if action.starts_with("path_") => {
            format!(
                "the way to {}: {}",
                of("host"),
                action.trim_start_matches("path_")
            )
        }
        _ => format!("{kind} {who}: {action}"),
    };
    if !of("cause").is_empty() {
        text += &format!(", by {}", of("cause"));
    }
    if !of("before").is_empty() || !of("after").is_empty() {
        text += &format!(" ({} -> {})", of("before"), of("after"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: Value) -> Value {
        json!({"Type": kind, "Action": action, "timeNano": 1, "Actor": {"ID": id, "Attributes": attributes}})
    }

    #[test]
    fn a_name_is_followed_through_its_containers_and_networks() {
        let events = [
            event(
                "container",
                "create",
                "a",
                json!({"name": "old", "image": "redis"}),
            ),
            event(
                "container",
                "rename",
                "a",
                json!({"name": "db", "oldName": "/old"}),
            ),
            event("container", "start", "b", json!({"name": "web"})),
            event(
                "network",
                "connect",
                "n",
                json!({"name": "mesh", "container": "a"}),
            ),
            event(
                "container",
                "die",
                "a",
                json!({"name": "db", "exitCode": "137"}),
            ),
            event(
                "daemon",
                "endpoint_up",
                "c",
                json!({
                    "name": "db", "container": "c", "network": "mesh", "host": "host-2", "cause": "its host",
                    "before": "nowhere", "after": "10.0.2.2 on host-2",
                }),
            ),
        ];
        let ids = ids(&events, "db");
        let told: Vec<String> = events
            .iter()
            .filter(|event| concerns(event, "db", &ids))
            .map(|event| sentence(event, "db"))
            .collect();
        let expected = [
            "old was made from redis",
            "old was renamed to db",
            "db came into network mesh",
            "db ended with exit code 137",
            "db came up in network mesh, by its host (nowhere -> 10.0.2.2 on host-2)",
        ];
        assert_eq!(told, expected);
    }
}
