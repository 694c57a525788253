//! What other hosts know best of the map: their own containers, and what their ambassadors carry. They are asked by way of
//! the registry, and only while somebody looks at the map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Daemon;
use super::super::container::locked;

/// Bytes of what a host tells another; the registry's mailbox takes a little more.
const LONGEST: usize = 56 << 10;
/// Hosts that are asked at once; of more, these now and others the next time.
const AT_ONCE: usize = 16;
/// How long what a host has told is shown.
const FRESH: Duration = Duration::from_secs(15);

/// What other hosts have told last, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    told: BTreeMap<String, (Instant, Value)>,
    /// Whose turn it is, among more hosts than are asked at once.
    turn: usize,
}

/// A container of another host.
pub(crate) struct Elsewhere {
    /// Its host's id.
    pub(crate) node: String,
    /// Its host's name.
    pub(crate) host: String,
    pub(crate) name: String,
    pub(crate) state: String,
}

impl Daemon {
    /// Finds a container of another host by its id: by what the registry says, or its host has told.
    pub(crate) fn container_elsewhere(&self, id: &str) -> Option<Elsewhere> {
        let catalog = self.catalog();
        let endpoint = catalog.endpoints.values().find(|one| one.id == id);
        let (node, name, state) = match endpoint {
            Some(endpoint) => (
                endpoint.node.clone(),
                endpoint.name.clone(),
                "running".to_owned(),
            ),
            None => self.told_of(id)?,
        };
        let record = catalog.nodes.get(&node);
        let host = record.map_or_else(|| node.clone(), |record| record.name.clone());
        (node != self.node.id).then_some(Elsewhere {
            node,
            host,
            name,
            state,
        })
    }

    /// Host, name and state of a container that others have told of.
    fn told_of(&self, id: &str) -> Option<(String, String, String)> {
        let parts = locked(&self.pages.parts);
        parts.told.iter().find_map(|(node, (_, part))| {
            let mut containers = part["containers"].as_array()?.iter();
            let found = containers.find(|one| one["id"] == id)?;
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            Some((node.clone(), text("name"), text("state")))
        })
    }

    /// What this host tells others. Samples are thinned out, and in the end left out, for it to be no longer than it may.
    pub(in crate::daemon) async fn map_part(&self, history: bool) -> anyhow::Result<Value> {
        self.sample_links(false).await;
        let sight = self.sight().await?;
        let containers = self.mapped_containers().into_iter();
        let containers: Vec<_> = containers.filter(|one| one.host == self.node.id).collect();
        let mut part = json!({
            "containers": containers,
            "links": self.mapped_links(&sight.active, history),
        });
        shorten(&mut part);
        Ok(part)
    }

    /// The other hosts that are alive.
    fn others(&self) -> Vec<String> {
        let catalog = self.catalog();
        let others = catalog.alive.iter().filter(|id| **id != self.node.id);
        others.cloned().collect()
    }

    /// Asks hosts for their parts, some at a time; those that do not answer have none.
    async fn ask_for_parts(
        &self,
        nodes: Vec<String>,
        history: bool,
    ) -> BTreeMap<String, Option<Value>> {
        let asked = nodes.into_iter().map(|node| async move {
            let part = self.ask_map(&node, history).await.inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::debug!(node, error, "ask for a part of the map");
            });
            (node, part.ok())
        });
        stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Has others tell what they know, for the maps to come.
    pub(in crate::daemon) async fn hear_of_others(self: Arc<Self>) {
        let mut others = self.others();
        if others.len() > AT_ONCE {
            let mut parts = locked(&self.pages.parts);
            let turn = parts.turn % others.len();
            others.rotate_left(turn);
            parts.turn = parts.turn.wrapping_add(AT_ONCE);
            others.truncate(AT_ONCE);
        }
        let told = self.ask_for_parts(others, false).await;
        let now = Instant::now();
        let mut parts = locked(&self.pages.parts);
        let told = told.into_iter();
        let told = told.filter_map(|(node, part)| Some((node, (now, part?))));
        parts.told.extend(told);
        parts
            .told
            .retain(|_, (then, _)| now.duration_since(*then) < FRESH);
    }

    /// The map with what others have told last.
    pub(in crate::daemon) async fn map_of_all(&self) -> anyhow::Result<Value> {
        let mut map = self.own_map(false).await?;
        for (node, (then, part)) in &locked(&self.pages.parts).told {
            if then.elapsed() < FRESH {
                merge(&mut map, node, part);
            }
        }
        Ok(map)
    }

    /// The map with what all hosts tell when they are asked now, `history`: of the last hour, too. Under `unheard` are the
    /// names of those that did not answer.
    pub(crate) async fn map_of_all_now(&self, history: bool) -> anyhow::Result<Value> {
        let others = self.ask_for_parts(self.others(), history);
        let (map, parts) = tokio::join!(self.own_map(history), others);
        let mut map = map?;
        let mut unheard = Vec::new();
        for (node, part) in parts {
            match part {
                Some(part) => merge(&mut map, &node, &part),
                None => unheard.push(node),
            }
        }
        let nodes = &self.catalog().nodes;
        let name = |node: String| nodes.get(&node).map_or(node, |node| node.name.clone());
        map["unheard"] = unheard.into_iter().map(name).collect();
        Ok(map)
    }

    async fn own_map(&self, history: bool) -> anyhow::Result<Value> {
        let map = self.map(history).await?;
        serde_json::to_value(&map).context("write the map")
    }
}

