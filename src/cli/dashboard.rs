//! `dashboard`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::daemon::loopback_address;
use super::output::{line, warn};
use crate::client::Client;
use crate::dashboard::{self, Crossing, Gate, ROOT, Secret};

/// Flags of `dashboard`.
#[derive(Args, Debug)]
#[command(
    after_help = "Whoever opens the address that is printed sees hosts, containers, services and what passes between them, and what
containers write and take. Nothing can be changed there; with --allow-exec, programs can be run in containers.

The page is served on this machine's loopback until ctrl-c, with a new token each time. A daemon with --dashboard-addr
serves it by itself: then its address is printed, and that is all.

Examples:
  nuncio dashboard
  nuncio dashboard --allow-exec --listen 127.0.0.1:8080
  nuncio -H tcp://10.0.0.1:2376 dashboard           another host's, by this machine's browser"
)]
pub(super) struct DashboardArgs {
    /// Where to listen, on loopback (default: 127.0.0.1, at a port that is free)
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback_address)]
    listen: Option<SocketAddr>,

    /// Let who sees the page run programs in containers, too
    #[arg(long)]
    allow_exec: bool,

    /// Open no browser, though there is a desktop
    #[arg(long)]
    no_open: bool,
}

/// Serves the page, or tells where the daemon does.
pub(super) async fn run(args: DashboardArgs, client: &Client) -> anyhow::Result<u8> {
    if args.listen.is_none() && !args.allow_exec && client.is_local() {
        let told = client.get(&format!("{ROOT}/address")).send().await?;
        let told: Value = told.json().await?;
        if let Some(url) = told["url"].as_str() {
            line(url)?;
            return Ok(0);
        }
    }
    let address = args
        .listen
        .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr()?;
    let crossing = Crossing::There(client.clone());
    let gate = Arc::new(Gate::new(Secret::new(), args.allow_exec, crossing, address));
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    line(&gate.url())?;
    if !args.no_open && has_desktop() {
        open(&gate.url_for_once());
    }
    let stop = CancellationToken::new();
    let served = dashboard::serve(listener, gate, stop.clone());
    tokio::select! {
        () = served => {}
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    stop.cancel();
    Ok(0)
}

fn has_desktop() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Has the desktop's browser open the page; where there is none, its user does.
fn open(url: &str) {
    let mut browser = Command::new("xdg-open");
    browser
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match browser.spawn() {
        Ok(mut browser) => drop(std::thread::spawn(move || browser.wait())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => warn(&format!("xdg-open: {error}")),
    }
}
