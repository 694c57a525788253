//! `service inspect`.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::{catalog, pretty, wire};
use crate::cli::failure::complain;
use crate::cli::inspect::show;
use crate::cli::output::write_out;
use crate::cli::tasks::Names;
use crate::cli::template::Template;
use crate::client::Client;

/// Flags of `service inspect`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service inspect --pretty web
  nuncio service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web

What nuncio does not run, but finds by a name, is shown by that.")]
pub(super) struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show it in words
    #[arg(long)]
    pretty: bool,

    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, client: &Client) -> anyhow::Result<u8> {
    if args.pretty && args.format.is_some() {
        bail!("--format is incompatible with human friendly format: leave out --pretty");
    }
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &args.services {
        match look(name, client).await {
            Ok(services) => found.extend(services),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    if args.pretty {
        let names = Names::ask(client).await?;
        for service in found {
            let text = pretty::service(&wire::read(service)?, &names);
            write_out(format!("{text}\n").as_bytes())?;
        }
    } else {
        show(found, template.as_ref(), args.format.is_some())?;
    }
    Ok(code)
}

/// A service that runs by this name, else what is found by it.
async fn look(name: &str, client: &Client) -> anyhow::Result<Vec<Value>> {
    let call = client.get(&format!("/services/{name}"));
    match call.query("insertDefaults", "true").send().await {
        Ok(answer) => Ok(vec![answer.json().await?]),
        Err(error) if error.is_not_found() || error.is_not_built() => {
            catalog::look_up(name, client).await
        }
        Err(error) => Err(error.into()),
    }
}
