//! `task`: what services come to on nodes, one by one.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::failure::complain;
use super::inspect::show;
use super::output::{line, write_out};
use super::table::table;
use super::tasks::{self, TaskFlags};
use super::template::Template;
use crate::client::Client;

/// `nuncio task`.
#[derive(Args, Debug)]
pub(super) struct TaskArgs {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// List the tasks of all services
    #[command(visible_alias = "list")]
    Ls(TaskFlags),
    /// Show all there is to know of tasks, as JSON
    Inspect(InspectArgs),
    /// Tell why a task does not run yet, node by node
    WhyPending(WhyArgs),
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Tasks by id
    #[arg(value_name = "TASK", required = true)]
    tasks: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio task why-pending $(nuncio service ps -q web | head -1)")]
struct WhyArgs {
    /// json, or a template as {{.Reason}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// A task by id
    #[arg(value_name = "TASK")]
    task: String,
}

/// Why a task waits, as the daemon tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pending {
    task: String,
    state: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    nodes: Vec<Unfit>,
}

/// A node, and why it does not take the task.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfit {
    node: String,
    why: String,
}

pub(super) async fn run(args: TaskArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        TaskCommand::Ls(flags) => {
            tasks::print(&flags.filter, &flags, client).await?;
            Ok(0)
        }
        TaskCommand::Inspect(args) => inspect(args, client).await,
        TaskCommand::WhyPending(args) => why_pending(&args, client).await,
    }
}

async fn inspect(args: InspectArgs, client: &Client) -> anyhow::Result<u8> {
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for id in &args.tasks {
        match client.get(&format!("/tasks/{id}")).send().await {
            Ok(answer) => found.push(answer.json::<Value>().await?),
            Err(error) => {
                complain(&error.into());
                code = 1;
            }
        }
    }
    show(found, template.as_ref(), args.format.is_some())?;
    Ok(code)
}

async fn why_pending(args: &WhyArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client.get(&format!("/nuncio/v1/tasks/{}/why-pending", args.task));
    let told: Value = call.send().await?.json().await?;
    match args.format.as_deref() {
        Some("json") => line(&told.to_string())?,
        Some(format) => line(&Template::parse(format)?.render(&told)?)?,
        None => {
            let pending: Pending = serde_json::from_value(told)
                .context("the daemon tells it in a form that this client does not know")?;
            write_out(in_words(&pending).as_bytes())?;
        }
    }
    Ok(0)
}

fn in_words(pending: &Pending) -> String {
    let mut text = format!("task {} is {}", pending.task, pending.state);
    if !pending.reason.is_empty() {
        text = format!("{text}: {}", pending.reason);
    }
    text.push('\n');
    if !pending.nodes.is_empty() {
        let row = |unfit: &Unfit| vec![unfit.node.clone(), unfit.why.clone()];
        let rows: Vec<_> = pending.nodes.iter().map(row).collect();
        text.push('\n');
        text.push_str(&table(&["NODE", "WHY NOT"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons() {
        let told = json!({
            "Task": "t1", "State": "pending", "Reason": "no suitable node",
            "Nodes": [{"Node": "host-1", "Why": "is drained"}, {"Node": "host-22", "Why": "lacks 64MiB of memory"}],
        });
        let pending = serde_json::from_value(told).expect("what daemons tell");
        assert_eq!(
            in_words(&pending),
            "task t1 is pending: no suitable node\n\nNODE      WHY NOT\nhost-1    is drained\nhost-22   lacks 64MiB of memory\n"
        );
        let runs = serde_json::from_value(json!({"Task": "t1", "State": "running"}));
        assert_eq!(
            in_words(&runs.expect("what daemons tell")),
            "task t1 is running\n"
        );
    }
}
