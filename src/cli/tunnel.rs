//! `nuncio tunnel`: the process that carries encrypted networks, and what goes around VXLAN, which the daemon starts.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use nuncio_tunnel::Tunnel;

/// Flags of `nuncio tunnel`.
#[derive(Args, Debug)]
pub(super) struct TunnelArgs {
    /// Unix socket by which it is told what to carry
    #[arg(long, value_name = "PATH")]
    control: PathBuf,

    /// File with this host's private keys
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,

    /// Address and UDP port at which other hosts reach it
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,

    /// Address and TCP port at which they reach it where UDP does not get through
    #[arg(long, value_name = "ADDR:PORT")]
    fallback: SocketAddr,
}

/// Carries until it is killed.
pub(super) async fn run(args: TunnelArgs) -> anyhow::Result<u8> {
    let carry = move || {
        let tunnel = Tunnel::open(args.listen, args.fallback)?;
        let listener = UnixListener::bind(&args.control)
            .with_context(|| format!("listen on {}", args.control.display()))?;
        tunnel.obey(&listener, &args.keys)?;
        anyhow::Ok(0)
    };
    tokio::task::spawn_blocking(carry).await?
}
