//! `nuncio ambassador check`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nuncio_ambassador::{ForwardSpec, Resolver, Target, spec};

use crate::cli::{line, warn};

/// Flags of `nuncio ambassador check`.
#[derive(Args, Debug)]
#[command(after_help = "Opens no port, and asks only for the names in the file.

Example:
  nuncio ambassador check /etc/nuncio/ambassador.toml")]
pub(super) struct CheckArgs {
    /// A file as --config takes it
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Tells how many forwards the file has; what may be wrong is told on standard error.
pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let specs = spec::from_file(&args.file)?;
    let file = args.file.display();
    let warnings = Resolver::new().check(&specs).await;
    for warning in warnings.with_context(|| file.to_string())? {
        warn(&format!("{file}: warning: {warning}"));
    }
    if specs.iter().any(needs_registry) {
        warn(&format!(
            "{file}: warning: service:// needs --registry, which is not asked here"
        ));
    }
    let count = specs.len();
    let forwards = if count == 1 { "forward" } else { "forwards" };
    line(&format!("{file}: {count} {forwards}"))?;
    Ok(0)
}

fn needs_registry(spec: &ForwardSpec) -> bool {
    matches!(spec.target, Target::Service(..))
}
