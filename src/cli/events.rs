//! `events`.

mod explain;

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
  nuncio events --format json | jq .Actor.Attributes.exitCode
  nuncio events --explain redis                 what happened to it, in order")]
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

    /// Tell what this daemon remembers of a name (a container's, network's, volume's or host's, or an id), in sentences, and end
    #[arg(long, value_name = "NAME", conflicts_with_all = ["until", "filter", "format"])]
    explain: Option<String>,
}

/// Prints what happens, a line each.
pub(super) async fn run(args: EventsArgs, client: &Client) -> anyhow::Result<u8> {
    if let Some(name) = &args.explain {
        let since = args.since.map_or_else(|| "1".to_owned(), Moment::api);
        return story(name, since, client).await;
    }
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

/// Tells what happened to a name until now.
async fn story(name: &str, since: String, client: &Client) -> anyhow::Result<u8> {
    let now = jiff::Timestamp::now();
    let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
    let call = client.get("/events").query("since", since);
    let mut lines = call.query("until", until).send().await?.lines();
    let mut events = Vec::new();
    while let Some(event) = lines.next_json::<Value>().await? {
        events.push(event);
    }
    explain::tell(&events, name)?;
    Ok(0)
}

/// With nine digits of the second, so that lines align.
fn time(event: &Value) -> String {
    let nanos = event["timeNano"].as_i64().unwrap_or_default();
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    let time = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    time.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// `2026-01-02T03:04:05.678000000+01:00 container start ID (image=redis, name=db)`.
fn sentence(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
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
        time(event),
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
