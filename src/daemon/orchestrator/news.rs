//! What is wanted otherwise than before, and how it stands: events of services, nodes, secrets and configs, in Docker's words.

use std::sync::Arc;

use nuncio_registry::{Catalog, DesiredKind, DesiredRecord, NodeRecord};
use serde_json::Value;

use super::cluster::{self, NodeWish};
use crate::daemon::events::Kind;
use crate::daemon::news::Change;

const KINDS: [(DesiredKind, Kind); 3] = [
    (DesiredKind::Service, Kind::Service),
    (DesiredKind::Secret, Kind::Secret),
    (DesiredKind::Config, Kind::Config),
];

type About = Vec<(&'static str, String)>;

/// What has changed from one state of the mesh to the next.
pub(in crate::daemon) fn changes(before: &Catalog, now: &Catalog, found: &mut Vec<Change>) {
    for (desired, kind) in KINDS {
        let of = |catalog: &Catalog, id: &str| catalog.desired.get(desired, id).map(Arc::clone);
        for record in now.desired.all(desired) {
            let (action, about) = match of(before, &record.id) {
                None => ("create", Vec::new()),
                Some(was) => {
                    let about = match kind {
                        Kind::Service => service([before, now], [&was, record]),
                        _ => Vec::new(),
                    };
                    if was.version == record.version && about.is_empty() {
                        continue;
                    }
                    ("update", about)
                }
            };
            found.push(change(kind, action, &record.id, &record.name, about));
        }
        for record in before.desired.all(desired) {
            if of(now, &record.id).is_none() {
                let change = change(kind, "remove", &record.id, &record.name, Vec::new());
                found.push(change);
            }
        }
    }
    nodes(before, now, found);
}

fn change(kind: Kind, action: &'static str, id: &str, name: &str, mut about: About) -> Change {
    about.push(("name", name.to_owned()));
    Change {
        kind,
        action,
        id: id.to_owned(),
        about,
    }
}

/// What of a service is another: its image, how many are wanted, how far its update has come.
fn service(catalogs: [&Catalog; 2], records: [&Arc<DesiredRecord>; 2]) -> About {
    let id = &records[1].id;
    let updates = catalogs.map(|catalog| catalog.desired.get(DesiredKind::Update, id));
    let same_update = match updates {
        [Some(was), Some(is)] => Arc::ptr_eq(was, is),
        updates => updates == [None, None],
    };
    if Arc::ptr_eq(records[0], records[1]) && same_update {
        return Vec::new();
    }
    let mut about = Vec::new();
    let at = |place: &str| {
        records.map(|record| match record.spec.pointer(place) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(value) => Some(value.to_string()),
        })
    };
    let image = at("/TaskTemplate/ContainerSpec/Image");
    differs(&mut about, ["image.old", "image.new"], image);
    let replicas = at("/Mode/Replicated/Replicas");
    if let [Some(_), Some(_)] = replicas {
        differs(&mut about, ["replicas.old", "replicas.new"], replicas);
    }
    let states = [0, 1].map(|at| {
        let update = cluster::update(catalogs[at], records[at])?;
        let word = serde_json::to_value(update.state).ok()?;
        word.as_str().map(str::to_owned)
    });
    // Of what was wanted before it tells nothing any more.
    if states[1].is_some() {
        differs(&mut about, ["updatestate.old", "updatestate.new"], states);
    }
    about
}

