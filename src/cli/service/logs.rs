//! `service logs`.

use std::collections::BTreeMap;
use std::str;

use anyhow::{Context as _, bail};
use bollard_stubs::models::Task;
use bytes::BytesMut;
use clap::Args;

use super::wire;
use crate::cli::frames::{Frames, Stream};
use crate::cli::human;
use crate::cli::output::{write_err, write_out};
use crate::cli::parse::{Filter, Moment};
use crate::cli::tasks::{self, Names};
use crate::client::Client;

/// Flags of `service logs`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service logs -f --tail 100 web
  nuncio service logs --raw TASK")]
pub(super) struct LogsArgs {
    /// Go on as the tasks print
    #[arg(short, long)]
    follow: bool,

    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,

    /// Begin each line with what was noted with it
    #[arg(long)]
    details: bool,

    /// Show ids of services and nodes rather than names
    #[arg(long)]
    no_resolve: bool,

    /// Leave out ids of tasks
    #[arg(long)]
    no_task_ids: bool,

    /// Show ids of tasks in full
    #[arg(long)]
    no_trunc: bool,

    /// Show what was printed, without whose it is
    #[arg(long)]
    raw: bool,

    /// Show what was printed since then: a time, or how long ago as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// How many lines to show from the end
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,

    #[arg(value_name = "SERVICE|TASK")]
    what: String,
}

/// What notes of a line say whose it is.
const NODE: &str = "com.docker.swarm.node.id";
const SERVICE: &str = "com.docker.swarm.service.id";
const TASK: &str = "com.docker.swarm.task.id";

/// The longest line that is shown in one piece.
const LONGEST: usize = 1 << 20;

pub(super) async fn run(args: LogsArgs, client: &Client) -> anyhow::Result<u8> {
    let (path, tty) = find(&args.what, client).await?;
    let call = client
        .get(&path)
        .query("stdout", "1")
        .query("stderr", "1")
        .flag("follow", args.follow)
        .flag("timestamps", args.timestamps)
        // Whose a line is stands in its notes.
        .flag("details", !args.raw || args.details)
        .optional("since", args.since.map(Moment::api))
        .query("tail", &args.tail);
    let mut answer = call.send().await?;
    let mut lines = Lines {
        writer: Writer {
            names: match args.no_resolve {
                true => Names::default(),
                false => Names::ask(client).await?,
            },
            slots: BTreeMap::new(),
            args,
        },
        partial: Default::default(),
    };
    let mut frames = Frames::default();
    while let Some(chunk) = answer.chunk().await? {
        if tty {
            lines.push(Stream::Out, &chunk, client).await?;
            continue;
        }
        frames.push(&chunk);
        while let Some((stream, bytes)) = frames.next()? {
            lines.push(stream, &bytes, client).await?;
        }
    }
    frames.finish()?;
    lines.finish(client).await?;
    Ok(0)
}

/// The logs of a service, else of a task by that id; and whether they have terminals, whose output is in no frames.
async fn find(what: &str, client: &Client) -> anyhow::Result<(String, bool)> {
    let is_tty = |spec: Option<bollard_stubs::models::TaskSpec>| {
        let container = spec.and_then(|spec| spec.container_spec);
        container
            .and_then(|container| container.tty)
            .unwrap_or_default()
    };
    match wire::service(client, what).await {
        Ok(service) => {
            let task = service.spec.and_then(|spec| spec.task_template);
            let id = service.id.unwrap_or_default();
            Ok((format!("/services/{id}/logs"), is_tty(task)))
        }
        Err(error) => {
            let Ok(answer) = client.get(&format!("/tasks/{what}")).send().await else {
                return Err(error.context(format!("no such task or service: {what}")));
            };
            let task: Task = answer.json().await?;
            let id = task.id.unwrap_or_default();
            Ok((format!("/tasks/{id}/logs"), is_tty(task.spec)))
        }
    }
}

/// Lines out of pieces, of each stream by itself.
struct Lines {
    writer: Writer,
    partial: [BytesMut; 2],
}

