//! `commit`.

use clap::{ArgAction, Args};
use serde::Deserialize;

use super::output::line;
use super::parse::Reference;
use crate::client::Client;

/// Flags of `commit`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio commit web team/web:fixed
  nuncio commit -a 'Me <me@example.org>' -m 'with curl' -c 'CMD [\"curl\"]' web")]
pub(super) struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "AUTHOR")]
    author: Option<String>,

    /// A Dockerfile's instruction to apply (may be repeated)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,

    /// What was changed
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Let the container stand still meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pause: bool,

    #[arg(value_name = "CONTAINER")]
    container: String,

    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

/// Makes an image of a container and prints its id.
pub(super) async fn run(args: CommitArgs, client: &Client) -> anyhow::Result<u8> {
    let mut call = client
        .post("/commit")
        .query("container", &args.container)
        .optional("repo", args.name.as_ref().map(Reference::familiar_name))
        .optional("tag", args.name.as_ref().map(Reference::tag_or_digest))
        .optional("author", args.author)
        .optional("comment", args.message);
    if !args.pause {
        call = call.query("pause", "0");
    }
    for change in &args.change {
        call = call.query("changes", change);
    }
    let made: Made = call.send().await?.json().await?;
    line(&made.id)?;
    Ok(0)
}
