//! `nuncio ambassador`: a forwarder, on its own or as the one of a host that the daemon directs.

mod admin;
mod services;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use nuncio_ambassador::{Ambassador, Control, ForwardSpec, Options, RelayMode, Resolver, spec};
use nuncio_overlay::NameServer;
use nuncio_registry::{ConnectOptions, Mirror, Registry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use admin::{Admin, AdminAddress};

/// Flags of `nuncio ambassador`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AmbassadorArgs {
    /// Forward the same port to a host, over TCP
    #[arg(value_name = "HOST", requires = "port", conflicts_with_all = ["listen", "config", "names"])]
    host: Option<String>,

    #[arg(value_name = "PORT")]
    port: Option<String>,

    /// Where newcomers arrive (may be repeated, each with its --to)
    #[arg(long, value_name = "tcp://ADDR:PORT", requires = "to")]
    listen: Vec<String>,

    /// Where they go: hosts, or a service of the registry
    #[arg(
        long,
        value_name = "tcp://HOST:PORT,..|service://NAME",
        requires = "listen"
    )]
    to: Vec<String>,

    /// Read the forwards from a TOML file; SIGHUP reads it again
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    config: Option<PathBuf>,

    /// How TCP is carried: copied, spliced in the kernel, or whichever suits each flow
    #[arg(long, value_enum, value_name = "auto|copy|splice")]
    mode: Option<Mode>,

    /// Serve /metrics, /ready, /flows and /config here
    #[arg(long, value_name = "ADDR:PORT|unix://PATH")]
    admin: Option<AdminAddress>,

    /// The registry that knows the services of service://NAME
    #[arg(long, value_name = "URL,..", value_delimiter = ',')]
    registry: Vec<String>,

    /// How long flows may take to end after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10s", value_parser = grace)]
    drain: Duration,

    /// Answer DNS for containers, as PUT /names says
    #[arg(long, hide = true, requires = "admin", conflicts_with_all = ["listen", "config"])]
    names: bool,
}

const EXAMPLES: &str = "\
Examples:
  nuncio ambassador 10.0.0.5 6379                   port 6379 here is port 6379 there
  nuncio ambassador --listen tcp://127.0.0.1:6379 --to tcp://10.0.0.5:6379,tcp://10.0.0.6:6379
  nuncio ambassador --listen tcp://0.0.0.0:6379 --to service://redis --registry http://10.0.0.1:2379
  REDIS_PORT_6379_TCP=tcp://10.0.0.5:6379 nuncio ambassador
                                                    as Docker's links say it; _UDP=udp://.. as well

The file of --config:
  [[forward]]
  listen = \"tcp://0.0.0.0:6379\"
  to = [\"tcp://10.0.0.5:6379\"]

SIGTERM: not ready any more; ends when no flow is left, or after --drain. A second one ends at once.";

/// How TCP is carried.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Auto,
    Copy,
    Splice,
}

impl From<Mode> for RelayMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Copy => Self::Copy,
            Mode::Splice => Self::Splice,
        }
    }
}

/// Not a time.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a time: expected a number of seconds, as 10 or 10s, at most a day")]
struct NotAGrace(String);

fn grace(text: &str) -> Result<Duration, NotAGrace> {
    match text.strip_suffix('s').unwrap_or(text).parse() {
        Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(NotAGrace(text.to_owned())),
    }
}

