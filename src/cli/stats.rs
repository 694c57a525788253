//! `stats`.

mod wide;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bollard_stubs::models::ContainerSummary;
use clap::Args;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::failure::complain;
use super::human;
use super::list::{List, row};
use super::output::write_out;
use crate::client::Client;

/// How often the table is drawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How often it is looked which containers there are.
const LOOK: Duration = Duration::from_secs(2);
/// Erases the screen and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";
const UNKNOWN: &str = "--";

/// Flags of `stats`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  nuncio stats                          all that run, again and again
  nuncio stats --no-stream web
  nuncio stats --no-stream --format '{{.Name}}: {{.MemUsage}}'
  nuncio stats --all-nodes              of all hosts")]
pub(super) struct StatsArgs {
    /// Show all, not only those that run
    #[arg(short, long)]
    all: bool,

    /// Show it once
    #[arg(long)]
    no_stream: bool,

    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show those of all hosts
    #[arg(long)]
    all_nodes: bool,

    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Node", "NODE"),
];
const COLUMNS: [&str; 8] = [
    "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs",
];

pub(super) async fn run(args: StatsArgs, client: &Client) -> anyhow::Result<u8> {
    if args.all_nodes {
        return wide::run(&args, client).await;
    }
    let mut rows = BTreeMap::new();
    for container in chosen(&args, client).await? {
        let path = format!("/containers/{container}/json");
        if !args.containers.is_empty() {
            client.get(&path).send().await?; // one that is not there is an error
        }
        rows.insert(container, None);
    }
    if args.no_stream {
        once(&args, client, rows).await
    } else {
        again_and_again(&args, client, rows).await
    }
}

/// The containers asked for, as asked; else the ids of those that run.
async fn chosen(args: &StatsArgs, client: &Client) -> anyhow::Result<Vec<String>> {
    if !args.containers.is_empty() {
        return Ok(args.containers.clone());
    }
    let call = client.get("/containers/json").flag("all", args.all);
    let found: Vec<ContainerSummary> = call.send().await?.json().await?;
    Ok(found
        .into_iter()
        .filter_map(|container| container.id)
        .collect())
}

/// By container as asked for; `None` before the first answer.
type Rows = BTreeMap<String, Option<Value>>;

async fn once(args: &StatsArgs, client: &Client, mut rows: Rows) -> anyhow::Result<u8> {
    let mut looks = JoinSet::new();
    for container in rows.keys().cloned() {
        let client = client.clone();
        looks.spawn(async move {
            let path = format!("/containers/{container}/stats");
            let call = client.get(&path).query("stream", "0");
            let answer = async { call.send().await?.json::<Value>().await }.await;
            (container, answer)
        });
    }
    let mut code = 0;
    while let Some(look) = looks.join_next().await {
        let (container, answer) = look?;
        match answer {
            Ok(answer) => {
                rows.insert(container, Some(answer));
            }
            Err(error) => {
                complain(&error.into());
                rows.remove(&container);
                code = 1;
            }
        }
    }
    show(args, &rows)?;
    Ok(code)
}

