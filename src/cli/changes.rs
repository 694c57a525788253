//! `diff` and `export`: what became of a container's files.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Deserialize;

use super::archive::receive;
use super::output::line;
use crate::client::Client;

/// Arguments of `diff`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio diff web        A: added, C: changed, D: deleted")]
pub(super) struct DiffArgs {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    path: String,
    kind: u8,
}

pub(super) async fn diff(args: DiffArgs, client: &Client) -> anyhow::Result<u8> {
    let path = format!("/containers/{}/changes", args.container);
    let changes: Option<Vec<Change>> = client.get(&path).send().await?.json().await?;
    for change in changes.unwrap_or_default() {
        let kind = match change.kind {
            1 => 'A',
            2 => 'D',
            _ => 'C',
        };
        line(&format!("{kind} {}", change.path))?;
    }
    Ok(0)
}

/// Flags of `export`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio export -o web.tar web")]
pub(super) struct ExportArgs {
    /// Where to write the archive (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(super) async fn export(args: ExportArgs, client: &Client) -> anyhow::Result<u8> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let call = client.get(&format!("/containers/{}/export", args.container));
    receive(call, args.output.as_deref()).await?;
    Ok(0)
}