/// Forwards until told to end.
pub(crate) async fn run(args: AmbassadorArgs) -> anyhow::Result<u8> {
    let mut signals = Signals::catch().context("catch signals")?;
    let mirror = follow(&args.registry).await?;
    let resolver = match &mirror {
        Some(mirror) => services::with_services(Resolver::new(), mirror.catalog()),
        None => Resolver::new(),
    };
    let control = Arc::new(Control::new(
        Arc::new(Ambassador::new(Options::default())),
        resolver,
    ));
    let names = args.names.then(|| Arc::new(NameServer::new()));
    // bound before anything is forwarded: whoever asks finds it not ready, rather than nobody
    let admin = match &args.admin {
        Some(address) => Some(Admin::bind(address, control.clone(), names).await?),
        None => None,
    };
    let forwards = forwards(&args)?;
    if !args.names {
        control.put(forwards).await?;
    }
    for bound in control.ambassador().listeners() {
        info!(forward = %bound.name, listen = %bound.local, "ready");
    }
    loop {
        match signals.next().await {
            Told::End => break,
            Told::Reload => reload(&args, &control).await,
        }
    }
    drain(&control, args.drain, &mut signals).await;
    if let Some(admin) = admin {
        admin.end();
    }
    if let Some(mirror) = mirror {
        mirror.stop().await;
    }
    Ok(0)
}

async fn follow(registry: &[String]) -> anyhow::Result<Option<Mirror>> {
    if registry.is_empty() {
        return Ok(None);
    }
    let options = ConnectOptions {
        endpoints: registry.to_vec(),
        ..ConnectOptions::default()
    };
    let registry = Registry::connect(&options).await?;
    Ok(Some(Mirror::start(registry, None)))
}

/// What the flags, or else the environment, ask for.
fn forwards(args: &AmbassadorArgs) -> anyhow::Result<Vec<ForwardSpec>> {
    let mut specs = if let Some(file) = &args.config {
        spec::from_file(file)?
    } else if let (Some(host), Some(port)) = (&args.host, &args.port) {
        vec![spec::from_host_port(host, port)?]
    } else if !args.listen.is_empty() {
        if args.listen.len() != args.to.len() {
            bail!(
                "{} --listen and {} --to: give each --listen its --to",
                args.listen.len(),
                args.to.len()
            );
        }
        let pairs = args.listen.iter().zip(&args.to);
        pairs
            .map(|(listen, to)| spec::from_urls(listen, to))
            .collect::<Result<_, _>>()?
    } else if args.names {
        // the daemon will say, and then it is ready
        Vec::new()
    } else {
        from_env()?
    };
    if let Some(mode) = args.mode {
        specs
            .iter_mut()
            .for_each(|spec| spec.limits.mode = mode.into());
    }
    Ok(specs)
}

fn from_env() -> anyhow::Result<Vec<ForwardSpec>> {
    // what is not UTF-8 cannot be a forward
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let found = spec::from_env(variables)?;
    found.warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(found.forwards)
}

/// Reads the file again. If it is wrong, what runs goes on.
async fn reload(args: &AmbassadorArgs, control: &Control) {
    if args.config.is_none() {
        warn!("SIGHUP: there is no file to read again, for --config is not given");
        return;
    }
    let applied = async { anyhow::Ok(control.put(forwards(args)?).await?) };
    match applied.await {
        Ok(()) => info!("read the configuration again"),
        Err(error) => warn!("the configuration is not taken, and what ran goes on: {error:#}"),
    }
}

/// Serves on until nobody is left, the time is over, or a second signal comes.
async fn drain(control: &Control, grace: Duration, signals: &mut Signals) {
    let ambassador = control.ambassador();
    ambassador.unready();
    info!(
        flows = ambassador.flows().len(),
        ?grace,
        "ending as soon as no flow is left"
    );
    let deadline = tokio::time::sleep(grace);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = ambassador.idle() => return,
            () = &mut deadline => {
                warn!(flows = ambassador.flows().len(), "the time is over");
                return;
            }
            told = signals.next() => if let Told::End = told {
                warn!(flows = ambassador.flows().len(), "told twice");
                return;
            }
        }
    }
}

/// What a signal means.
enum Told {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        assert_eq!(grace("10s").ok(), Some(Duration::from_secs(10)));
        assert_eq!(grace("0").ok(), Some(Duration::ZERO));
        for wrong in ["", "s", "-1", "1m", "86401"] {
            assert!(grace(wrong).is_err(), "{wrong:?}");
        }
    }
}
