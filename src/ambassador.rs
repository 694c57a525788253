//! `nuncio ambassador`: a forwarder, on its own or as the one of a host that the daemon directs.

mod admin;
mod check;
mod services;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use nuncio_ambassador::{
    AccessLog, Ambassador, Control, FlowFilter, ForwardSpec, Heritage, LogFormat, Options,
    RelayMode, Resolver, Successors, spec,
};
use nuncio_overlay::NameServer;
use nuncio_registry::{ConnectOptions, Mirror, Registry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use admin::{Admin, AdminAddress};

/// How long the end may wait for the access log.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// Flags of `nuncio ambassador`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct AmbassadorArgs {
    #[command(subcommand)]
    command: Option<AmbassadorCommand>,

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

    /// Spare processes of this cgroup2 directory the relay: what they connect to the listeners goes
    /// straight to the upstreams (may be repeated)
    #[arg(long, value_name = "PATH", value_parser = spec::from_cgroup)]
    direct_cgroup: Vec<PathBuf>,

    /// Serve /metrics, /ready, /flows, /tap, /explain, /direct and /config here
    #[arg(long, value_name = "ADDR:PORT|unix://PATH")]
    admin: Option<AdminAddress>,

    /// Take over the listeners of the ambassador that has this --admin; it ends when its flows have
    #[arg(long, value_name = "unix://PATH", value_parser = predecessor, conflicts_with = "names")]
    upgrade_from: Option<PathBuf>,

    /// Write a record of each flow at its end; - is standard output. SIGHUP opens the file again
    #[arg(long, value_name = "PATH|-")]
    access_log: Option<PathBuf>,

    /// How records are written
    #[arg(
        long,
        value_enum,
        value_name = "json|text",
        default_value = "json",
        requires = "access_log"
    )]
    access_log_format: AccessLogFormat,

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
  nuncio ambassador check FILE && kill -HUP PID     look at a file before it is read again

