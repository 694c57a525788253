//! Several files as one: what comes later goes before.

use super::yaml::{Node, Value};

/// Lists that a later file replaces as a whole.
const WHOLE: [&str; 3] = ["command", "entrypoint", "test"];
/// Lists that are mappings in another form.
const MAPS: [&str; 8] = [
    "environment",
    "labels",
    "sysctls",
    "depends_on",
    "networks",
    "annotations",
    "options",
    "extra_hosts",
];

/// Puts `over` upon what stands under `key`.
pub(super) fn merge(key: &str, base: Node, over: Node) -> Node {
    let at = over.at.clone();
    let value = match (base.value, over.value) {
        (base, Value::Null) => base,
        (Value::List(_), Value::List(over)) if WHOLE.contains(&key) => Value::List(over),
        (Value::List(mut items), Value::List(over)) => {
            let is_there = |item: &Node| items.iter().any(|other| other.value == item.value);
            let fresh: Vec<Node> = over.into_iter().filter(|item| !is_there(item)).collect();
            items.extend(fresh);
            Value::List(items)
        }
        (Value::Map(mut members), Value::Map(over)) => {
            for (name, node) in over {
                match members.iter().position(|(other, _)| *other == name) {
                    Some(at) => {
                        let (_, before) = members.remove(at);
                        members.insert(at, (name.clone(), merge(&name, before, node)));
                    }
                    None => members.push((name, node)),
                }
            }
            Value::Map(members)
        }
        (Value::List(items), over @ Value::Map(_)) if MAPS.contains(&key) => {
            let base = Node {
                at: at.clone(),
                value: as_map(items),
            };
            return merge(key, base, Node { at, value: over });
        }
        (base @ Value::Map(_), Value::List(items)) if MAPS.contains(&key) => {
            let over = Node {
                at: at.clone(),
                value: as_map(items),
            };
            return merge(key, Node { at, value: base }, over);
        }
        (_, over) => over,
    };
    Node { at, value }
}

/// `NAME=VALUE` and `NAME` as members.
fn as_map(items: Vec<Node>) -> Value {
    let members = items.into_iter().map(|item| match &item.value {
        Value::Text(text) => match text.split_once('=') {
            Some((name, value)) => {
                let value = Value::Text(value.to_owned());
                (name.to_owned(), Node { at: item.at, value })
            }
            None => (
                text.clone(),
                Node {
                    at: item.at,
                    value: Value::Null,
                },
            ),
        },
        other => (other.kind().to_owned(), item),
    });
    Value::Map(members.collect())
}
