//! `flows` and `flows kill`.

use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AdminFlag, Record, bytes, short};
use crate::cli::host::Host;
use crate::cli::list::{List, row};
use crate::cli::output::line;

/// `nuncio flows`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  nuncio flows                                  what this host's ambassador carries
  nuncio flows --forward web --client 10.0.0.7  from one client
  nuncio flows --admin http://127.0.0.1:9100    of an ambassador that runs by itself
  nuncio flows --format '{{.Client}} {{.BytesIn}}'
  nuncio flows kill --endpoint 10.0.0.5:6379    reset all that go there"
)]
pub(crate) struct FlowsArgs {
    #[command(subcommand)]
    command: Option<FlowsCommand>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum FlowsCommand {
    /// End flows: both peers see a reset
    Kill(KillArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Show those of this forward
    #[arg(long, value_name = "NAME")]
    forward: Option<String>,

    /// Show those to this endpoint
    #[arg(long, value_name = "ADDR[:PORT]")]
    endpoint: Option<String>,

    /// Show those from this client
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<String>,

    /// table, json (a line each, as the access log has it), or a template as {{.Client}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    #[command(flatten)]
    admin: AdminFlag,
}

#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("which").required(true).multiple(true).args(["forward", "endpoint", "client", "id"]),
    after_help = "Flows are ended for which all that is given holds.

Examples:
  nuncio flows kill --endpoint 10.0.0.5:6379
  nuncio flows kill --forward web --client 10.0.0.7
  nuncio flows kill --id 42"
)]
struct KillArgs {
    /// Those of this forward
    #[arg(long, value_name = "NAME")]
    forward: Option<String>,

    /// Those to this endpoint
    #[arg(long, value_name = "ADDR[:PORT]")]
    endpoint: Option<String>,

    /// Those from this client
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<String>,

    /// The one of this number
    #[arg(long, value_name = "N")]
    id: Option<u64>,

    #[command(flatten)]
    admin: AdminFlag,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Protocol", "PROTO"),
    ("Forward", "FORWARD"),
    ("Client", "CLIENT"),
    ("Local", "LOCAL"),
    ("Endpoint", "ENDPOINT"),
    ("BytesIn", "IN"),
    ("BytesOut", "OUT"),
    ("Age", "AGE"),
    ("ConnectTime", "CONNECT"),
    ("Datapath", "DATAPATH"),
    ("Reason", "REASON"),
    ("NotDirect", "NOT DIRECT BECAUSE"),
];

const COLUMNS: [&str; 10] = [
    "ID",
    "Protocol",
    "Forward",
    "Client",
    "Endpoint",
    "BytesIn",
    "BytesOut",
    "Age",
    "Datapath",
    "NotDirect",
];

type Query = Vec<(&'static str, String)>;

/// Those that are given.
fn query(given: [(&'static str, Option<String>); 4]) -> Query {
    let given = given.into_iter();
    given
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

pub(crate) async fn run(args: FlowsArgs, daemon: Option<Host>) -> anyhow::Result<u8> {
    match args.command {
        Some(FlowsCommand::Kill(args)) => kill(args, daemon).await,
        None => list(args.list, daemon).await,
    }
}

async fn list(args: ListArgs, daemon: Option<Host>) -> anyhow::Result<u8> {
    let query = query([
        ("forward", args.forward),
        ("endpoint", args.endpoint),
        ("client", args.client),
        ("id", None),
    ]);
    let client = args.admin.client(daemon).await?;
    let flows: Vec<Value> = client.json(Method::GET, "/flows", &query).await?;
    if args.format.as_deref() == Some("json") {
        flows.iter().try_for_each(|flow| line(&flow.to_string()))?;
        return Ok(0);
    }
    let records = flows.into_iter().map(serde_json::from_value::<Record>);
    let rows = records.map(|record| Ok(fields(record?)));
    let list = List {
        fields: FIELDS,
        columns: COLUMNS.to_vec(),
        rows: rows.collect::<Result<_, serde_json::Error>>()?,
    };
    list.print(args.format.as_deref())?;
    Ok(0)
}

fn fields(flow: Record) -> Map<String, Value> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    row([
        ("ID", flow.id.to_string()),
        ("Protocol", flow.protocol),
        ("Forward", flow.forward),
        ("Client", flow.client),
        ("Local", or_dash(flow.local)),
        ("Endpoint", or_dash(flow.endpoint)),
        ("BytesIn", bytes(flow.bytes_in)),
        ("BytesOut", bytes(flow.bytes_out)),
        ("Age", short(flow.duration)),
        ("ConnectTime", or_dash(flow.connect_time.map(short))),
        ("Datapath", flow.datapath),
        ("Reason", flow.reason),
        ("NotDirect", or_dash(flow.not_direct)),
    ])
}

async fn kill(args: KillArgs, daemon: Option<Host>) -> anyhow::Result<u8> {
    #[derive(Deserialize)]
    struct Answer {
        ended: u64,
    }
    let query = query([
        ("forward", args.forward),
        ("endpoint", args.endpoint),
        ("client", args.client),
        ("id", args.id.map(|id| id.to_string())),
    ]);
    let client = args.admin.client(daemon).await?;
    let Answer { ended } = client.json(Method::DELETE, "/flows", &query).await?;
    let flows = if ended == 1 { "flow" } else { "flows" };
    line(&format!("ended {ended} {flows}"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flow_is_a_row() {
        let flow = json!({
            "time": "2026-01-01T00:00:00Z", "id": 7, "forward": "web", "protocol": "tcp",
            "client": "10.0.0.7:1234", "local": null, "endpoint": "10.0.0.5:6379",
            "bytes_in": 1234, "bytes_out": 5, "duration": 61.0, "connect_time": 0.0003,
            "datapath": "splice", "reason": "bulk", "datapaths": ["copy", "splice"],
            "not_direct": "no cgroup2",
        });
        let record: Record = serde_json::from_value(flow).expect("a record");
        let row = fields(record);
        let cells: Vec<_> = FIELDS.iter().map(|(name, _)| &row[*name]).collect();
        let expected = [
            "7",
            "tcp",
            "web",
            "10.0.0.7:1234",
            "-",
            "10.0.0.5:6379",
            "1.23kB",
            "5B",
            "1m1s",
            "300us",
            "splice",
            "bulk",
            "no cgroup2",
        ];
        assert_eq!(cells, expected);
        assert!(COLUMNS.iter().all(|column| row.contains_key(*column)));
    }

    #[test]
    fn only_what_is_given_is_asked_for() {
        let given = [
            ("id", None),
            ("forward", Some("a b".to_owned())),
            ("x", None),
            ("y", None),
        ];
        assert_eq!(query(given), [("forward", "a b".to_owned())]);
    }
}
