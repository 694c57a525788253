//! `compose logs`, and what is shown while `compose up` stays.

use anyhow::Context as _;
use bytes::BytesMut;
use clap::Args;
use serde_json::Value;
use tokio::task::JoinSet;

use super::file::Project;
use super::up::{containers, tell};
use crate::cli::frames::{Frames, Stream};
use crate::cli::output::{warn, write_err, write_out};
use crate::cli::parse::Moment;
use crate::client::Client;

/// Flags of `compose logs`.
#[derive(Args, Debug)]
pub(super) struct LogsArgs {
    /// Go on as the containers print
    #[arg(short, long)]
    follow: bool,

    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,

    /// Leave out which container a line is of
    #[arg(long)]
    no_log_prefix: bool,

    /// Taken for docker-compose's sake: there are no colours
    #[arg(long)]
    no_color: bool,

    /// Show what was printed since then: a time, or how long ago as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Show what was printed before then
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// How many lines of each to show from the end
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,

    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// The longest line that is shown in one piece.
const LONGEST: usize = 1 << 20;

/// What is asked for of each container.
#[derive(Clone, Default)]
struct Asked {
    follow: bool,
    timestamps: bool,
    since: Option<String>,
    until: Option<String>,
    tail: String,
}

pub(super) async fn run(args: LogsArgs, project: &Project, client: &Client) -> anyhow::Result<u8> {
    let name = project.name.as_deref().unwrap_or_default();
    let found = containers(name, client).await?.into_iter();
    let chosen: Vec<_> = found
        .filter(|one| args.services.is_empty() || args.services.contains(&one.service))
        .map(|one| (one.id, format!("{}-{}", one.service, one.number)))
        .collect();
    let asked = Asked {
        follow: args.follow,
        timestamps: args.timestamps,
        since: args.since.map(Moment::api),
        until: args.until.map(Moment::api),
        tail: args.tail.clone(),
    };
    let heads = heads(&chosen, args.no_log_prefix);
    let mut all = JoinSet::new();
    for ((id, _), head) in chosen.into_iter().zip(heads) {
        all.spawn(show(client.clone(), id, head, asked.clone()));
    }
    while let Some(shown) = all.join_next().await {
        shown.context("show what a container printed")??;
    }
    Ok(0)
}

/// Shows what containers print until all have ended. SIGINT or SIGTERM stops them first.
///
/// # Errors
///
/// The daemon's words.
pub(super) async fn stay(
    containers: &[(String, String)],
    timeout: Option<i64>,
    client: &Client,
) -> anyhow::Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("catch signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("catch signals")?;
    let asked = Asked {
        follow: true,
        tail: "all".to_owned(),
        ..Asked::default()
    };
    let mut all = JoinSet::new();
    for ((id, _), head) in containers.iter().zip(heads(containers, false)) {
        all.spawn(show(client.clone(), id.clone(), head, asked.clone()));
    }
    let ended = async {
        while let Some(shown) = all.join_next().await {
            shown.context("show what a container printed")??;
        }
        anyhow::Ok(())
    };
    tokio::pin!(ended);
    let interrupted = tokio::select! {
        done = &mut ended => {
            done?;
            false
        }
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    if !interrupted {
        return codes(containers, client).await;
    }
    warn("Gracefully stopping...");
    let stops = containers.iter().map(|(id, name)| async move {
        let call = client.post(&format!("/containers/{id}/stop"));
        let timeout = timeout.map(|seconds| seconds.to_string());
        match call.optional("t", timeout).send().await {
            Ok(_) => tell("Container", name, "Stopped"),
            Err(error) => tell("Container", name, &format!("is left: {error}")),
        }
    });
    tokio::select! {
        _ = futures_util::future::join_all(stops) => {}
        // who presses it twice does not want to wait
        _ = interrupt.recv() => {}
    }
    Ok(130)
}

/// Tells how each ended; the first failure is the exit status.
async fn codes(containers: &[(String, String)], client: &Client) -> anyhow::Result<u8> {
    let mut first = 0;
    for (id, name) in containers {
        let call = client.get(&format!("/containers/{id}/json"));
        let container: Value = call.send().await?.json().await?;
        let code = container["State"]["ExitCode"].as_u64().unwrap_or_default();
        warn(&format!("{name} exited with code {code}"));
        if first == 0 {
            first = u8::try_from(code).unwrap_or(1);
        }
    }
    Ok(first)
}

/// `web-1  | `, in a column.
fn heads(containers: &[(String, String)], none: bool) -> Vec<String> {
    let widest = containers
        .iter()
        .map(|(_, name)| name.len())
        .max()
        .unwrap_or_default();
    let head = |name: &str| match none {
        true => String::new(),
        false => format!("{name:<widest$}  | "),
    };
    containers.iter().map(|(_, name)| head(name)).collect()
}

async fn show(client: Client, id: String, head: String, asked: Asked) -> anyhow::Result<()> {
    let call = client.get(&format!("/containers/{id}/json"));
    let container: Value = call.send().await?.json().await?;
    let tty = container["Config"]["Tty"].as_bool().unwrap_or_default();
    let call = client
        .get(&format!("/containers/{id}/logs"))
        .query("stdout", "1")
        .query("stderr", "1")
        .flag("follow", asked.follow)
        .flag("timestamps", asked.timestamps)
        .optional("since", asked.since)
        .optional("until", asked.until)
        .query("tail", asked.tail);
    let mut answer = call.send().await?;
    let mut frames = Frames::default();
    let mut partial: [BytesMut; 2] = Default::default();
    while let Some(chunk) = answer.chunk().await? {
        if tty {
            lines(Stream::Out, &chunk, &mut partial, &head)?;
            continue;
        }
        frames.push(&chunk);
        while let Some((stream, bytes)) = frames.next()? {
            lines(stream, &bytes, &mut partial, &head)?;
        }
    }
    for stream in [Stream::Out, Stream::Err] {
        if !partial[usize::from(stream == Stream::Err)].is_empty() {
            lines(stream, b"\n", &mut partial, &head)?;
        }
    }
    Ok(())
}

/// Prints the lines that are whole now.
fn lines(
    stream: Stream,
    bytes: &[u8],
    partial: &mut [BytesMut; 2],
    head: &str,
) -> anyhow::Result<()> {
    let partial = &mut partial[usize::from(stream == Stream::Err)];
    partial.extend_from_slice(bytes);
    loop {
        let end = partial.iter().position(|byte| *byte == b'\n');
        let Some(end) = end.or((partial.len() > LONGEST).then_some(LONGEST)) else {
            return Ok(());
        };
        let line = partial.split_to(end + 1);
        let text = [head.as_bytes(), &line[..]].concat();
        match stream {
            Stream::Out => write_out(&text)?,
            Stream::Err => write_err(&text)?,
        }
    }
}