fn list<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Vec<Value>> {
    value.get_mut(key)?.as_array_mut()
}

/// Takes what a host tells of itself into the map, in place of what others thought of it.
fn merge(map: &mut Value, node: &str, part: &Value) {
    let items = |key: &str| part[key].as_array().into_iter().flatten();
    let own = |item: &&Value| item["host"] == node;
    if let Some(containers) = list(map, "containers") {
        containers.retain(|one| one["host"] != node);
        containers.extend(items("containers").filter(own).cloned());
    }
    if let Some(links) = list(map, "links") {
        links.extend(items("links").filter(own).cloned());
    }
}

/// Takes out what there is no room for: every other sample, again and again, then all of them, then links and containers.
fn shorten(part: &mut Value) {
    let is_long = |part: &Value| part.to_string().len() > LONGEST;
    while is_long(part) {
        let mut thinned = false;
        for link in list(part, "links").into_iter().flatten() {
            let Some(samples) = list(link, "samples").filter(|samples| samples.len() > 2) else {
                continue;
            };
            // The last one stays, as what is known of the present.
            let mut behind = samples.len();
            samples.retain(|_| {
                behind -= 1;
                behind.is_multiple_of(2)
            });
            link["every"] = (link["every"].as_u64().unwrap_or(1) * 2).into();
            thinned = true;
        }
        if thinned {
            continue;
        }
        for link in list(part, "links").into_iter().flatten() {
            if let Some(link) = link.as_object_mut()
                && link.shift_remove("samples").is_some()
            {
                thinned = true;
            }
        }
        if !thinned {
            for key in ["links", "containers"] {
                if let Some(items) = list(part, key) {
                    items.truncate(items.len() / 2);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: usize, samples: usize) -> Value {
        let sample = |at| json!([at, { "open": 0, "flows": at, "bytes_in": 123_456_789_u64 }]);
        json!({ "id": format!("link/{name}"), "host": "b", "samples": (0..samples).map(sample).collect::<Value>() })
    }

    #[test]
    fn what_is_told_is_as_long_as_it_may_be_and_keeps_its_end() {
        let mut short = json!({ "links": [link(1, 3)], "containers": [] });
        let before = short.clone();
        shorten(&mut short);
        assert_eq!(short, before);
        let links: Value = (0..20).map(|name| link(name, 360)).collect();
        let mut long = json!({ "links": links, "containers": [] });
        shorten(&mut long);
        assert!(long.to_string().len() <= LONGEST);
        assert_eq!(long["links"].as_array().map(Vec::len), Some(20));
        let samples = long["links"][0]["samples"].as_array().expect("samples");
        assert_eq!(samples.last().map(|sample| &sample[0]), Some(&json!(359)));
        let every = long["links"][0]["every"].as_u64().expect("thinned");
        assert_eq!(
            samples[1][0].as_u64().expect("a time") - samples[0][0].as_u64().expect("a time"),
            every
        );
        let links: Value = (0..5000).map(|name| link(name, 2)).collect();
        let mut endless = json!({ "links": links, "containers": [] });
        shorten(&mut endless);
        assert!(endless.to_string().len() <= LONGEST);
    }

    #[test]
    fn a_host_is_believed_of_itself_alone() {
        let mut map = json!({
            "containers": [{ "id": "1", "host": "a" }, { "id": "2", "host": "b", "state": "running" }],
            "links": [{ "id": "x", "host": "a" }],
        });
        let part = json!({
            "containers": [{ "id": "2", "host": "b", "state": "exited" }, { "id": "1", "host": "a", "state": "exited" }],
            "links": [{ "id": "y", "host": "b" }, { "id": "z", "host": "a" }],
        });
        merge(&mut map, "b", &part);
        let expected = json!({
            "containers": [{ "id": "1", "host": "a" }, { "id": "2", "host": "b", "state": "exited" }],
            "links": [{ "id": "x", "host": "a" }, { "id": "y", "host": "b" }],
        });
        assert_eq!(map, expected);
    }
}
