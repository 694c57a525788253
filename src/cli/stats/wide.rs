//! `stats --all-nodes`: what containers take on all hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{CLEAR, COLUMNS, FIELDS, REDRAW, StatsArgs, fields};
use crate::cli::hosts::{Complaints, HostName, hosts, words};
use crate::cli::list::List;
use crate::cli::output::{warn, write_out};
use crate::client::Client;

/// How long a host may take to say what its containers take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After which one that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What a host said last.
type Told = Result<Vec<Value>, String>;

pub(super) async fn run(args: &StatsArgs, client: &Client) -> anyhow::Result<u8> {
    let hosts = hosts(client).await?;
    if args.no_stream {
        once(args, client, hosts).await
    } else {
        again_and_again(args, client, hosts).await
    }
}

async fn once(args: &StatsArgs, client: &Client, hosts: Vec<HostName>) -> anyhow::Result<u8> {
    let mut asked = JoinSet::new();
    for host in hosts {
        let (client, all) = (client.clone(), args.all);
        asked.spawn(async move {
            let call = host.get(&client, "/nuncio/v1/stats").flag("all", all);
            let answer = async { anyhow::Ok(call.send().await?.json::<Value>().await?) };
            let answer = timeout(PATIENCE, answer).await;
            let answer = answer.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}"));
            (host.name, answer)
        });
    }
    let (mut told, mut complaints) = (BTreeMap::new(), Complaints::default());
    while let Some(answer) = asked.join_next().await {
        match answer? {
            (host, Ok(answer)) => _ = told.insert(host, Ok(containers(&answer))),
            (host, Err(error)) => complaints.silent(&host, &error),
        }
    }
    let rows = rows(args, &told);
    for name in &args.containers {
        if !rows.iter().any(|row| is_named(row, name)) {
            bail!("No such container: {name}");
        }
    }
    show(args, rows)?;
    Ok(0)
}

async fn again_and_again(
    args: &StatsArgs,
    client: &Client,
    hosts: Vec<HostName>,
) -> anyhow::Result<u8> {
    let (sender, mut news) = mpsc::channel::<(String, Told)>(64);
    let mut watched = JoinSet::new();
    for host in hosts {
        watched.spawn(watch(client.clone(), host, args.all, sender.clone()));
    }
    let mut told = BTreeMap::new();
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clears = args
        .format
        .as_deref()
        .is_none_or(|format| format.starts_with("table"));
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            Some((host, said)) = news.recv() => drop(told.insert(host, said)),
            _ = redraw.tick() => {
                if clears {
                    write_out(CLEAR.as_bytes())?;
                } else {
                    known.retain(|host| told.get(host).is_some_and(Result::is_err));
                }
                show(args, rows(args, &told))?;
                for (host, said) in &told {
                    // Where nothing is erased, once is enough.
                    if let Err(error) = said && (clears || known.insert(host.clone())) {
                        warn(&format!("nuncio: {error}"));
                    }
                }
            }
        }
    }
}

/// Hears what a host says each second, and asks it again when it does not.
async fn watch(client: Client, host: HostName, all: bool, sender: mpsc::Sender<(String, Told)>) {
    loop {
        let hear = async {
            let call = host.get(&client, "/nuncio/v1/stats");
            let answer = call.flag("stream", true).flag("all", all).send().await?;
            let mut lines = answer.lines();
            loop {
                let Ok(line) = timeout(PATIENCE, lines.next_json::<Value>()).await else {
                    bail!("nothing was heard of it for {PATIENCE:?}");
                };
                let Some(line) = line? else {
                    bail!("nothing more is heard of it");
                };
                if let Some(error) = line["error"].as_str() {
                    bail!("{error}");
                }
                let said = (host.name.clone(), Ok(containers(&line)));
                if sender.send(said).await.is_err() {
                    return anyhow::Ok(());
                }
            }
        };
        let Err(error) = hear.await else { return };
        let said = (host.name.clone(), Err(words(&host.name, &error)));
        if sender.send(said).await.is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

fn containers(line: &Value) -> Vec<Value> {
    line["containers"].as_array().cloned().unwrap_or_default()
}

type Row = Map<String, Value>;

fn rows(args: &StatsArgs, told: &BTreeMap<String, Told>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (host, samples) in told {
        for sample in samples.iter().flatten() {
            let id = sample["id"].as_str().unwrap_or_default();
            let mut row = fields(id, Some(sample), args.no_trunc);
            row.insert("Node".to_owned(), host.as_str().into());
            let wanted = &args.containers;
            if wanted.is_empty()
                || wanted
                    .iter()
                    .any(|name| is_named(&row, name) || name.len() >= 4 && id.starts_with(name))
            {
                rows.push(row);
            }
        }
    }
    rows
}

fn is_named(row: &Row, name: &str) -> bool {
    let is = |field: &str| row[field].as_str().unwrap_or_default();
    is("Name") == name
        || name.len() >= 4 && (is("ID").starts_with(name) || name.starts_with(is("ID")))
}

fn show(args: &StatsArgs, rows: Vec<Row>) -> anyhow::Result<()> {
    let list = List {
        fields: FIELDS,
        columns: ["Node"].into_iter().chain(COLUMNS).collect(),
        rows,
    };
    list.print(args.format.as_deref())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: StatsArgs,
    }

    #[test]
    fn containers_of_all_hosts_are_rows_and_those_that_are_named_alone() {
        let sample =
            |name: &str, id: &str| json!({"name": format!("/{name}"), "id": id.repeat(64)});
        let told = BTreeMap::from([
            ("b".to_owned(), Ok(vec![sample("db", "1")])),
            (
                "a".to_owned(),
                Ok(vec![sample("web", "2"), sample("db", "3")]),
            ),
            ("c".to_owned(), Err("host c: cut".to_owned())),
        ]);
        let shown = |flags: &[&str]| {
            let Line { args } = Line::try_parse_from(flags).expect("flags");
            let rows = rows(&args, &told);
            rows.iter()
                .map(|row| format!("{} {}", row["Node"], row["Name"]).replace('"', ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&["x"]), ["a web", "a db", "b db"]);
        assert_eq!(shown(&["x", "db"]), ["a db", "b db"]);
        assert_eq!(shown(&["x", "22222"]), ["a web"]);
    }
}
