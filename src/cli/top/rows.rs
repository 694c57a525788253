//! What the screen shows: four lists, made of what hosts say.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cli::human;
use crate::cli::stats::{binary, block, cpu, memory, memory_percent, network, size};

/// Which list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tab {
    Hosts,
    Containers,
    Links,
    Flows,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Hosts, Self::Containers, Self::Links, Self::Flows];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Hosts => "Hosts",
            Self::Containers => "Containers",
            Self::Links => "Links",
            Self::Flows => "Flows",
        }
    }

    /// The key of each column in JSON, and its header.
    pub(super) fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hosts => &[
                ("host", "HOST"),
                ("address", "ADDRESS"),
                ("state", "STATE"),
                ("containers", "CONTAINERS"),
                ("cpu", "CPU %"),
                ("memory", "MEMORY"),
                ("round_trip_ms", "RTT ms"),
                ("loss", "LOSS %"),
                ("sent", "SENT"),
                ("received", "RECEIVED"),
            ],
            Self::Containers => &[
                ("host", "HOST"),
                ("name", "NAME"),
                ("cpu", "CPU %"),
                ("memory", "MEMORY"),
                ("memory_percent", "MEM %"),
                ("received", "NET IN"),
                ("sent", "NET OUT"),
                ("read", "READ"),
                ("written", "WRITTEN"),
                ("pids", "PIDS"),
            ],
            Self::Links => &[
                ("host", "HOST"),
                ("from", "FROM"),
                ("alias", "ALIAS"),
                ("to", "TO"),
                ("in_rate", "IN/s"),
                ("out_rate", "OUT/s"),
                ("open", "OPEN"),
                ("flows", "FLOWS"),
                ("errors", "ERRORS"),
                ("connect_ms", "CONNECT ms"),
            ],
            Self::Flows => &[
                ("host", "HOST"),
                ("forward", "FORWARD"),
                ("client", "CLIENT"),
                ("endpoint", "ENDPOINT"),
                ("in", "IN"),
                ("out", "OUT"),
                ("age", "AGE s"),
                ("datapath", "DATAPATH"),
            ],
        }
    }
}

/// What stands in a column, and by what it is sorted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64, String),
    /// Not known.
    Nothing,
}

impl Cell {
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
            Self::Nothing => "-",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number, _) => (*number).into(),
            Self::Nothing => Value::Null,
        }
    }

    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Number(a, _), Self::Number(b, _)) => a.total_cmp(b),
            _ => self.shown().cmp(other.shown()),
        }
    }
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What it is about, so that the same line stays chosen when the list is made anew.
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    /// What lines further down belong to it by.
    pub(super) belongs: Vec<String>,
}

/// What a host says; an error tells why it does not.
pub(super) type Told = Result<HostSays, String>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostSays {
    pub(super) stats: Value,
    pub(super) map: Value,
    pub(super) flows: Value,
}

/// What is known of all hosts at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The hosts, this one first.
    pub(super) hosts: Vec<String>,
    pub(super) told: BTreeMap<String, Told>,
}

fn text(value: impl Into<String>) -> Cell {
    Cell::Text(value.into())
}

fn count(value: u64) -> Cell {
    Cell::Number(value as f64, value.to_string())
}

fn bytes(value: u64) -> Cell {
    Cell::Number(value as f64, size(value))
}

fn fine(value: f64, decimals: usize) -> Cell {
    Cell::Number(value, format!("{value:.decimals$}"))
}

fn items<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value[key].as_array().into_iter().flatten()
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

impl Snapshot {
    pub(super) fn rows(&self, tab: Tab) -> Vec<Row> {
        match tab {
            Tab::Hosts => self.host_rows(),
            Tab::Containers => self.each(container_rows),
            Tab::Links => self.each(link_rows),
            Tab::Flows => self.each(flow_rows),
        }
    }

    fn each(&self, rows: fn(&str, &HostSays) -> Vec<Row>) -> Vec<Row> {
        let told = self.told.iter();
        told.filter_map(|(host, told)| Some(rows(host, told.as_ref().ok()?)))
            .flatten()
            .collect()
    }