/// Says what something was and is, if these differ.
fn differs(about: &mut About, names: [&'static str; 2], values: [Option<String>; 2]) {
    if values[0] != values[1] {
        let values = names.into_iter().zip(values);
        about.extend(values.filter_map(|(name, value)| Some((name, value?))));
    }
}

fn nodes(before: &Catalog, now: &Catalog, found: &mut Vec<Change>) {
    let mut tell = |action, node: &NodeRecord, about| {
        found.push(change(Kind::Node, action, &node.id, &node.name, about));
    };
    for node in now.nodes.values() {
        if !before.nodes.contains_key(&node.id) {
            tell("create", node, Vec::new());
            continue;
        }
        let wishes = [before, now].map(|catalog| catalog.desired.get(DesiredKind::Node, &node.id));
        let mut about = Vec::new();
        if wishes[0] != wishes[1] {
            let availability = [before, now].map(|catalog| {
                let wish = serde_json::to_value(NodeWish::of(catalog, &node.id).availability);
                wish.ok()?.as_str().map(str::to_lowercase)
            });
            let names = ["availability.old", "availability.new"];
            differs(&mut about, names, availability);
        }
        let state = [before, now].map(|catalog| {
            let alive = catalog.alive.contains(&node.id);
            Some(if alive { "ready" } else { "down" }.to_owned())
        });
        differs(&mut about, ["state.old", "state.new"], state);
        let leads = [before, now].map(|catalog| {
            let leader = catalog.desired.leader.as_ref();
            Some(
                leader
                    .is_some_and(|leader| leader.node == node.id)
                    .to_string(),
            )
        });
        differs(&mut about, ["leader.old", "leader.new"], leads);
        if !about.is_empty() || wishes[0] != wishes[1] {
            tell("update", node, about);
        }
    }
    for node in before.nodes.values() {
        if !now.nodes.contains_key(&node.id) {
            tell("remove", node, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(version: u64, image: &str, replicas: u64) -> DesiredRecord {
        DesiredRecord {
            id: "s".to_owned(),
            name: "web".to_owned(),
            version,
            spec: json!({
                "TaskTemplate": { "ContainerSpec": { "Image": image } },
                "Mode": { "Replicated": { "Replicas": replicas } },
            }),
            ..DesiredRecord::default()
        }
    }

    fn catalog(records: &[(DesiredKind, DesiredRecord)]) -> Catalog {
        let mut catalog = Catalog::default();
        for (kind, record) in records {
            let key = (*kind, record.id.clone());
            catalog
                .desired
                .records
                .insert(key, Arc::new(record.clone()));
        }
        catalog
    }

    /// Action and attributes.
    fn told(before: &Catalog, now: &Catalog) -> Vec<String> {
        let mut found = Vec::new();
        changes(before, now, &mut found);
        let told = found.into_iter().map(|change| {
            let mut about: Vec<_> = change
                .about
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            about.sort();
            format!(
                "{} {} {}",
                change.kind.word(),
                change.action,
                about.join(" ")
            )
        });
        told.collect()
    }

    #[test]
    fn a_service_is_made_changed_updated_and_removed() {
        let service =
            |version, image, replicas| (DesiredKind::Service, record(version, image, replicas));
        let update = |version, state: &str| {
            let update = DesiredRecord {
                state: json!({ "state": state }),
                ..record(version, "", 0)
            };
            (DesiredKind::Update, update)
        };
        let none = catalog(&[]);
        let first = catalog(&[service(1, "a", 1)]);
        assert_eq!(told(&none, &first), ["service create name=web"]);
        let second = catalog(&[service(2, "b", 3)]);
        assert_eq!(
            told(&first, &second),
            ["service update image.new=b image.old=a name=web replicas.new=3 replicas.old=1"]
        );
        let third = catalog(&[service(2, "b", 3), update(2, "updating")]);
        assert_eq!(
            told(&second, &third),
            ["service update name=web updatestate.new=updating"]
        );
        let fourth = catalog(&[service(2, "b", 3), update(2, "completed")]);
        assert_eq!(
            told(&third, &fourth),
            ["service update name=web updatestate.new=completed updatestate.old=updating"]
        );
        let fifth = catalog(&[service(3, "b", 3), update(2, "completed")]);
        assert_eq!(told(&fourth, &fifth), ["service update name=web"]);
        assert_eq!(told(&fifth, &none), ["service remove name=web"]);
        assert!(told(&fifth, &fifth).is_empty());
    }

    #[test]
    fn what_is_known_of_a_service_beside_its_specification_is_no_change() {
        let before = catalog(&[(DesiredKind::Service, record(1, "a", 1))]);
        let mut handed_on = record(1, "a", 1);
        handed_on.state = json!({ "rebalance": false });
        let now = catalog(&[(DesiredKind::Service, handed_on)]);
        assert!(told(&before, &now).is_empty());
    }
}
