//! `stack ls`, `stack ps` and `stack services`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::{NAMESPACE, of, service, warn};
use crate::cli::list::{List, row};
use crate::cli::output::write_out;
use crate::cli::parse::Filter;
use crate::cli::tasks::{self, TaskFlags};
use crate::client::Client;

/// Flags of `stack ls`.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Flags of `stack ps`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio stack ps shop
  nuncio stack ps --watch -f desired-state=running shop")]
pub(super) struct PsArgs {
    #[command(flatten)]
    flags: TaskFlags,

    /// Show them again and again
    #[arg(short, long)]
    watch: bool,

    #[arg(value_name = "STACK")]
    stack: String,
}

/// Flags of `stack services`.
#[derive(Args, Debug)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    listed: service::ListedFlags,

    #[arg(value_name = "STACK")]
    stack: String,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn stacks(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let services = service::services(&[Filter::new("label", NAMESPACE)], client).await?;
    let mut stacks = BTreeMap::<String, usize>::new();
    for service in services {
        let labels = service
            .spec
            .and_then(|spec| spec.labels)
            .unwrap_or_default();
        if let Some(stack) = labels.get(NAMESPACE) {
            *stacks.entry(stack.clone()).or_default() += 1;
        }
    }
    let list = List {
        fields: &[("Name", "NAME"), ("Services", "SERVICES")],
        columns: vec!["Name", "Services"],
        rows: stacks
            .into_iter()
            .map(|(name, services)| row([("Name", name), ("Services", services.to_string())]))
            .collect(),
    };
    list.print(args.format.as_deref())?;
    Ok(0)
}

pub(super) async fn tasks(args: PsArgs, client: &Client) -> anyhow::Result<u8> {
    let mut filter = args.flags.filter.clone();
    filter.push(of(&args.stack));
    let found = tasks::tasks(&filter, client).await?;
    if found.is_empty() {
        bail!("nothing found in stack: {}", args.stack);
    }
    loop {
        if args.watch && std::io::stdout().is_terminal() {
            // from the top left corner, with nothing below
            write_out(b"\x1b[H\x1b[2J")?;
        }
        tasks::print(&filter, &args.flags, client).await?;
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) async fn services(args: ServicesArgs, client: &Client) -> anyhow::Result<u8> {
    let mut filter = args.listed.filter.clone();
    filter.push(of(&args.stack));
    let services = service::with_status(&filter, client).await?;
    if services.is_empty() {
        warn(&format!("Nothing found in stack: {}", args.stack));
        return Ok(0);
    }
    service::print_list(&services, &args.listed)?;
    Ok(0)
}