async fn again_and_again(args: &StatsArgs, client: &Client, mut rows: Rows) -> anyhow::Result<u8> {
    let (sender, mut news) = mpsc::channel(64);
    let mut watched = JoinSet::new();
    let watch = |watched: &mut JoinSet<()>, container: &str| {
        let (client, sender, container) = (client.clone(), sender.clone(), container.to_owned());
        watched.spawn(async move {
            let path = format!("/containers/{container}/stats");
            // One that is gone has no more to say; the list tells.
            if let Ok(answer) = client.get(&path).query("stream", "1").send().await {
                let mut lines = answer.lines();
                while let Ok(Some(sample)) = lines.next_json::<Value>().await {
                    if let Some(error) = sample["error"].as_str() {
                        complain(&anyhow::anyhow!("{error}"));
                        break;
                    }
                    if sender
                        .send((container.clone(), Some(sample)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            let _ = sender.send((container, None)).await;
        });
    };
    for container in rows.keys() {
        watch(&mut watched, container);
    }
    let (mut redraw, mut look) = (interval(REDRAW), interval(LOOK));
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clears = args
        .format
        .as_deref()
        .is_none_or(|format| format.starts_with("table"));
    loop {
        tokio::select! {
            Some((container, sample)) = news.recv() => match sample {
                Some(sample) => { rows.insert(container, Some(sample)); }
                None => { rows.remove(&container); }
            },
            Some(_) = watched.join_next(), if !watched.is_empty() => {}
            _ = look.tick(), if args.containers.is_empty() => {
                for container in chosen(args, client).await? {
                    if let Entry::Vacant(row) = rows.entry(container) {
                        watch(&mut watched, row.key());
                        row.insert(None);
                    }
                }
            }
            _ = redraw.tick() => {
                if rows.is_empty() && !args.containers.is_empty() {
                    return Ok(0); // all that was asked for is gone
                }
                if clears {
                    write_out(CLEAR.as_bytes())?;
                }
                show(args, &rows)?;
            }
        }
    }
}

fn show(args: &StatsArgs, rows: &Rows) -> anyhow::Result<()> {
    let list = List {
        fields: FIELDS,
        columns: COLUMNS.to_vec(),
        rows: in_order(args, rows)
            .map(|(container, sample)| fields(container, sample.as_ref(), args.no_trunc))
            .collect(),
    };
    list.print(args.format.as_deref())
}

/// As they were asked for, else by id.
fn in_order<'r>(
    args: &StatsArgs,
    rows: &'r Rows,
) -> impl Iterator<Item = (&'r String, &'r Option<Value>)> {
    let mut rows: Vec<_> = rows.iter().collect();
    let place = |container: &String| args.containers.iter().position(|one| one == container);
    rows.sort_by_key(|(container, _)| place(container));
    rows.into_iter()
}

fn fields(container: &str, sample: Option<&Value>, whole: bool) -> Map<String, Value> {
    let known = |make: &dyn Fn(&Value) -> String| sample.map_or_else(|| UNKNOWN.to_owned(), make);
    let id = |sample: &Value| {
        let id = sample["id"].as_str().unwrap_or_default();
        if whole { id } else { human::short_id(id) }.to_owned()
    };
    let name = |sample: &Value| {
        let name = sample["name"].as_str().unwrap_or_default();
        name.trim_start_matches('/').to_owned()
    };
    let both = |(first, second): (u64, u64)| format!("{} / {}", size(first), size(second));
    let memory = |sample: &Value| {
        let (used, limit) = memory(sample);
        format!("{} / {}", binary(used), binary(limit))
    };
    let shortened = if whole || container.len() != 64 {
        container
    } else {
        human::short_id(container)
    };
    row([
        ("Container", shortened.to_owned()),
        ("ID", known(&id)),
        ("Name", known(&name)),
        ("CPUPerc", known(&|sample| format!("{:.2}%", cpu(sample)))),
        ("MemUsage", known(&memory)),
        (
            "MemPerc",
            known(&|sample| format!("{:.2}%", memory_percent(sample))),
        ),
        ("NetIO", known(&|sample| both(network(sample)))),
        ("BlockIO", known(&|sample| both(block(sample)))),
        (
            "PIDs",
            known(&|sample| number(&sample["pids_stats"]["current"]).to_string()),
        ),
    ])
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Of one processor; several can be more than 100.
pub(super) fn cpu(sample: &Value) -> f64 {
    let passed = |of: &dyn Fn(&Value) -> u64| {
        of(&sample["cpu_stats"]) as f64 - of(&sample["precpu_stats"]) as f64
    };
    let used = passed(&|stats| number(&stats["cpu_usage"]["total_usage"]));
    let machine = passed(&|stats| number(&stats["system_cpu_usage"]));
    if used > 0.0 && machine > 0.0 {
        used / machine * number(&sample["cpu_stats"]["online_cpus"]) as f64 * 100.0
    } else {
        0.0
    }
}

/// What is used without caches that can be dropped, and the limit.
pub(super) fn memory(sample: &Value) -> (u64, u64) {
    let memory = &sample["memory_stats"];
    let usage = number(&memory["usage"]);
    let details = &memory["stats"];
    let inactive = match &details["total_inactive_file"] {
        Value::Null => &details["inactive_file"],
        v1 => v1,
    };
    let used = usage.checked_sub(number(inactive)).unwrap_or(usage);
    (used, number(&memory["limit"]))
}

pub(super) fn memory_percent(sample: &Value) -> f64 {
    match memory(sample) {
        (_, 0) => 0.0,
        (used, limit) => used as f64 / limit as f64 * 100.0,
    }
}

pub(super) fn network(sample: &Value) -> (u64, u64) {
    let devices = sample["networks"].as_object();
    let sum = |name: &str| {
        let all = devices.into_iter().flat_map(Map::values);
        all.map(|device| number(&device[name])).sum()
    };
    (sum("rx_bytes"), sum("tx_bytes"))
}

pub(super) fn block(sample: &Value) -> (u64, u64) {
    let entries = sample["blkio_stats"]["io_service_bytes_recursive"].as_array();
    let sum = |op: &str| {
        let all = entries.into_iter().flatten();
        let of = all.filter(|entry| {
            entry["op"]
                .as_str()
                .is_some_and(|name| name.eq_ignore_ascii_case(op))
        });
        of.map(|entry| number(&entry["value"])).sum()
    };
    (sum("read"), sum("write"))
}

pub(super) fn size(bytes: u64) -> String {
    human::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// `bytes` with a unit of powers of 1024 and four significant digits, as `1.5GiB`.
pub(super) fn binary(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let digits = format!("{value:.decimals$}");
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => &digits,
    };
    format!("{digits}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_dockers() {
        let sample = json!({
            "id": "ab".repeat(32), "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
            "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 1}, "eth1": {"rx_bytes": 500, "tx_bytes": 2}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "Read", "value": 1000}, {"op": "write", "value": 5}, {"op": "Total", "value": 9}]},
            "pids_stats": {"current": 4},
        });
        let row = fields("web", Some(&sample), false);
        for (field, expected) in [
            ("Container", "web"),
            ("ID", "abababababab"),
            ("Name", "web"),
            ("CPUPerc", "20.00%"),
            ("MemUsage", "2MiB / 8MiB"),
            ("MemPerc", "25.00%"),
            ("NetIO", "2kB / 3B"),
            ("BlockIO", "1kB / 5B"),
            ("PIDs", "4"),
        ] {
            assert_eq!(row[field], expected, "{field}");
        }
        assert_eq!(fields("web", None, false)["CPUPerc"], UNKNOWN);
        assert_eq!(fields("web", Some(&json!({})), false)["MemPerc"], "0.00%");
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (123_456_789, "117.7MiB"),
            (16 << 30, "16GiB"),
        ] {
            assert_eq!(binary(bytes), expected);
        }
    }
}
