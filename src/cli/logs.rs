//! `logs`.

use bollard_stubs::models::ContainerInspectResponse;
use clap::Args;

use super::parse::Moment;
use super::session::Printer;
use crate::client::Client;

/// Flags of `logs`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio logs -f --tail 100 web
  nuncio logs --since 10m web")]
pub(super) struct LogsArgs {
    /// Go on as the container prints
    #[arg(short, long)]
    follow: bool,

    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,

    /// Begin each line with what was noted with it
    #[arg(long)]
    details: bool,

    /// Show what was printed since then: a time, or how long ago as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Show what was printed before then
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// How many lines to show from the end
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,

    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Prints what a container printed, each stream to its own.
pub(super) async fn run(args: LogsArgs, client: &Client) -> anyhow::Result<u8> {
    let path = format!("/containers/{}", args.container);
    let container: ContainerInspectResponse = client
        .get(&format!("{path}/json"))
        .send()
        .await?
        .json()
        .await?;
    let tty = container
        .config
        .and_then(|config| config.tty)
        .unwrap_or_default();
    let call = client
        .get(&format!("{path}/logs"))
        .query("stdout", "1")
        .query("stderr", "1")
        .flag("follow", args.follow)
        .flag("timestamps", args.timestamps)
        .flag("details", args.details)
        .optional("since", args.since.map(Moment::api))
        .optional("until", args.until.map(Moment::api))
        .query("tail", args.tail);
    let mut answer = call.send().await?;
    let mut printer = Printer::new(tty);
    while let Some(chunk) = answer.chunk().await? {
        printer.print(&chunk)?;
    }
    printer.finish()?;
    Ok(0)
}
