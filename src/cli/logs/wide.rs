//! Logs of several containers, on whatever hosts they are, in the order of their times.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval_at};

use super::LogsArgs;
use super::chosen::{Chosen, Wanted, choose};
use crate::cli::gather::{Gather, Next};
use crate::cli::hosts::{Complaints, HostName, hosts};
use crate::cli::list::filters;
use crate::cli::output::{write_err, write_out};
use crate::cli::parse::Moment;
use crate::client::Client;

/// How often it is looked whether there are further containers for which the filters hold.
const LOOK: Duration = Duration::from_secs(2);
/// The terminal's colours for names, one after the other.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
/// Bytes of a line without an end that are kept together.
const LONGEST: usize = 64 << 10;

/// A log that is read.
struct Log {
    name: String,
    colour: Option<&'static str>,
}

/// What is read, and what is to be read later.
struct Reading<'a> {
    args: &'a LogsArgs,
    until: Option<Moment>,
    client: &'a Client,
    hosts: Vec<HostName>,
    /// Ids of the containers that are read.
    read: BTreeSet<String>,
    gather: Gather<Log>,
    complaints: Complaints,
    /// Letters of the longest name.
    width: usize,
}

/// Prints what the containers print, each line after the name of who printed it.
pub(super) async fn run(
    args: &LogsArgs,
    [since, until]: [Option<Moment>; 2],
    client: &Client,
) -> anyhow::Result<u8> {
    let mut hosts = hosts(client).await?;
    if !args.all_nodes && args.link.is_none() {
        hosts.truncate(1); // this one is the first
    }
    let mut reading = Reading {
        args,
        until,
        client,
        hosts,
        read: BTreeSet::new(),
        gather: Gather::new(args.follow),
        complaints: Complaints::default(),
        width: 0,
    };
    reading.look(since).await?;
    let mut look = interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looks = args.follow && !args.filter.is_empty() && args.containers.is_empty();
    loop {
        let next = tokio::select! {
            next = reading.gather.next() => next?,
            _ = look.tick(), if looks => {
                let began = Moment::before_now(LOOK * 2);
                reading.look(Some(began)).await?;
                continue;
            }
        };
        match next {
            Some(Next::Line(log, line)) => {
                print(args, log, reading.width, &line)?;
            }
            Some(Next::End(log, error)) => {
                if let Some(error) = error {
                    let name = log.name.clone();
                    reading.complaints.silent(&name, &error);
                }
            }
            None if looks => _ = look.tick().await,
            None => return Ok(0),
        }
    }
}

impl Reading<'_> {
    /// Begins to read what is meant and not read yet, since that time.
    async fn look(&mut self, since: Option<Moment>) -> anyhow::Result<()> {
        let filters = filters(&self.args.filter);
        let wanted = Wanted {
            names: &self.args.containers,
            filters: filters.as_deref(),
            link: self.args.link.as_ref().map(|link| (&*link.0, &*link.1)),
        };
        let found = choose(self.client, &self.hosts, &wanted, &mut self.complaints).await?;
        let several =
            |one: &Chosen| found.iter().filter(|other| other.name == one.name).count() > 1;
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for one in &found {
            if !self.read.insert(one.id.clone()) {
                continue;
            }
            let name = match several(one) {
                true => format!("{}/{}", one.host.name, one.name),
                false => one.name.clone(),
            };
            self.width = self.width.max(name.chars().count());
            let colour = coloured.then(|| COLOURS[(self.read.len() - 1) % COLOURS.len()]);
            let (client, one, args) = (self.client.clone(), one.clone(), self.args.clone());
            let until = self.until;
            let ask = async move {
                let path = format!("/nuncio/v1/containers/{}/logs", one.id);
                let call = one.host.get(&client, &path);
                call.query("stdout", "1")
                    .query("stderr", "1")
                    .flag("follow", args.follow)
                    .optional("since", since.map(Moment::api))
                    .optional("until", until.map(Moment::api))
                    .query("tail", args.tail)
                    .send()
                    .await
            };
            self.gather.add(Log { name, colour }, ask, time);
        }
        Ok(())
    }
}

fn time(line: &Value) -> Timestamp {
    let time = line["time"].as_str().and_then(|time| time.parse().ok());
    time.unwrap_or_default()
}

fn print(args: &LogsArgs, log: &Log, width: usize, line: &Value) -> anyhow::Result<()> {
    let text = shown(args, log, width, line);
    match line["stream"] == "stderr" {
        true => write_err(text.as_bytes()),
        false => write_out(text.as_bytes()),
    }
}

/// With an end of line, also where a long line goes on: the next may be another's.
fn shown(args: &LogsArgs, log: &Log, width: usize, line: &Value) -> String {
    let mut out = String::new();
    if !args.no_log_prefix {
        let name = &log.name;
        out += &match log.colour {
            Some(colour) => format!("\x1b[{colour}m{name:width$}  |\x1b[0m "),
            None => format!("{name:width$}  | "),
        };
    }
    if args.timestamps {
        out += line["time"].as_str().unwrap_or_default();
        out.push(' ');
    }
    if args.details {
        out.push(' ');
    }
    let text = line["text"].as_str().unwrap_or_default();
    out += text.get(..LONGEST).unwrap_or(text).trim_end_matches('\n');
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LogsArgs,
    }

    #[test]
    fn lines_stand_after_names() {
        let log = Log {
            name: "web".to_owned(),
            colour: None,
        };
        let line =
            json!({"time": "2026-01-01T00:00:00.000000001Z", "stream": "stdout", "text": "hi\n"});
        for (flags, expected) in [
            (&["x", "a", "b"][..], "web    | hi\n"),
            (
                &["x", "a", "-t"],
                "web    | 2026-01-01T00:00:00.000000001Z hi\n",
            ),
            (&["x", "a", "--no-log-prefix"], "hi\n"),
        ] {
            let Line { args } = Line::try_parse_from(flags).expect("flags");
            assert_eq!(shown(&args, &log, 5, &line), expected);
        }
    }
}
