//! Which containers' logs are meant, on whatever hosts they are.

use std::time::Duration;

use anyhow::bail;
use bollard_stubs::models::ContainerSummary;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::hosts::{Complaints, HostName};
use crate::client::{Client, ClientError};

/// Logs that are read at once.
const MOST: usize = 500;
/// How long a host may take to say which containers it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container whose log is read.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) host: HostName,
    pub(super) id: String,
    pub(super) name: String,
}

/// What is asked for: names, what holds for all others, and both ends of a link.
pub(super) struct Wanted<'a> {
    pub(super) names: &'a [String],
    pub(super) filters: Option<&'a str>,
    pub(super) link: Option<(&'a str, &'a str)>,
}

/// The containers of `hosts` that are meant.
///
/// # Errors
///
/// If one that is named is nowhere, or the filters are none.
pub(super) async fn choose(
    client: &Client,
    hosts: &[HostName],
    wanted: &Wanted<'_>,
    complaints: &mut Complaints,
) -> anyhow::Result<Vec<Chosen>> {
    let mut names = wanted.names.to_vec();
    if let Some((consumer, target)) = wanted.link {
        let all = list(client, hosts, None, complaints).await?;
        let Some(consumer) = all.iter().find(|found| found.name == consumer) else {
            bail!("No such container: {consumer}");
        };
        names.push(consumer.name.clone());
        names.extend(ends(client, consumer, target, &all).await?);
    }
    let by_name = wanted.filters.is_none() || !names.is_empty();
    let found = list(client, hosts, wanted.filters, complaints).await?;
    if !by_name {
        return bounded(found);
    }
    for name in &names {
        if !found.iter().any(|one| is_named(one, name)) {
            bail!("No such container: {name}");
        }
    }
    let meant = |one: &Chosen| names.iter().any(|name| is_named(one, name));
    bounded(found.into_iter().filter(meant).collect())
}

fn bounded(found: Vec<Chosen>) -> anyhow::Result<Vec<Chosen>> {
    if found.len() > MOST {
        bail!(
            "{} containers are meant: at most {MOST} logs are read at once, so say which by --filter",
            found.len()
        );
    }
    Ok(found)
}

fn is_named(one: &Chosen, name: &str) -> bool {
    one.name == name || name.len() >= 4 && one.id.starts_with(name)
}

/// All containers of the hosts that answer.
async fn list(
    client: &Client,
    hosts: &[HostName],
    filters: Option<&str>,
    complaints: &mut Complaints,
) -> anyhow::Result<Vec<Chosen>> {
    let lists = hosts.iter().map(|host| async {
        let call = host.get(client, "/containers/json").flag("all", true);
        let call = call.optional("filters", filters);
        let listed = async { call.send().await?.json::<Vec<ContainerSummary>>().await };
        match timeout(PATIENCE, listed).await {
            Ok(listed) => listed.map_err(anyhow::Error::from),
            Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
        }
    });
    let mut found = Vec::new();
    for (host, listed) in hosts.iter().zip(join_all(lists).await) {
        match listed {
            Ok(listed) => {
                complaints.answers(&host.name);
                found.extend(listed.into_iter().filter_map(|one| chosen(host, one)));
            }
            Err(error)
                if error
                    .downcast_ref()
                    .is_some_and(ClientError::is_bad_request) =>
            {
                return Err(error);
            }
            Err(error) => complaints.silent(&host.name, &error),
        }
    }
    Ok(found)
}

/// Under its own name, which is the one without further slashes: the others are those that links give it.
fn chosen(host: &HostName, one: ContainerSummary) -> Option<Chosen> {
    let names = one.names.unwrap_or_default();
    let own = names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'))?;
    Some(Chosen {
        host: host.clone(),
        name: own.to_owned(),
        id: one.id?,
    })
}

/// The names of who is at the other end of a link, which is called by its alias or by who that is.
async fn ends(
    client: &Client,
    consumer: &Chosen,
    target: &str,
    all: &[Chosen],
) -> anyhow::Result<Vec<String>> {
    let call = consumer.host.get(client, "/nuncio/v1/map");
    let map: Value = call.send().await?.json().await?;
    let ends = ends_in(&map, &consumer.id, target);
    if ends.is_empty() {
        bail!(
            "{} has no link {target}, as far as its host says: see `nuncio map`",
            consumer.name
        );
    }
    let known = |end: &String| all.iter().any(|one| one.name == *end);
    Ok(ends.into_iter().filter(known).collect())
}

fn ends_in(map: &Value, consumer: &str, target: &str) -> Vec<String> {
    let items = |key: &str| map[key].as_array().into_iter().flatten();
    let links = items("links").filter(|link| {
        let mut from = link["from"].as_array().into_iter().flatten();
        let mut to = link["to"].as_array().into_iter().flatten();
        from.any(|id| id == consumer) && (link["alias"] == target || to.any(|name| name == target))
    });
    let to = links.flat_map(|link| link["to"].as_array().into_iter().flatten());
    to.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_end_of_a_link_is_found_by_its_alias_and_by_its_name() {
        let map = json!({"links": [
            {"alias": "db", "from": ["a"], "to": ["store"]},
            {"alias": "db", "from": ["b"], "to": ["other"]},
            {"alias": null, "from": ["outside"], "to": ["web"]},
        ]});
        assert_eq!(ends_in(&map, "a", "db"), ["store"]);
        assert_eq!(ends_in(&map, "a", "store"), ["store"]);
        assert_eq!(ends_in(&map, "b", "db"), ["other"]);
        assert!(ends_in(&map, "a", "other").is_empty());
    }
}