The file of --config:
  [[forward]]
  listen = \"tcp://0.0.0.0:6379\"
  to = [\"tcp://10.0.0.5:6379\"]

To replace a running ambassador by a new one, without refusing or resetting anybody:
  nuncio ambassador --config FILE --admin unix:///run/a.sock --upgrade-from unix:///run/a.sock
The new one takes over the listeners that its own configuration asks for. Only once it serves them the
old one stops to accept; it ends when no flow is left, or after its --drain. Replies of UDP sessions
that are open go on until then; what their clients send after the change goes by the new one. If the
new one fails before, the old one goes on as if nothing had been. Both must belong to the same user.
The sockets are handed over at PATH.upgrade, which an ambassador with --admin unix://PATH serves.

SIGTERM: not ready any more; ends when no flow is left, or after --drain. A second one ends at once.";

#[derive(Debug, Subcommand)]
enum AmbassadorCommand {
    /// Read a configuration file and tell what is wrong with it
    Check(check::CheckArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessLogFormat {
    Json,
    Text,
}

impl From<AccessLogFormat> for LogFormat {
    fn from(format: AccessLogFormat) -> Self {
        match format {
            AccessLogFormat::Json => Self::Json,
            AccessLogFormat::Text => Self::Text,
        }
    }
}

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

/// Where the ambassador listens whose listeners are to be taken over.
fn predecessor(text: &str) -> Result<PathBuf, NotAPredecessor> {
    match text.parse() {
        Ok(AdminAddress::Unix(path)) => Ok(path),
        _ => Err(NotAPredecessor(text.to_owned())),
    }
}

/// Not the address of one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the --admin of an ambassador that can be replaced: expected unix:///PATH")]
struct NotAPredecessor(String);

/// Where an ambassador whose admin socket is at `admin` meets its successor.
fn door(admin: &Path) -> PathBuf {
    let mut door = admin.as_os_str().to_owned();
    door.push(".upgrade");
    door.into()
}

/// Forwards until told to end.
pub(crate) async fn run(args: AmbassadorArgs) -> anyhow::Result<u8> {
    if let Some(AmbassadorCommand::Check(args)) = &args.command {
        return check::run(args).await;
    }
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
    let log = open_log(&args)?;
    if let Some(log) = &log {
        control.ambassador().log_flows(log.clone());
    }
    let names = args.names.then(|| Arc::new(NameServer::new()));
    let predecessor = args.upgrade_from.as_deref();
    let mut heritage = match predecessor {
        Some(admin) => Some(Heritage::claim(&door(admin)).await?),
        None => None,
    };
    // bound before anything is forwarded: whoever asks finds it not ready, rather than nobody
    let serve_admin = async || match &args.admin {
        Some(address) => {
            let admin = Admin::bind(address, control.clone(), names.clone(), predecessor);
            anyhow::Ok(Some(admin.await?))
        }
        None => Ok(None),
    };
    let mut admin = None;
    match &mut heritage {
        Some(heritage) => control.ambassador().inherit(heritage),
        None => admin = serve_admin().await?,
    }
    let forwards = forwards(&args)?;
    if !args.names {
        control.put(forwards).await?;
    }
    if heritage.is_some() {
        // not before: should this process fail, its predecessor is still asked
        admin = serve_admin().await?;
    }
    let successors = successors(&args);
    if let Some(heritage) = heritage
        && let Err(error) = heritage.take_over().await
    {
        warn!(
            "the predecessor has not said that it stops: {:#}",
            anyhow::Error::from(error)
        );
    }
    for bound in control.ambassador().listeners() {
        info!(forward = %bound.name, listen = %bound.local, "ready");
    }
    forward(&args, &control, successors, &mut signals, log.as_ref()).await;
    drain(&control, args.drain, &mut signals).await;
    if let Some(log) = log {
        finish(&control, &log).await;
    }
    if let Some(admin) = admin {
        admin.end();
    }
    if let Some(mirror) = mirror {
        mirror.stop().await;
    }
    Ok(0)
}

/// None if nobody could replace this process.
fn successors(args: &AmbassadorArgs) -> Option<Successors> {
    // those who ask for names would find them answered by nobody
    let Some(AdminAddress::Unix(admin)) = args.admin.as_ref().filter(|_| !args.names) else {
        return None;
    };
    let bound = Successors::bind(&door(admin)).map_err(anyhow::Error::from);
    bound
        .inspect_err(|error| warn!("this process cannot be replaced while it runs: {error:#}"))
        .ok()
}

/// Serves until told to end, or until a successor does.
async fn forward(
    args: &AmbassadorArgs,
    control: &Control,
    successors: Option<Successors>,
    signals: &mut Signals,
    log: Option<&AccessLog>,
) {
    let replaced = async {
        match &successors {
            Some(successors) => successors.serve(control.ambassador()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(replaced);
    loop {
        tokio::select! {
            () = &mut replaced => {
                info!("a successor has taken over");
                return;
            }
            told = signals.next() => match told {
                Told::End => return,
                Told::Reload => reload(args, control, log).await,
            }
        }
    }
}

fn open_log(args: &AmbassadorArgs) -> anyhow::Result<Option<AccessLog>> {
    let Some(path) = &args.access_log else {
        return Ok(None);
    };
    let log = AccessLog::open(path, args.access_log_format.into());
    log.with_context(|| format!("open --access-log {}", path.display()))
        .map(Some)
}

/// Ends what is left, for it is to be in the log too, and sees the log written.
async fn finish(control: &Control, log: &AccessLog) {
    let ambassador = control.ambassador();
    ambassador.end_flows(&FlowFilter::default());
    let ended = tokio::time::timeout(LAST_RECORDS, ambassador.idle()).await;
    if ended.is_err() || !log.flush(LAST_RECORDS).await {
        warn!("the last records of the access log are not written: it takes too long");
    }
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
    for spec in &mut specs {
        spec.direct.extend_from_slice(&args.direct_cgroup);
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
async fn reload(args: &AmbassadorArgs, control: &Control, log: Option<&AccessLog>) {
    if let Some(log) = log {
        log.reopen();
    }
    if args.config.is_none() && log.is_some() {
        return;
    }
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
    fn a_predecessor_has_a_unix_socket() {
        let admin = predecessor("unix:///run/a.sock").ok();
        assert_eq!(
            admin.as_deref().map(door),
            Some("/run/a.sock.upgrade".into())
        );
        for wrong in ["", "/run/a.sock", "127.0.0.1:9100", "unix://a"] {
            assert!(predecessor(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(grace("10s").ok(), Some(Duration::from_secs(10)));
        assert_eq!(grace("0").ok(), Some(Duration::ZERO));
        for wrong in ["", "s", "-1", "1m", "86401"] {
            assert!(grace(wrong).is_err(), "{wrong:?}");
        }
    }
}
