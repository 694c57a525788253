//! `top`.

use bollard_stubs::models::ContainerTopResponse;
use clap::Args;

use super::output::write_out;
use super::table::table;
use crate::client::Client;

/// Flags of `top`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio top web")]
pub(super) struct TopArgs {
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Options for ps
    #[arg(
        value_name = "PS OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

/// Prints the processes of a container.
pub(super) async fn run(args: TopArgs, client: &Client) -> anyhow::Result<u8> {
    let options = (!args.options.is_empty()).then(|| args.options.join(" "));
    let call = client
        .get(&format!("/containers/{}/top", args.container))
        .optional("ps_args", options);
    let top: ContainerTopResponse = call.send().await?.json().await?;
    let rows = top.processes.unwrap_or_default();
    write_out(table(&top.titles.unwrap_or_default(), &rows).as_bytes())?;
    Ok(0)
}
