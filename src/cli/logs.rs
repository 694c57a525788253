//! `logs`.

mod chosen;
mod wide;

use std::str::FromStr;

use bollard_stubs::models::ContainerInspectResponse;
use clap::Args;

use super::parse::{Filter, Moment};
use super::session::Printer;
use crate::client::Client;

/// Flags of `logs`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Of several containers lines are shown in the order of their times, after the name of who printed them.

Examples:
  nuncio logs -f --tail 100 web
  nuncio logs --since 10m web
  nuncio logs -f web db
  nuncio logs --all-nodes --filter label=app=shop     of all hosts
  nuncio logs -f --link web:db                        both ends of a link, on whatever hosts they are"
)]
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
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,

    /// Show what was printed before then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,

    /// How many lines to show from the end
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,

    /// Look on all hosts
    #[arg(long)]
    all_nodes: bool,

    /// Show those of all containers for which this holds, as label=app=shop or name=web
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// Show those of both ends of a link: of the container, and of what it reaches by that alias or name
    #[arg(long, value_name = "CONTAINER:ALIAS", conflicts_with = "filter")]
    link: Option<Ends>,

    /// Do not begin lines with names
    #[arg(long)]
    no_log_prefix: bool,

    #[arg(value_name = "CONTAINER", required_unless_present_any = ["filter", "link"])]
    containers: Vec<String>,
}

/// A container and what it calls who it is linked to.
#[derive(Clone, Debug)]
pub(super) struct Ends(String, String);

/// Not a link.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no link: expected CONTAINER:ALIAS, as web:db")]
pub(super) struct NotALink(String);

impl FromStr for Ends {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, NotALink> {
        match text.split_once(':') {
            Some((consumer, alias)) if !consumer.is_empty() && !alias.is_empty() => {
                Ok(Self(consumer.to_owned(), alias.to_owned()))
            }
            _ => Err(NotALink(text.to_owned())),
        }
    }
}

/// Prints what a container printed, each stream to its own.
pub(super) async fn run(args: LogsArgs, client: &Client) -> anyhow::Result<u8> {
    let since = Moment::asked("since", args.since.as_deref())?;
    let until = Moment::asked("until", args.until.as_deref())?;
    let is_one = !args.all_nodes && args.link.is_none() && args.filter.is_empty();
    let ([container], true) = (&args.containers[..], is_one) else {
        return wide::run(&args, [since, until], client).await;
    };
    let path = format!("/containers/{container}");
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
        .optional("since", since.map(Moment::api))
        .optional("until", until.map(Moment::api))
        .query("tail", args.tail);
    let mut answer = call.send().await?;
    let mut printer = Printer::new(tty);
    while let Some(chunk) = answer.chunk().await? {
        printer.print(&chunk)?;
    }
    printer.finish()?;
    Ok(0)
}
