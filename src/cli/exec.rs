//! `exec`.

use std::path::PathBuf;
use std::time::Duration;

use bollard_stubs::models::{ExecConfig, ExecInspectResponse, ExecStartConfig, IdResponse};
use clap::Args;

use super::container_body::Streams;
use super::failure::Failure;
use super::parse::{EnvVar, read_env_file};
use super::session::{Ended, Session, Signals};
use super::terminal;
use crate::client::{Client, ClientError};
use crate::detach_keys::DetachKeys;

/// Flags of `exec`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio exec -it web sh
  nuncio exec -e DEBUG=1 -w /srv web make check

The exit status is that of the command; 126 if it cannot be run, 127 if it cannot be found.")]
pub(super) struct ExecArgs {
    /// Leave the command running
    #[arg(short, long)]
    detach: bool,

    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,

    /// Set a variable, or pass one on by its name
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvVar>,

    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Give the command all of the host's rights
    #[arg(long)]
    privileged: bool,

    /// Keys that leave the command running, as ctrl-a,b
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,

    #[arg(value_name = "CONTAINER")]
    container: String,

    #[arg(value_name = "COMMAND", required = true)]
    command: Vec<String>,
}

/// Runs a command in a container, and exits as it does.
pub(super) async fn run(args: ExecArgs, client: &Client) -> Result<u8, Failure> {
    exec(&args, client)
        .await
        .map_err(|error| Failure::new(code_of(&error), error))
}

/// As the shell has it, from the daemon's words.
fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(ClientError::Refused { message, .. })
            if message.contains("executable file not found") =>
        {
            127
        }
        Some(ClientError::Refused { message, .. }) if message.contains("permission denied") => 126,
        _ => 1,
    }
}

async fn exec(args: &ExecArgs, client: &Client) -> anyhow::Result<u8> {
    let stdin = args.interactive && !args.detach;
    terminal::check(args.tty, stdin)?;
    let call = client
        .post(&format!("/containers/{}/exec", args.container))
        .json(&config(args)?);
    let created: IdResponse = call.send().await?.json().await?;
    let path = format!("/exec/{}", created.id);
    let size = args.tty.then(terminal::size).flatten();
    let start = ExecStartConfig {
        detach: Some(args.detach),
        tty: Some(args.tty),
        console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
    };
    let call = client.post(&format!("{path}/start")).json(&start);
    if args.detach {
        call.send().await?;
        return Ok(0);
    }
    let streams = Streams {
        stdin,
        stdout: true,
        stderr: true,
    };
    let session = Session {
        client,
        target: path.clone(),
        tty: args.tty,
        streams,
        keys: args.detach_keys.clone(),
    };
    let mut signals = Signals::own()?;
    let (stream, _) = call.hijack().await?;
    match session.run(stream, &mut signals).await? {
        Ended::Output => {}
        Ended::Detached => return Ok(0),
        Ended::Signal(number) => return Ok(128 + u8::try_from(number).unwrap_or(0)),
    }
    tokio::select! {
        code = exit_code(client, &path) => code,
        number = signals.next() => Ok(128 + u8::try_from(number).unwrap_or(0)),
    }
}

/// Waits for the exit status of a command whose output is over.
///
/// The API cannot be waited on for an exec: it is asked again, ever more rarely.
async fn exit_code(client: &Client, path: &str) -> anyhow::Result<u8> {
    let mut pause = Duration::from_millis(5);
    loop {
        let answer = client.get(&format!("{path}/json")).send().await?;
        let exec: ExecInspectResponse = answer.json().await?;
        if let Some(code) = exec.exit_code {
            return Ok((code & 0xff) as u8);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

/// The longest pause between two questions.
const MOST_PAUSE: Duration = Duration::from_millis(500);

fn config(args: &ExecArgs) -> anyhow::Result<ExecConfig> {
    let mut variables = Vec::new();
    for path in &args.env_file {
        variables.extend(read_env_file(path)?);
    }
    variables.extend(args.env.iter().cloned());
    let inherited = |name: &str| std::env::var(name).ok();
    Ok(ExecConfig {
        attach_stdin: Some(args.interactive && !args.detach),
        attach_stdout: Some(!args.detach),
        attach_stderr: Some(!args.detach),
        tty: Some(args.tty),
        env: Some(
            variables
                .iter()
                .filter_map(|variable| variable.resolve(inherited))
                .collect(),
        ),
        cmd: Some(args.command.clone()),
        privileged: Some(args.privileged),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        ..ExecConfig::default()
    })
}
