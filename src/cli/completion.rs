//! `completion`.

use clap::Args;
use clap_complete::Shell;

use super::output::write_out;

/// Flags of `completion`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio completion bash > /etc/bash_completion.d/nuncio")]
pub(super) struct CompletionArgs {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: CompletionArgs) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::tree(), "nuncio", &mut script);
    write_out(&script)?;
    Ok(0)
}
