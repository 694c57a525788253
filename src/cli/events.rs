//! `events`.

use clap::Args;
use serde_json::Value;

use super::list::filters;
use super::output::line;
use super::parse::Moment;
use super::template::Template;
use crate::client::Client;

/// Flags of `events`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio events --since 1h
  nuncio events --filter container=web --filter event=die
  nuncio events --format json | jq .Actor.Attributes.exitCode")]
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

    /// json, or a template as {{.Action}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints what happens, a line each.
pub(super) async fn run(args: EventsArgs, client: &Client) -> anyhow::Result<u8> {
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let call = client
        .get("/events")
        .optional("since", args.since.map(Moment::api))
        .optional("until", args.until.map(Moment::api))
        .optional("filters", filters(&args.filter)?);
    let mut lines = call.send().await?.lines();
    while let Some(event) = lines.next_json::<Value>().await? {
        let text = match (&template, &args.format) {
            (Some(template), _) => template.render(&event)?,
            (None, Some(_)) => event.to_string(),
            (None, None) => sentence(&event),
        };
        line(&text)?;
    }
    Ok(0)
}

/// `2026-01-02T03:04:05.678000000+01:00 container start ID (image=redis, name=db)`.
fn sentence(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nanos = event["timeNano"].as_i64().unwrap_or_default();
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    let time = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    let mut attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    attributes.sort();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    format!(
        "{} {} {} {}{attributes}",
        time.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z"),
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"]),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_sentence_with_its_attributes_in_order() {
        let event = json!({
            "Type": "container", "Action": "start", "timeNano": 1_767_323_045_678_000_000_i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "db", "image": "redis"}},
        });
        let shown = sentence(&event);
        assert!(
            shown.ends_with(" container start abc (image=redis, name=db)"),
            "{shown}"
        );
        assert!(shown.contains(":05.678000000"), "{shown}");
    }
}
