//! `run` and `create`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bollard_stubs::models::{ContainerCreateBody, ContainerCreateResponse};
use clap::Args;

use super::container_body::{Streams, create_body};
use super::container_flags::ContainerFlags;
use super::failure::{DAEMON_FAILED, Failure};
use super::output::{line, warn};
use super::pull::{Progress, pull};
use super::session::{Ended, Session, Signals};
use super::terminal::{self, NotATerminal};
use super::wait::{Condition, Exit};
use crate::client::{Client, ClientError};
use crate::detach_keys::DetachKeys;

/// Flags of `run`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// Leave the container running, and print its id
    #[arg(short, long)]
    detach: bool,

    /// Pass signals on to the container, unless it has a terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,

    /// Keys that leave the container running, as ctrl-a,b
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,

    #[command(flatten)]
    container: ContainerFlags,
}

const EXAMPLES: &str = "\
Examples:
  nuncio run --rm -it redis sh                      look around in an image
  nuncio run -d --name db -p 6379:6379 redis        serve, on a port of this host
  nuncio run --rm --link db:redis redis redis-cli -h redis ping
                                                    talk to db by the name redis, from any host
  nuncio run -d --network mesh --name db2 redis     be found as db2 by all in the network mesh

The exit status is that of the container; 125 if nuncio fails, 126 if the command cannot be
run, 127 if it cannot be found. ctrl-p ctrl-q leaves a container that has a terminal running.";

/// Flags of `create`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Example:
  nuncio create --name db redis && nuncio start db"
)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    container: ContainerFlags,
}

/// Creates a container and prints its id.
pub(super) async fn create(args: CreateArgs, client: &Client) -> anyhow::Result<u8> {
    let flags = &args.container;
    let body = create_body(flags, Streams::of(flags))?;
    line(&create_container(client, flags, &body).await?)?;
    Ok(0)
}

/// Creates a container, starts it, and stays with it unless it is detached.
pub(super) async fn run(args: RunArgs, client: &Client) -> Result<u8, Failure> {
    let help = "Run 'nuncio run --help' for more information";
    let failed = |error: anyhow::Error| Failure::new(start_failure(&error), error).hint(help);
    let (id, streams) = prepare(&args, client).await.map_err(failed)?;
    let ended = if args.detach || !streams.any() {
        detach(client, &id).await
    } else {
        stay(&args, client, &id, streams).await
    };
    match ended {
        Ok(code) => Ok(code),
        Err(Stay::Start(error)) => {
            if !args.container.rm {
                remove(client, &id, &error).await;
            }
            Err(failed(error))
        }
        Err(Stay::Run(error)) => Err(Failure::new(DAEMON_FAILED, error)),
    }
}

async fn detach(client: &Client, id: &str) -> Result<u8, Stay> {
    let start = client.post(&format!("/containers/{id}/start"));
    start
        .send()
        .await
        .map_err(|error| Stay::Start(error.into()))?;
    line(id).map_err(Stay::Run)?;
    Ok(0)
}

/// Takes back a container whose start the daemon refused, so that the same command can be given again.
async fn remove(client: &Client, id: &str, refused: &anyhow::Error) {
    if !matches!(refused.downcast_ref(), Some(ClientError::Refused { .. })) {
        return; // it may run
    }
    let removal = client.delete(&format!("/containers/{id}")).send();
    match tokio::time::timeout(REMOVAL, removal).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn(&format!("nuncio: container {id} is left: {error}")),
        Err(_) => warn(&format!("nuncio: container {id} is not removed yet")),
    }
}

/// Checks the flags and creates the container.
async fn prepare(args: &RunArgs, client: &Client) -> anyhow::Result<(String, Streams)> {
    let flags = &args.container;
    if args.detach && !flags.attach.is_empty() {
        bail!("conflicting options: cannot specify both --attach and --detach");
    }
    let streams = if args.detach {
        Streams::default()
    } else {
        Streams::of(flags)
    };
    terminal::check(flags.tty, streams.stdin)?;
    let body = create_body(flags, streams)?;
    Ok((create_container(client, flags, &body).await?, streams))
}

/// Where a container that is stayed with failed.
enum Stay {
    /// Before it ran.
    Start(anyhow::Error),
    Run(anyhow::Error),
}

/// How long a container that did not start may take to be removed.
const REMOVAL: Duration = Duration::from_secs(10);

