//! `token`: join tokens, which the mesh's manager makes and keeps.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::each;
use super::list::{List, row};
use super::mesh::span;
use super::output::line;
use super::parse::Span;
use crate::client::Client;

/// `nuncio token`.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and show the command that joins by it
    Create(NewArgs),
    /// List tokens, without their secrets
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Have tokens let in nobody any more
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Make a token, and have all others let in nobody any more
    Rotate(NewArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio token create --ttl 1h --uses 1")]
struct NewArgs {
    /// How long it is good; 0: for ever
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: Span,

    /// How many hosts it lets in; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    uses: u32,

    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// table, json, or a template as {{.ID}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Tokens by id
    #[arg(value_name = "TOKEN", required = true)]
    tokens: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    ttl: Option<u64>,
    uses: Option<u32>,
    rotate: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    token: String,
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    #[serde(rename = "ID")]
    id: String,
    created: i64,
    expires: Option<i64>,
    uses: Option<u32>,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Created", "CREATED"),
    ("Expires", "EXPIRES"),
    ("Uses", "USES LEFT"),
    ("Status", "STATUS"),
];

pub(super) async fn run(args: TokenArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        TokenCommand::Create(args) => create(args, false, client).await,
        TokenCommand::Rotate(args) => create(args, true, client).await,
        TokenCommand::Ls(args) => list(args, client).await,
        TokenCommand::Rm(args) => {
            each(&args.tokens, async |id: &String| {
                let path = format!("/nuncio/v1/tokens/{id}");
                client.delete(&path).send().await?;
                line(id)
            })
            .await
        }
    }
}

/// Makes a token as `token create` and `token rotate` do unless told more.
///
/// # Errors
///
/// The daemon's words.
pub(super) async fn make(quiet: bool, rotate: bool, client: &Client) -> anyhow::Result<u8> {
    let args = NewArgs {
        ttl: "24h".parse().expect("a duration"),
        uses: 0,
        quiet,
    };
    create(args, rotate, client).await
}

async fn create(args: NewArgs, rotate: bool, client: &Client) -> anyhow::Result<u8> {
    let ttl = span(args.ttl).as_secs();
    let wanted = Wanted {
        ttl: (ttl > 0).then_some(ttl),
        uses: (args.uses > 0).then_some(args.uses),
        rotate,
    };
    let call = client.post("/nuncio/v1/tokens").json(&wanted);
    let Made { token, address } = call.send().await?.json().await?;
    if args.quiet {
        line(&token)?;
        return Ok(0);
    }
    if rotate {
        line("Successfully rotated the join token: the others let in nobody any more.\n")?;
    }
    line(&format!(
        "To add a node to this mesh, run the following command on it:\n\n    nuncio join {token} {address}\n"
    ))?;
    Ok(0)
}

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let tokens: Vec<Token> = client.get("/nuncio/v1/tokens").send().await?.json().await?;
    let now = Timestamp::now().as_second();
    let list = List {
        fields: FIELDS,
        columns: vec!["ID", "Created", "Expires", "Uses", "Status"],
        rows: tokens.into_iter().map(|token| fields(token, now)).collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

fn fields(token: Token, now: i64) -> Map<String, Value> {
    let moment = |second| {
        Timestamp::from_second(second).map_or_else(|_| "?".to_owned(), |at| at.to_string())
    };
    let status = match (token.expires, token.uses) {
        (Some(expires), _) if expires <= now => "Expired",
        (_, Some(0)) => "Used up",
        _ => "Valid",
    };
    row([
        ("ID", token.id),
        ("Created", moment(token.created)),
        (
            "Expires",
            token.expires.map_or_else(|| "never".to_owned(), moment),
        ),
        (
            "Uses",
            token
                .uses
                .map_or_else(|| "any".to_owned(), |uses| uses.to_string()),
        ),
        ("Status", status.to_owned()),
    ])
}
