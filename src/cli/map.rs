//! `map`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::human::size;
use super::output::{line, warn};
use crate::client::Client;

/// Flags of `map`.
#[derive(Args, Debug)]
#[command(
    after_help = "Links are shown with what the asked host's ambassador carries, with --all-nodes with what those of all hosts do; what
goes straight from container to container is not counted.

Examples:
  nuncio map
  nuncio map --all-nodes
  nuncio map --format json --history | jq '.links[] | {id, rate}'"
)]
pub(super) struct MapArgs {
    /// text, or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,

    /// As all hosts of the mesh tell, and not the asked one alone
    #[arg(long)]
    all_nodes: bool,

    /// With json: what each link carried in the last hour
    #[arg(long)]
    history: bool,
}

/// Between two looks, without which there is no rate.
const LOOK: Duration = Duration::from_secs(1);

/// Prints the graph of hosts, containers, services and links.
pub(super) async fn run(args: MapArgs, client: &Client) -> anyhow::Result<u8> {
    let look = || async {
        let call = client.get("/nuncio/v1/map");
        let call = call
            .flag("history", args.history)
            .flag("all", args.all_nodes);
        anyhow::Ok(call.send().await?.json::<Value>().await?)
    };
    look().await?;
    tokio::time::sleep(LOOK).await;
    let map = look().await?;
    for host in items(&map, "unheard").filter_map(Value::as_str) {
        warn(&format!(
            "{host} did not answer: it is shown as others know it"
        ));
    }
    match args.format.as_str() {
        "json" => line(&map.to_string())?,
        _ => text(&map).iter().try_for_each(|text| line(text))?,
    }
    Ok(0)
}

fn items<'m>(map: &'m Value, key: &str) -> impl Iterator<Item = &'m Value> + use<'m> {
    map[key].as_array().into_iter().flatten()
}

fn word<'m>(value: &'m Value, key: &str) -> &'m str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a link begins at the container.
fn begins_at(link: &Value, id: &str) -> bool {
    items(link, "from").any(|from| from == id)
}

fn text(map: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for host in items(map, "hosts") {
        let id = word(host, "id");
        out.push(format!(
            "{} {}{}",
            word(host, "name"),
            word(host, "address"),
            way_to(map, host)
        ));
        for container in items(map, "containers").filter(|one| word(one, "host") == id) {
            let networks = container["networks"].as_object().into_iter().flatten();
            let networks =
                networks.map(|(name, at)| format!("{name} {}", at.as_str().unwrap_or_default()));
            let networks: Vec<_> = networks.collect();
            let (name, state) = (word(container, "name"), word(container, "state"));
            out.push(format!("  {name}  {state}  {}", networks.join(", ")));
            let links = items(map, "links");
            for link in links.filter(|link| begins_at(link, word(container, "id"))) {
                let alias = link["alias"]
                    .as_str()
                    .map_or_else(String::new, |alias| format!(" as {alias}"));
                out.push(format!("    -> {}{alias}  {}", targets(link), passes(link)));
            }
        }
    }
    for link in items(map, "links").filter(|link| begins_at(link, "outside")) {
        let port = word(link, "id").trim_start_matches("publish/");
        out.push(format!("outside, by {port}"));
        out.push(format!("    -> {}  {}", targets(link), passes(link)));
    }
    for service in items(map, "services") {
        let id = word(service, "id");
        let names = items(service, "members").map(|member| name_of(map, member));
        let names: Vec<_> = names.collect();
        out.push(format!("{id}: {}", names.join(", ")));
        for link in items(map, "links").filter(|link| items(link, "to").any(|to| to == id)) {
            out.push(format!("    {}  {}", word(link, "id"), passes(link)));
        }
    }
    out
}

fn name_of(map: &Value, id: &Value) -> String {
    let found = items(map, "containers").find(|container| container["id"] == *id);
    found.map_or_else(
        || id.as_str().unwrap_or_default().to_owned(),
        |one| word(one, "name").to_owned(),
    )
}

fn way_to(map: &Value, host: &Value) -> String {
    if host["id"] == map["host"] {
        return "  this host".to_owned();
    }
    let alive = if host["alive"] == true {
        "alive"
    } else {
        "not heard of"
    };
    let Some(path) = items(map, "paths").find(|path| path["to"] == host["id"]) else {
        return format!("  {alive}");
    };
    let reached = match (&path["around"], &path["reachable"]) {
        (Value::Bool(true), _) => ", by TLS",
        (_, Value::Bool(false)) => ", not reached by VXLAN",
        _ => "",
    };
    let trip = path["round_trip"].as_f64();
    let trip = trip.map_or_else(String::new, |seconds| {
        format!(", round trip {:.1} ms", seconds * 1000.0)
    });
    let loss = path["loss"].as_f64().unwrap_or_default() * 100.0;
    let bytes = |key: &str| size(path[key].as_i64().unwrap_or_default());
    format!(
        "  {alive}{reached}{trip}, loss {loss:.0} %, sent {}, received {}",
        bytes("sent_bytes"),
        bytes("received_bytes")
    )
}

fn targets(link: &Value) -> String {
    let targets: Vec<_> = items(link, "to").filter_map(Value::as_str).collect();
    targets.join(", ")
}

/// What passes by a link, as far as that is counted.
fn passes(link: &Value) -> String {
    let carried = &link["carried"];
    if carried.is_null() {
        return "straight, not counted".to_owned();
    }
    let number = |key: &str| carried[key].as_u64().unwrap_or_default();
    let rate = |key: &str| size(link["rate"][key].as_f64().unwrap_or_default() as i64);
    let latency = match number("connects") {
        0 => String::new(),
        connects => format!(
            ", connects in {:.1} ms",
            number("connect_micros") as f64 / connects as f64 / 1000.0
        ),
    };
    format!(
        "{}/s there, {}/s back, {} open of {} flows, {} errors{latency}",
        rate("bytes_in"),
        rate("bytes_out"),
        number("open"),
        number("flows"),
        number("errors")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_graph_is_told_host_by_host() {
        let map = json!({
            "host": "1",
            "hosts": [{"id": "1", "name": "host-1", "address": "10.0.0.1", "alive": true},
                      {"id": "2", "name": "host-2", "address": "10.0.0.2", "alive": true}],
            "containers": [{"id": "a", "name": "web", "host": "1", "state": "running", "networks": {"bridge": "172.17.1.2"}},
                           {"id": "b", "name": "store", "host": "2", "state": "running", "networks": {}}],
            "services": [],
            "links": [{"id": "link/store/80/tcp", "kind": "link", "alias": "db", "from": ["a"], "to": ["store"],
                       "carried": {"open": 1, "flows": 3, "errors": 0, "connects": 2, "connect_micros": 3000},
                       "rate": {"bytes_in": 10.0, "bytes_out": 2048.0}}],
            "paths": [{"to": "2", "reachable": true, "round_trip": 0.0005, "loss": 0.25, "around": false,
                       "sent_bytes": 1000, "received_bytes": 2000}],
        });
        let expected = [
            "host-1 10.0.0.1  this host",
            "  web  running  bridge 172.17.1.2",
            "    -> store as db  10B/s there, 2.05kB/s back, 1 open of 3 flows, 0 errors, connects in 1.5 ms",
            "host-2 10.0.0.2  alive, round trip 0.5 ms, loss 25 %, sent 1kB, received 2kB",
            "  store  running  ",
        ];
        assert_eq!(text(&map), expected);
    }
}
