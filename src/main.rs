//! Containers that find each other by name, on one host or on two hundred.

mod ambassador;
mod api;
mod cli;
mod client;
mod daemon;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use cli::{Failure, Invocation};

fn main() -> ExitCode {
    // A shim clones processes and an init is process 1 of a container: both come before any thread and any
    // allocation that a thread could hold locked.
    if let Some(code) = cli::single_threaded() {
        return code;
    }
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    if invocation.manages_containers()
        && let Err(error) = nuncio_runtime::enter_init_mounts()
    {
        // `nuncio doctor` tells what lacks then
        eprintln!(
            "nuncio: look for cgroups in the mount namespace this one was made from: {error}"
        );
    }
    match run(invocation) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn run(invocation: Invocation) -> Result<u8, Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(invocation.log_level()))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let mut builder = if invocation.serves() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().map_err(anyhow::Error::from)?;
    let result = runtime.block_on(invocation.run());
    // a read of standard input may never return
    runtime.shutdown_background();
    result
}

/// What to log: `NUNCIO_LOG`, else `RUST_LOG`, else `level`.
fn log_filter(level: &str) -> EnvFilter {
    ["NUNCIO_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
        .unwrap_or_else(|| EnvFilter::new(level))
}
