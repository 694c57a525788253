//! `events`.

use clap::Args;

use super::list::filters;
use super::output::line;
use super::parse::Moment;
use crate::client::Client;

/// Flags of `events`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio events --since 1h
  nuncio events --filter container=web | jq .Action")]
pub(super) struct EventsArgs {
    /// Show what happened since then: a time, or how long ago as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Show what happens before then, and end
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// Show that for which this holds
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Prints what happens, a line of JSON each.
pub(super) async fn run(args: EventsArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get("/events")
        .optional("since", args.since.map(Moment::api))
        .optional("until", args.until.map(Moment::api))
        .optional("filters", filters(&args.filter)?);
    let mut lines = call.send().await?.lines();
    while let Some(event) = lines.next().await? {
        line(&String::from_utf8_lossy(&event))?;
    }
    Ok(0)
}