    fn host_rows(&self) -> Vec<Row> {
        // The ways to the others are as this host sees them.
        let none = Value::Null;
        let own = self.hosts.first().and_then(|own| self.told.get(own));
        let map = own
            .and_then(|own| own.as_ref().ok())
            .map_or(&none, |own| &own.map);
        let row = |name: &String| {
            let known = items(map, "hosts").find(|host| word(host, "name") == name);
            let id = known.map_or("", |host| word(host, "id"));
            let path = items(map, "paths").find(|path| word(path, "to") == id);
            let told = self.told.get(name);
            let says = told.and_then(|told| told.as_ref().ok());
            let state = match (told, known) {
                (Some(Err(error)), _) => error.as_str(),
                (None, _) => "asked",
                _ if name == &self.hosts[0] => "this host",
                (_, Some(host)) if host["alive"] == true => "alive",
                _ => "not heard of",
            };
            let samples = || {
                says.into_iter()
                    .flat_map(|says| items(&says.stats, "containers"))
            };
            let sum = |of: &dyn Fn(&Value) -> f64| samples().map(of).sum::<f64>();
            let used = sum(&|sample| memory(sample).0 as f64);
            let unless_silent = |cell| if says.is_some() { cell } else { Cell::Nothing };
            let along =
                |of: &dyn Fn(&Value) -> Option<Cell>| path.and_then(of).unwrap_or(Cell::Nothing);
            Row {
                key: name.clone(),
                belongs: Vec::new(),
                cells: vec![
                    text(name),
                    text(known.map_or("", |host| word(host, "address"))),
                    text(state),
                    unless_silent(count(samples().count() as u64)),
                    unless_silent(fine(sum(&cpu), 1)),
                    unless_silent(Cell::Number(used, binary(used as u64))),
                    along(&|path| Some(fine(path["round_trip"].as_f64()? * 1000.0, 1))),
                    along(&|path| Some(fine(path["loss"].as_f64()? * 100.0, 0))),
                    along(&|path| Some(bytes(path["sent_bytes"].as_u64()?))),
                    along(&|path| Some(bytes(path["received_bytes"].as_u64()?))),
                ],
            }
        };
        self.hosts.iter().map(row).collect()
    }

    /// All lists, as a document.
    pub(super) fn json(&self) -> Value {
        let list = |tab: Tab| {
            let rows = self.rows(tab).into_iter().map(|row| {
                let keys = tab.columns().iter().map(|(key, _)| (*key).to_owned());
                let fields = keys.zip(row.cells.iter().map(Cell::json));
                Value::Object(fields.collect())
            });
            (tab.title().to_lowercase(), Value::Array(rows.collect()))
        };
        Value::Object(Tab::ALL.into_iter().map(list).collect::<Map<_, _>>())
    }
}

fn container_rows(host: &str, says: &HostSays) -> Vec<Row> {
    let row = |sample: &Value| {
        let (used, _) = memory(sample);
        let ((received, sent), (read, written)) = (network(sample), block(sample));
        let name = word(sample, "name").trim_start_matches('/');
        Row {
            key: word(sample, "id").to_owned(),
            belongs: vec![host.to_owned()],
            cells: vec![
                text(host),
                text(name),
                fine(cpu(sample), 1),
                Cell::Number(used as f64, binary(used)),
                fine(memory_percent(sample), 1),
                bytes(received),
                bytes(sent),
                bytes(read),
                bytes(written),
                count(number(&sample["pids_stats"], "current")),
            ],
        }
    };
    items(&says.stats, "containers").map(row).collect()
}

fn link_rows(host: &str, says: &HostSays) -> Vec<Row> {
    let map = &says.map;
    let name_of = |id: &str| {
        let found = items(map, "containers").find(|one| word(one, "id") == id);
        found.map_or_else(|| id.to_owned(), |one| word(one, "name").to_owned())
    };
    let id_of = |name: &str| {
        let found = items(map, "containers").find(|one| word(one, "name") == name);
        found.map(|one| word(one, "id").to_owned())
    };
    let row = |link: &Value| {
        let from: Vec<&str> = items(link, "from").filter_map(Value::as_str).collect();
        let to: Vec<&str> = items(link, "to").filter_map(Value::as_str).collect();
        let names: Vec<String> = from.iter().map(|id| name_of(id)).collect();
        let carried = &link["carried"];
        let counted = |cell: Cell| {
            if carried.is_null() {
                Cell::Nothing
            } else {
                cell
            }
        };
        let rate = |key: &str| match link["rate"][key].as_f64() {
            Some(rate) => bytes(rate as u64),
            None => Cell::Nothing,
        };
        let connects = number(carried, "connects");
        let took = number(carried, "connect_micros") as f64 / connects.max(1) as f64 / 1000.0;
        let ends = from.iter().map(|id| (*id).to_owned());
        let ends = ends.chain(to.iter().filter_map(|name| id_of(name)));
        Row {
            key: format!("{host} {}", word(link, "id")),
            belongs: ends.chain([host.to_owned()]).collect(),
            cells: vec![
                text(host),
                text(names.join(", ")),
                text(word(link, "alias")),
                text(to.join(", ")),
                rate("bytes_in"),
                rate("bytes_out"),
                counted(count(number(carried, "open"))),
                counted(count(number(carried, "flows"))),
                counted(count(number(carried, "errors"))),
                if connects == 0 {
                    Cell::Nothing
                } else {
                    fine(took, 1)
                },
            ],
        }
    };
    items(map, "links").map(row).collect()
}