async fn stay(args: &RunArgs, client: &Client, id: &str, streams: Streams) -> Result<u8, Stay> {
    let start = |error: ClientError| Stay::Start(error.into());
    let flags = &args.container;
    let path = format!("/containers/{id}");
    let session = Session {
        client,
        target: path.clone(),
        tty: flags.tty,
        streams,
        keys: args.detach_keys.clone(),
    };
    // from here on a signal is the container's
    let signals = if args.sig_proxy && !flags.tty {
        Signals::proxied()
    } else {
        Signals::own()
    };
    let mut signals = signals.map_err(Stay::Start)?;
    let attach = client
        .post(&format!("{path}/attach"))
        .query("stream", "1")
        .flag("stdin", streams.stdin)
        .flag("stdout", streams.stdout)
        .flag("stderr", streams.stderr);
    let (stream, _) = attach.hijack().await.map_err(start)?;
    let condition = if flags.rm {
        Condition::Removed
    } else {
        Condition::NextExit
    };
    let exit = Exit::watch(client, id, condition).await.map_err(start)?;
    if let Err(error) = client.post(&format!("{path}/start")).send().await {
        if flags.rm && tokio::time::timeout(REMOVAL, exit.code()).await.is_err() {
            warn(&format!("nuncio: container {id} is not removed yet"));
        }
        return Err(start(error));
    }
    match session.run(stream, &mut signals).await.map_err(Stay::Run)? {
        Ended::Output => exit.code().await.map_err(Stay::Run),
        Ended::Detached => Ok(0),
        Ended::Signal(number) => Ok(128 + u8::try_from(number).unwrap_or(0)),
    }
}

/// Creates the container, and pulls its image if it is missing.
async fn create_container(
    client: &Client,
    flags: &ContainerFlags,
    body: &ContainerCreateBody,
) -> anyhow::Result<String> {
    let id_file = flags.cidfile.as_deref().map(IdFile::claim).transpose()?;
    let image = &flags.image;
    let platform = flags.platform.as_deref();
    let progress = match flags.quiet {
        true => Progress::None,
        false => Progress::Stderr,
    };
    if flags.pull == "always" {
        pull(client, image, platform, progress).await?;
    }
    let create = || {
        let call = client.post("/containers/create");
        call.optional("name", flags.name.as_deref())
            .optional("platform", platform)
            .json(body)
            .send()
    };
    let answer = match create().await {
        Err(error) if flags.pull == "missing" && is_image_missing(&error) => {
            if !flags.quiet {
                warn(&format!("Unable to find image '{image}' locally"));
            }
            pull(client, image, platform, progress).await?;
            create().await?
        }
        answer => answer?,
    };
    let created: ContainerCreateResponse = answer.json().await?;
    for warning in &created.warnings {
        warn(&format!("WARNING: {warning}"));
    }
    if let Some(file) = id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

fn is_image_missing(error: &ClientError) -> bool {
    // a missing network or link is not found, too
    error.is_not_found() && error.to_string().to_lowercase().contains("no such image")
}

/// A file made for the container's id, and removed again if there is none.
struct IdFile<'a> {
    path: &'a Path,
    written: bool,
}

impl<'a> IdFile<'a> {
    fn claim(path: &'a Path) -> anyhow::Result<Self> {
        let claimed = OpenOptions::new().write(true).create_new(true).open(path);
        claimed.with_context(|| {
            format!(
                "create the container ID file {}: it must not be there yet",
                path.display()
            )
        })?;
        Ok(Self {
            path,
            written: false,
        })
    }

    fn write(mut self, id: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.path)?;
        file.write_all(id.as_bytes())
            .with_context(|| format!("write {}", self.path.display()))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // it is empty, and in nobody's way but that of a second try
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// The exit status for a container that did not start, from the daemon's words as Docker's client has it.
fn start_failure(error: &anyhow::Error) -> u8 {
    if error.is::<NotATerminal>() {
        return 1;
    }
    let Some(ClientError::Refused { message, .. }) = error.downcast_ref() else {
        return DAEMON_FAILED;
    };
    let has = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        DAEMON_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_words_give_the_exit_status() {
        let code = |message: &str| {
            let status = hyper::StatusCode::BAD_REQUEST;
            start_failure(
                &ClientError::Refused {
                    status,
                    message: message.to_owned(),
                }
                .into(),
            )
        };
        assert_eq!(
            code("exec: \"nope\": executable file not found in $PATH"),
            127
        );
        assert_eq!(
            code("exec: \"/nope\": stat /nope: no such file or directory"),
            127
        );
        assert_eq!(code("exec: \"/etc/passwd\": permission denied"), 126);
        assert_eq!(code("exec: \"/etc\": is a directory"), 126);
        assert_eq!(
            code("Conflict. The container name \"/x\" is already in use"),
            125
        );
        assert_eq!(
            start_failure(&anyhow::anyhow!("no such file or directory")),
            125
        );
    }
}