impl Lines {
    async fn push(&mut self, stream: Stream, bytes: &[u8], client: &Client) -> anyhow::Result<()> {
        let partial = &mut self.partial[usize::from(stream == Stream::Err)];
        partial.extend_from_slice(bytes);
        loop {
            let end = partial.iter().position(|byte| *byte == b'\n');
            let Some(end) = end.or((partial.len() > LONGEST).then_some(LONGEST)) else {
                return Ok(());
            };
            let line = partial.split_to(end + 1);
            self.writer.write(stream, &line, client).await?;
        }
    }

    /// What came without an end.
    async fn finish(&mut self, client: &Client) -> anyhow::Result<()> {
        for (at, stream) in [(0, Stream::Out), (1, Stream::Err)] {
            let line = std::mem::take(&mut self.partial[at]);
            if !line.is_empty() {
                self.writer.write(stream, &line, client).await?;
            }
        }
        Ok(())
    }
}

/// Says whose each line is.
struct Writer {
    args: LogsArgs,
    names: Names,
    /// What tasks are called, by id.
    slots: BTreeMap<String, String>,
}

impl Writer {
    async fn write(&mut self, stream: Stream, line: &[u8], client: &Client) -> anyhow::Result<()> {
        let out = |bytes: &[u8]| match stream {
            Stream::Out => write_out(bytes),
            Stream::Err => write_err(bytes),
        };
        if self.args.raw {
            return out(line);
        }
        let parts: Vec<&[u8]> = line
            .splitn(2 + usize::from(self.args.timestamps), |byte| *byte == b' ')
            .collect();
        let (time, notes, text) = match parts[..] {
            [notes, text] if !self.args.timestamps => (None, notes, text),
            [time, notes, text] => (Some(time), notes, text),
            _ => bail!(
                "invalid context in log message: {}",
                String::from_utf8_lossy(line)
            ),
        };
        let mut notes = notes_of(str::from_utf8(notes).context("read the notes of a line")?);
        let [node, _, task] =
            [NODE, SERVICE, TASK].map(|key| notes.remove(key).unwrap_or_default());
        let mut bytes = Vec::with_capacity(line.len() + 64);
        if let Some(time) = time {
            bytes.extend_from_slice(time);
            bytes.push(b' ');
        }
        let whose = self.whose(&task, &node, client).await?;
        bytes.extend_from_slice(format!("{whose}    | ").as_bytes());
        if self.args.details && !notes.is_empty() {
            let pairs = notes.iter().map(|(key, value)| format!("{key}={value}"));
            bytes.extend_from_slice(pairs.collect::<Vec<_>>().join(",").as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(text);
        out(&bytes)
    }

    /// As `web.1.TASK@NODE`.
    async fn whose(&mut self, task: &str, node: &str, client: &Client) -> anyhow::Result<String> {
        if !self.slots.contains_key(task) {
            let found = tasks::tasks(&[Filter::new("id", task)], client).await?;
            let name = found.first().map(|task| self.names.task(task));
            let name = name.unwrap_or_else(|| task.to_owned());
            self.slots.insert(task.to_owned(), name);
        }
        let name = &self.slots[task];
        let id = match (self.args.no_task_ids, self.args.no_trunc) {
            (true, _) => String::new(),
            (false, true) => format!(".{task}"),
            (false, false) => format!(".{}", human::short_id(task)),
        };
        let widest = self
            .slots
            .values()
            .map(String::len)
            .max()
            .unwrap_or_default();
        let padding = " ".repeat(widest - name.len());
        Ok(format!("{name}{id}@{}{padding}", self.names.of(node)))
    }
}

/// `a=1,b=2`, written as in a URL.
fn notes_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (unescaped(key), unescaped(value)))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let byte = match (first, others) {
            (b'%', [high, low, ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).ok();
                digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn notes() {
        let notes = notes_of("com.docker.swarm.task.id=t1,a%2Fb=c+d%20%zz");
        assert_eq!(notes[TASK], "t1");
        assert_eq!(notes["a/b"], "c d %zz");
        assert!(notes_of("").is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,32}") {
            let _ = notes_of(&text);
        }
    }
}
