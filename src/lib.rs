//! Containers that find each other by name, on one host or on two hundred.
//!
//! Two programs are made of this: `nuncio`, and `nuncio-ambassador`, which is its ambassador alone.

mod ambassador;
mod api;
mod cli;
mod client;
#[cfg(test)]
#[path = "../fuzz/corpus.rs"]
mod corpus;
mod daemon;
mod dashboard;
mod detach_keys;
mod names;
mod pipe;

#[cfg(any(test, fuzzing))]
pub use api::fuzz;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use cli::{Cli, Failure, Sidecar};

/// All of nuncio, as the arguments of the process ask.
pub fn main() -> ExitCode {
    // A shim clones processes and an init is process 1 of a container: both come before any thread and any
    // allocation that a thread could hold locked.
    if let Some(code) = cli::single_threaded() {
        return code;
    }
    let cli: Cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if cli.manages_containers()
        && let Err(error) = nuncio_runtime::enter_init_mounts()
    {
        // `nuncio doctor` tells what lacks then
        eprintln!(
            "nuncio: look for cgroups in the mount namespace this one was made from: {error}"
        );
    }
    if cli.manages_containers() {
        nuncio_runtime::memory::be_frugal();
    }
    let level = cli.log_level().to_owned();
    run(&level, cli.serves(), cli.run())
}

/// The ambassador alone, and what shows what it does: a program that is small, for its link holds nothing else.
pub fn sidecar() -> ExitCode {
    match cli::parse::<Sidecar>(std::env::args_os()) {
        Ok(sidecar) => run(sidecar.log_level(), sidecar.serves(), sidecar.run()),
        Err(code) => code,
    }
}

/// Does `work`, with more than one thread if it `serves` others.
fn run(level: &str, serves: bool, work: impl Future<Output = Result<u8, Failure>>) -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let mut builder = if serves {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(anyhow::Error::from(error)).report(),
    };
    let result = runtime.block_on(work);
    // a read of standard input may never return
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

/// What to log: `NUNCIO_LOG`, else `RUST_LOG`, else `level`.
fn log_filter(level: &str) -> EnvFilter {
    ["NUNCIO_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
        .unwrap_or_else(|| EnvFilter::new(level))
}
