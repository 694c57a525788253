//! `ambassador`, which may be the one of a host.

use clap::Args;

use crate::ambassador::{self, AmbassadorArgs};
use crate::names;

/// Flags of `nuncio ambassador`, and what the daemon starts it with.
#[derive(Args, Debug)]
pub(crate) struct HostAmbassadorArgs {
    #[command(flatten)]
    args: AmbassadorArgs,

    /// Answer DNS for containers, as PUT /names says, and forward as PUT /config does
    #[arg(
        long,
        hide = true,
        requires = "admin",
        conflicts_with_all = ["host", "listen", "config", "upgrade_from"]
    )]
    names: bool,
}

/// Forwards until told to end.
pub(crate) async fn run(args: HostAmbassadorArgs) -> anyhow::Result<u8> {
    ambassador::run(args.args, args.names.then(names::router)).await
}
