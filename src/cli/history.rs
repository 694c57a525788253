//! `history`.

use clap::{ArgAction, Args};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, row};
use crate::client::Client;

/// Flags of `history`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio history redis
  nuncio history --no-trunc --format '{{.CreatedBy}}' redis")]
pub(super) struct HistoryArgs {
    /// table, json, or a template as {{.CreatedBy}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Print sizes and times as people read them
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    human: bool,

    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,

    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// OS and architecture, as linux/amd64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    #[arg(value_name = "IMAGE")]
    image: String,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// A step as the API has it.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct Step {
    id: String,
    created: i64,
    created_by: String,
    size: i64,
    comment: String,
}

pub(super) async fn run(args: HistoryArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get(&format!("/images/{}/history", args.image))
        .optional("platform", args.platform.as_deref());
    let steps: Vec<Step> = call.send().await?.json().await?;
    let created = if args.human {
        "CreatedSince"
    } else {
        "CreatedAt"
    };
    let list = List {
        fields: FIELDS,
        columns: vec!["ID", created, "CreatedBy", "Size", "Comment"],
        rows: steps.iter().map(|step| fields(step, &args)).collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

fn fields(step: &Step, args: &HistoryArgs) -> Map<String, Value> {
    let created_by = step.created_by.replace('\t', " ");
    let id = if args.no_trunc {
        &step.id
    } else {
        human::short_id(&step.id)
    };
    let since = match step.created {
        ..=0 => "N/A".to_owned(),
        created if args.human => human::ago(created),
        created => local(created),
    };
    row([
        ("Comment", step.comment.clone()),
        ("CreatedAt", local(step.created)),
        (
            "CreatedBy",
            if args.no_trunc {
                created_by
            } else {
                human::ellipsis(&created_by, 45)
            },
        ),
        ("CreatedSince", since),
        ("ID", id.to_owned()),
        (
            "Size",
            if args.human {
                human::size(step.size)
            } else {
                step.size.to_string()
            },
        ),
    ])
}

/// `seconds` since 1970 in the local time zone, as RFC 3339.
fn local(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    let zoned = time.to_zoned_datetime(TimeZone::system());
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shortened_unless_all_of_it_is_wanted() {
        let step = Step {
            id: "<missing>".to_owned(),
            created_by: format!("RUN\t{}", "x".repeat(60)),
            size: 1234,
            ..Step::default()
        };
        let args = |no_trunc, human| HistoryArgs {
            format: None,
            human,
            no_trunc,
            quiet: false,
            platform: None,
            image: "a".to_owned(),
        };
        let short = fields(&step, &args(false, true));
        assert_eq!(short["CreatedBy"], format!("RUN {}…", "x".repeat(40)));
        assert_eq!(
            (&short["ID"], &short["Size"]),
            (&"<missing>".into(), &"1.23kB".into())
        );
        assert_eq!(short["CreatedSince"], "N/A");
        let whole = fields(&step, &args(true, false));
        assert_eq!(whole["CreatedBy"], format!("RUN {}", "x".repeat(60)));
        assert_eq!(whole["Size"], "1234");
    }
}