fn flow_rows(host: &str, says: &HostSays) -> Vec<Row> {
    let row = |flow: &Value| {
        let age = flow["duration"].as_f64().unwrap_or_default();
        let endpoint = flow["endpoint"].as_str();
        Row {
            key: format!("{host} {}", flow["id"]),
            belongs: vec![format!("{host} {}", word(flow, "forward")), host.to_owned()],
            cells: vec![
                text(host),
                text(word(flow, "forward")),
                text(word(flow, "client")),
                endpoint.map_or(Cell::Nothing, text),
                bytes(number(flow, "bytes_in")),
                bytes(number(flow, "bytes_out")),
                Cell::Number(age, human::duration(age as i64)),
                text(word(flow, "datapath")),
            ],
        }
    };
    says.flows
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Two hosts, of which one says what it has, and one does not answer.
    pub(in crate::cli::top) fn snapshot() -> Snapshot {
        let sample = |name: &str, id: &str, used: u64| {
            json!({"name": format!("/{name}"), "id": id, "pids_stats": {"current": 2},
                "memory_stats": {"usage": used, "limit": 1 << 30},
                "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 10}}})
        };
        let says = HostSays {
            stats: json!({"containers": [sample("web", "a", 1 << 20), sample("api", "c", 5 << 20)]}),
            map: json!({
                "host": "1",
                "hosts": [{"id": "1", "name": "host-1", "address": "10.0.0.1", "alive": true},
                          {"id": "2", "name": "host-2", "address": "10.0.0.2", "alive": true}],
                "containers": [{"id": "a", "name": "web", "host": "1"}, {"id": "b", "name": "db", "host": "2"}],
                "links": [{"id": "link/db/80/tcp", "kind": "link", "alias": "store", "from": ["a"], "to": ["db"],
                           "carried": {"open": 1, "flows": 3, "errors": 0, "connects": 2, "connect_micros": 3000},
                           "rate": {"bytes_in": 10.0, "bytes_out": 2048.0}}],
                "paths": [{"to": "2", "round_trip": 0.0005, "loss": 0.25, "sent_bytes": 1000, "received_bytes": 2000}],
            }),
            flows: json!([{"id": 7, "forward": "link/db/80/tcp", "client": "172.17.0.2:1234", "endpoint": "172.17.1.2:80",
                           "bytes_in": 1234, "bytes_out": 5, "duration": 61.0, "datapath": "splice"}]),
        };
        let told = [
            ("host-1".to_owned(), Ok(says)),
            (
                "host-2".to_owned(),
                Err("host host-2: not reached within 3s".to_owned()),
            ),
        ];
        Snapshot {
            hosts: vec!["host-1".to_owned(), "host-2".to_owned()],
            told: told.into(),
        }
    }

    fn shown(tab: Tab) -> Vec<String> {
        let rows = snapshot().rows(tab);
        rows.iter()
            .map(|row| {
                row.cells
                    .iter()
                    .map(Cell::shown)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[test]
    fn what_hosts_say_is_four_lists() {
        assert_eq!(
            shown(Tab::Hosts),
            [
                "host-1 10.0.0.1 this host 2 0.0 6MiB - - - -",
                "host-2 10.0.0.2 host host-2: not reached within 3s - - - 0.5 25 1kB 2kB",
            ]
        );
        assert_eq!(
            shown(Tab::Containers),
            [
                "host-1 web 0.0 1MiB 0.1 1.5kB 10B 0B 0B 2",
                "host-1 api 0.0 5MiB 0.5 1.5kB 10B 0B 0B 2",
            ]
        );
        assert_eq!(
            shown(Tab::Links),
            ["host-1 web store db 10B 2.05kB 1 3 0 1.5"]
        );
        assert_eq!(
            shown(Tab::Flows),
            ["host-1 link/db/80/tcp 172.17.0.2:1234 172.17.1.2:80 1.23kB 5B About a minute splice"]
        );
    }

    #[test]
    fn the_document_has_numbers_for_numbers() {
        let json = snapshot().json();
        assert_eq!(json["containers"][1]["memory"], 5.0 * 1_048_576.0);
        assert_eq!(json["hosts"][1]["cpu"], Value::Null);
        assert_eq!(json["links"][0]["to"], "db");
        assert_eq!(json["flows"][0]["age"], 61.0);
    }
}
