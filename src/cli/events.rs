//! `events`.

mod explain;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::gather::{Gather, Next};
use super::hosts::{Complaints, hosts};
use super::list::filters;
use super::output::line;
use super::parse::{Filter, Moment};
use super::template::Template;
use crate::client::Client;

/// Flags of `events`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio events --since 1h
  nuncio events --filter container=web --filter event=die
  nuncio events --format json | jq .Actor.Attributes.exitCode
  nuncio events --explain redis                 what happened to it, in order
  nuncio events --all-nodes --since 10m         on all hosts, each line after the host's name
  nuncio events --all-nodes --explain redis")]
pub(super) struct EventsArgs {
    /// Show what happened since then: a time, or how long ago as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,

    /// Show what happens before then, and end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,

    /// Show that for which this holds
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// json, or a template as {{.Action}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show what happens on all hosts
    #[arg(long)]
    all_nodes: bool,

    /// Tell what this daemon remembers of a name (a container's, network's, volume's or host's, or an id), in sentences, and end
    #[arg(long, value_name = "NAME", conflicts_with_all = ["until", "filter", "format"])]
    explain: Option<String>,
}

/// Prints what happens, a line each.
pub(super) async fn run(args: EventsArgs, client: &Client) -> anyhow::Result<u8> {
    let since = Moment::asked("since", args.since.as_deref())?;
    let until = Moment::asked("until", args.until.as_deref())?;
    if let Some(name) = &args.explain {
        let since = since.map_or_else(|| "1".to_owned(), Moment::api);
        return story(name, since, args.all_nodes, client).await;
    }
    let format = args.format.as_deref();
    let format = format.filter(|format| *format != "{{json .}}"); // as it came
    let template = Template::of_json(format).context("Error parsing format")?;
    if args.all_nodes {
        return on_all(&args, [since, until], template.as_ref(), client).await;
    }
    let call = client
        .get("/events")
        .optional("since", since.map(Moment::api))
        .optional("until", until.map(Moment::api))
        .optional("filters", filters(&args.filter));
    let mut lines = call.send().await?.lines();
    while let Some(event) = lines.next_json::<Value>().await? {
        if let Some(error) = event["error"].as_str() {
            anyhow::bail!("{error}");
        }
        let text = match (&template, &args.format) {
            (Some(template), _) => template.render(&as_in_go(&event))?,
            (None, Some(_)) => event.to_string(),
            (None, None) => sentence(&event),
        };
        line(&text)?;
    }
    Ok(0)
}

/// What is asked of `GET /events`.
type Query = Vec<(&'static str, String)>;

/// Asks all hosts.
async fn ask_all(query: Query, endless: bool, client: &Client) -> anyhow::Result<Gather<String>> {
    let mut gather = Gather::new(endless);
    for host in hosts(client).await? {
        let (client, query) = (client.clone(), query.clone());
        let name = host.name.clone();
        let ask = async move {
            let mut call = host.get(&client, "/events");
            for (key, value) in query {
                call = call.query(key, value);
            }
            call.send().await
        };
        gather.add(name, ask, |event| {
            let nanos = event["timeNano"].as_i64().unwrap_or_default();
            jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default()
        });
    }
    Ok(gather)
}

/// Prints what happens on all hosts; one that does not answer is named, and the others are heard.
async fn on_all(
    args: &EventsArgs,
    [since, until]: [Option<Moment>; 2],
    template: Option<&Template>,
    client: &Client,
) -> anyhow::Result<u8> {
    let asked = [
        ("since", since.map(Moment::api)),
        ("until", until.map(Moment::api)),
        ("filters", filters(&args.filter)),
    ];
    let asked = asked.into_iter();
    let query = asked.filter_map(|(key, value)| Some((key, value?)));
    // What is to come is waited for as long as it takes.
    let over = |until: Moment| until.timestamp() <= jiff::Timestamp::now();
    let endless = !until.is_some_and(over);
    let mut gather = ask_all(query.collect(), endless, client).await?;
    let mut complaints = Complaints::default();
    while let Some(next) = gather.next().await? {
        match next {
            Next::Line(host, mut event) => {
                let text = match (template, &args.format) {
                    (None, None) => format!("{host}  | {}", sentence(&event)),
                    (template, _) => {
                        event["Node"] = host.as_str().into();
                        match template {
                            Some(template) => template.render(&as_in_go(&event))?,
                            None => event.to_string(),
                        }
                    }
                };
                line(&text)?;
            }
            Next::End(host, Some(error)) => complaints.silent(host, &error),
            Next::End(_, None) => {}
        }
    }
    Ok(0)
}

/// Tells what happened to a name until now.
async fn story(name: &str, since: String, all: bool, client: &Client) -> anyhow::Result<u8> {
    let now = jiff::Timestamp::now();
    let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
    let mut events = Vec::new();
    if all {
        let query = vec![("since", since), ("until", until)];
        let mut gather = ask_all(query, false, client).await?;
        let mut complaints = Complaints::default();
        while let Some(next) = gather.next().await? {
            match next {
                Next::Line(host, mut event) => {
                    event["Node"] = host.as_str().into();
                    events.push(event);
                }
                Next::End(host, Some(error)) => complaints.silent(host, &error),
                Next::End(_, None) => {}
            }
        }
    } else {
        let call = client.get("/events").query("since", since);
        let mut lines = call.query("until", until).send().await?.lines();
        while let Some(event) = lines.next_json::<Value>().await? {
            events.push(event);
        }
    }
    explain::tell(&events, name)?;
    Ok(0)
}

/// The event with its fields' names in Go, which templates go by.
fn as_in_go(event: &Value) -> Value {
    const NAMES: [(&str, &str); 6] = [
        ("status", "Status"),
        ("id", "ID"),
        ("from", "From"),
        ("scope", "Scope"),
        ("time", "Time"),
        ("timeNano", "TimeNano"),
    ];
    let mut named = event.clone();
    for (wire, name) in NAMES {
        let empty = || Value::String(String::new());
        named[name] = event.get(wire).cloned().unwrap_or_else(empty);
    }
    named
}

/// With nine digits of the second, so that lines align.
fn time(event: &Value) -> String {
    let nanos = event["timeNano"].as_i64().unwrap_or_default();
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    let time = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    match time.offset().is_zero() {
        true => time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        false => time.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string(),
    }
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
        assert!(!shown.contains("+00:00"), "Z is for that: {shown}");
    }

    #[test]
    fn templates_go_by_the_names_in_go() {
        let event = json!({"status": "start", "id": "abc", "Type": "container", "timeNano": 7});
        let named = as_in_go(&event);
        let template = Template::parse("{{.Status}} {{.ID}} {{.Type}} {{.TimeNano}} [{{.From}}]");
        let shown = template.expect("a template").render(&named);
        assert_eq!(shown.expect("fields"), "start abc container 7 []");
    }
}
