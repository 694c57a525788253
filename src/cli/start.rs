//! `start` and `attach`.

use anyhow::bail;
use bollard_stubs::models::ContainerInspectResponse;
use clap::Args;

use super::container_body::Streams;
use super::failure::each;
use super::output::line;
use super::session::{Ended, Session, Signals};
use super::wait::{Condition, Exit};
use crate::client::Client;
use crate::detach_keys::DetachKeys;

/// Flags of `start`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio start db web
  nuncio start -ai shell")]
pub(super) struct StartArgs {
    /// Attach to the output, pass signals on, and exit as the container does
    #[arg(short, long)]
    attach: bool,

    /// Attach to the input, too
    #[arg(short, long)]
    interactive: bool,

    /// Keys that leave the container running, as ctrl-a,b
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Starts containers, and prints their names as given.
pub(super) async fn start(args: StartArgs, client: &Client) -> anyhow::Result<u8> {
    if !args.attach && !args.interactive {
        return each(&args.containers, async |container| {
            client
                .post(&format!("/containers/{container}/start"))
                .send()
                .await?;
            line(container)
        })
        .await;
    }
    let [container] = args.containers.as_slice() else {
        bail!("you cannot start and attach multiple containers at once");
    };
    let input = args.interactive;
    stay(
        client,
        container,
        Join {
            start: true,
            input,
            proxy: true,
            keys: args.detach_keys,
        },
    )
    .await
}

/// Flags of `attach`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio attach shell       ctrl-p ctrl-q leaves it running")]
pub(super) struct AttachArgs {
    /// Do not attach to the input
    #[arg(long)]
    no_stdin: bool,

    /// Pass signals on to the container, unless it has a terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,

    /// Keys that leave the container running, as ctrl-a,b
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,

    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Attaches to a container that runs.
pub(super) async fn attach(args: AttachArgs, client: &Client) -> anyhow::Result<u8> {
    let input = !args.no_stdin;
    stay(
        client,
        &args.container,
        Join {
            start: false,
            input,
            proxy: args.sig_proxy,
            keys: args.detach_keys,
        },
    )
    .await
}

struct Join {
    /// Whether the container is to be started.
    start: bool,
    input: bool,
    proxy: bool,
    keys: Option<DetachKeys>,
}

async fn stay(client: &Client, container: &str, join: Join) -> anyhow::Result<u8> {
    let found = client
        .get(&format!("/containers/{container}/json"))
        .send()
        .await?;
    let found: ContainerInspectResponse = found.json().await?;
    let state = found.state.unwrap_or_default();
    if !join.start && state.paused == Some(true) {
        bail!("you cannot attach to a paused container, unpause it first");
    }
    if !join.start && state.running != Some(true) {
        bail!(
            "you cannot attach to a stopped container, start it first: nuncio start -a {container}"
        );
    }
    let config = found.config.unwrap_or_default();
    let tty = config.tty.unwrap_or_default();
    let stdin = join.input && config.open_stdin == Some(true);
    let id = found.id.unwrap_or_else(|| container.to_owned());
    let path = format!("/containers/{id}");
    let streams = Streams {
        stdin,
        stdout: true,
        stderr: true,
    };
    let session = Session {
        client,
        target: path.clone(),
        tty,
        streams,
        keys: join.keys,
    };
    let mut signals = if join.proxy && !tty {
        Signals::proxied()?
    } else {
        Signals::own()?
    };
    let call = client
        .post(&format!("{path}/attach"))
        .query("stream", "1")
        .flag("stdin", stdin);
    let (stream, _) = call
        .query("stdout", "1")
        .query("stderr", "1")
        .hijack()
        .await?;
    let removes = found.host_config.and_then(|host| host.auto_remove) == Some(true);
    let condition = match (join.start, removes) {
        (_, true) => Condition::Removed,
        (true, false) => Condition::NextExit,
        (false, false) => Condition::NotRunning,
    };
    let exit = Exit::watch(client, &id, condition).await?;
    if join.start {
        client.post(&format!("{path}/start")).send().await?;
    }
    match session.run(stream, &mut signals).await? {
        Ended::Output => exit.code().await,
        Ended::Detached => Ok(0),
        Ended::Signal(number) => Ok(128 + u8::try_from(number).unwrap_or(0)),
    }
}
