//! The flags of `nuncio ambassador`, and the forwards they ask for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use nuncio_ambassador::{ForwardSpec, LogFormat, RelayMode, spec};
use tracing::warn;

use super::admin::AdminAddress;
use super::check;
use crate::cli::daemon::RegistryAccess;

/// Flags of `nuncio ambassador`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct AmbassadorArgs {
    #[command(subcommand)]
    pub(super) command: Option<AmbassadorCommand>,

    /// Forward the same port to a host, over TCP
    #[arg(value_name = "HOST", requires = "port", conflicts_with_all = ["listen", "config"])]
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
    pub(super) config: Option<PathBuf>,

    /// How TCP is carried: copied, spliced in the kernel, or whichever suits each flow
    #[arg(long, value_enum, value_name = "auto|copy|splice")]
    mode: Option<Mode>,

    /// Spare processes of this cgroup2 directory the relay: what they connect to the listeners goes
    /// straight to the upstreams (may be repeated)
    #[arg(long, value_name = "PATH", value_parser = spec::from_cgroup)]
    direct_cgroup: Vec<PathBuf>,

    /// Serve /metrics, /ready, /flows, /tap, /explain, /direct and /config here
    #[arg(long, value_name = "ADDR:PORT|unix://PATH")]
    pub(super) admin: Option<AdminAddress>,

    /// Take over the listeners of the ambassador that has this --admin; it ends when its flows have
    #[arg(long, value_name = "unix://PATH", value_parser = predecessor)]
    pub(super) upgrade_from: Option<PathBuf>,

    /// Write a record of each flow at its end; - is standard output. SIGHUP opens the file again
    #[arg(long, value_name = "PATH|-")]
    pub(super) access_log: Option<PathBuf>,

    /// How records are written
    #[arg(
        long,
        value_enum,
        value_name = "json|text",
        default_value = "json",
        requires = "access_log"
    )]
    pub(super) access_log_format: AccessLogFormat,

    /// The registry that knows the services of service://NAME
    #[arg(long, value_name = "URL,..", value_delimiter = ',')]
    pub(super) registry: Vec<String>,

    /// The data directory of this host's daemon, which is a member of a mesh: its registry and its certificate are used
    #[arg(long, value_name = "DIR", conflicts_with_all = ["ca", "certificate", "user"])]
    pub(super) data_root: Option<PathBuf>,

    #[command(flatten)]
    pub(super) registry_access: RegistryAccess,

    /// How long flows may take to end after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10s", value_parser = grace)]
    pub(super) drain: Duration,
}

const EXAMPLES: &str = "\
Examples:
  nuncio ambassador 10.0.0.5 6379                   port 6379 here is port 6379 there
  nuncio ambassador --listen tcp://127.0.0.1:6379 --to tcp://10.0.0.5:6379,tcp://10.0.0.6:6379
  nuncio ambassador --listen tcp://0.0.0.0:6379 --to service://redis --registry http://10.0.0.1:2379
  nuncio ambassador --listen tcp://127.0.0.1:6379 --to service://redis --data-root /var/lib/nuncio
                                                    a service of the mesh that this host has joined
  nuncio ambassador --listen tcp://127.0.0.1:6379 --to service://redis --registry https://10.0.0.1:2379 \\
      --registry-ca ca.pem --registry-cert host.pem --registry-key host.key
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
pub(super) enum AmbassadorCommand {
    /// Read a configuration file and tell what is wrong with it
    Check(check::CheckArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AccessLogFormat {
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

impl AmbassadorArgs {
    /// What the flags, or else the environment, ask for.
    ///
    /// # Errors
    ///
    /// What is wrong with them, or with the file.
    pub(super) fn forwards(&self) -> anyhow::Result<Vec<ForwardSpec>> {
        let mut specs = if let Some(file) = &self.config {
            spec::from_file(file)?
        } else if let (Some(host), Some(port)) = (&self.host, &self.port) {
            vec![spec::from_host_port(host, port)?]
        } else if !self.listen.is_empty() {
            if self.listen.len() != self.to.len() {
                bail!(
                    "{} --listen and {} --to: give each --listen its --to",
                    self.listen.len(),
                    self.to.len()
                );
            }
            let pairs = self.listen.iter().zip(&self.to);
            pairs
                .map(|(listen, to)| spec::from_urls(listen, to))
                .collect::<Result<_, _>>()?
        } else {
            from_env()?
        };
        if let Some(mode) = self.mode {
            specs
                .iter_mut()
                .for_each(|spec| spec.limits.mode = mode.into());
        }
        for spec in &mut specs {
            spec.direct.extend_from_slice(&self.direct_cgroup);
        }
        Ok(specs)
    }
}

fn from_env() -> anyhow::Result<Vec<ForwardSpec>> {
    // what is not UTF-8 cannot be a forward
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let found = spec::from_env(variables)?;
    found.warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok(found.forwards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessor_has_a_unix_socket() {
        let admin = predecessor("unix:///run/a.sock").ok();
        assert_eq!(admin, Some("/run/a.sock".into()));
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
