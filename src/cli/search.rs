//! `search`.

use clap::Args;
use serde::Deserialize;

use super::human;
use super::list::{List, filters, row};
use super::parse::Filter;
use crate::client::Client;

/// Flags of `search`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio search redis
  nuncio search --filter is-official=true --limit 5 redis")]
pub(super) struct SearchArgs {
    /// Show those for which this holds (is-official=BOOL, stars=N)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// At most so many, up to 100 (default: 25)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u32,

    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,

    /// What to look for
    #[arg(value_name = "TERM")]
    term: String,
}

const FIELDS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

/// A repository that was found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    name: String,
    description: String,
    star_count: i64,
    is_official: bool,
    is_automated: bool,
}

pub(super) async fn run(args: SearchArgs, client: &Client) -> anyhow::Result<u8> {
    let mut call = client.get("/images/search").query("term", &args.term);
    if args.limit > 0 {
        call = call.query("limit", args.limit.to_string());
    }
    let call = call.optional("filters", filters(&args.filter));
    let found: Vec<Found> = call.send().await?.json().await?;
    let of = |image: &Found| {
        let description = image.description.replace(['\n', '\r'], " ");
        let mark = |is: bool| if is { "[OK]" } else { "" }.to_owned();
        row([
            (
                "Description",
                if args.no_trunc {
                    description
                } else {
                    human::ellipsis(&description, 45)
                },
            ),
            ("IsAutomated", mark(image.is_automated)),
            ("IsOfficial", mark(image.is_official)),
            ("Name", image.name.clone()),
            ("StarCount", image.star_count.to_string()),
        ])
    };
    let list = List {
        fields: FIELDS,
        columns: vec!["Name", "Description", "StarCount", "IsOfficial"],
        rows: found.iter().map(of).collect(),
    };
    list.print(args.format.as_deref())?;
    Ok(0)
}
