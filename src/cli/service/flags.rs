//! The flags that `service create` and `service update` share.

use clap::{ArgAction, Args};

use crate::cli::parse::{Cpus, KeyValue, Size, Span, Words};

/// What a service's tasks are to be, and how many.
#[derive(Args, Debug)]
pub(super) struct SharedFlags {
    /// Return at once, rather than when the tasks run
    #[arg(short, long)]
    pub(super) detach: bool,

    /// Do not show how it goes
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// Number of tasks
    #[arg(long, value_name = "NUMBER")]
    pub(super) replicas: Option<i64>,

    /// Most tasks of a job at a time (default: as many as --replicas)
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_concurrent: Option<i64>,

    /// Most tasks on one node; 0: any number
    #[arg(long, value_name = "NUMBER")]
    pub(super) replicas_max_per_node: Option<i64>,

    /// How the service's name is resolved: vip, an address of its own, or dnsrr, those of its tasks
    #[arg(long, value_name = "MODE", value_parser = ["vip", "dnsrr"])]
    pub(super) endpoint_mode: Option<String>,

    #[command(flatten)]
    pub(super) container: ContainerFlags,

    #[command(flatten)]
    pub(super) resources: ResourceFlags,

    #[command(flatten)]
    pub(super) restart: RestartFlags,

    #[command(flatten)]
    pub(super) update: UpdateFlags,

    #[command(flatten)]
    pub(super) rollback: RollbackFlags,

    #[command(flatten)]
    pub(super) health: ServiceHealthFlags,

    /// Give the nodes the account at the image's registry
    #[arg(long)]
    pub(super) with_registry_auth: bool,

    /// Do not ask the registry for the image's digest
    #[arg(long)]
    pub(super) no_resolve_image: bool,
}

/// How its containers are.
#[derive(Args, Debug)]
pub(super) struct ContainerFlags {
    /// Host name inside the containers
    #[arg(long, value_name = "NAME")]
    pub(super) hostname: Option<String>,

    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,

    /// Working directory inside the containers
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,

    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub(super) entrypoint: Option<Words>,

    /// Run an init as process 1, which passes signals on and reaps
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub(super) init: Option<bool>,

    /// Give the containers a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub(super) tty: Option<bool>,

    /// Mount their root read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub(super) read_only: Option<bool>,

    /// Signal that stops a container
    #[arg(long, value_name = "SIGNAL")]
    pub(super) stop_signal: Option<String>,

    /// Time between that signal and SIGKILL (10s)
    #[arg(long, value_name = "DURATION")]
    pub(super) stop_grace_period: Option<Span>,

    /// Whom the kernel kills first for want of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(super) oom_score_adj: Option<i64>,

    /// Where output is kept
    #[arg(long, value_name = "DRIVER")]
    pub(super) log_driver: Option<String>,

    /// Options of the log, as max-size=10m
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) log_opt: Vec<KeyValue>,

    /// Refused but for default: there are no others on Linux
    #[arg(long, value_name = "NAME")]
    pub(super) isolation: Option<String>,

    /// Refused: of Windows
    #[arg(long, value_name = "SPEC")]
    pub(super) credential_spec: Option<String>,
}

/// What each task may take, and what is kept for it.
#[derive(Args, Debug)]
pub(super) struct ResourceFlags {
    /// Most processors, as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(super) limit_cpu: Option<Cpus>,

    /// Most memory, as 512m
    #[arg(long, value_name = "BYTES")]
    pub(super) limit_memory: Option<Size>,

    /// Most processes; 0: any number
    #[arg(long, value_name = "NUMBER")]
    pub(super) limit_pids: Option<i64>,

    /// Processors to keep for it on its node
    #[arg(long, value_name = "NUMBER")]
    pub(super) reserve_cpu: Option<Cpus>,

    /// Memory to keep for it on its node
    #[arg(long, value_name = "BYTES")]
    pub(super) reserve_memory: Option<Size>,
}

/// When a task that ended is replaced.
#[derive(Args, Debug)]
pub(super) struct RestartFlags {
    /// When a task is replaced: none, on-failure or any (any)
    #[arg(long, value_name = "CONDITION", value_parser = ["none", "on-failure", "any"])]
    pub(super) restart_condition: Option<String>,

    /// How long after its end (5s)
    #[arg(long, value_name = "DURATION")]
    pub(super) restart_delay: Option<Span>,

    /// How often, before it is given up
    #[arg(long, value_name = "NUMBER")]
    pub(super) restart_max_attempts: Option<i64>,

    /// In which time that is counted
    #[arg(long, value_name = "DURATION")]
    pub(super) restart_window: Option<Span>,
}

/// How tasks are replaced by those of a new specification.
#[derive(Args, Debug)]
pub(super) struct UpdateFlags {
    /// Tasks that are updated at a time; 0: all (1)
    #[arg(long, value_name = "NUMBER")]
    pub(super) update_parallelism: Option<i64>,

    /// Time between two updates (0s)
    #[arg(long, value_name = "DURATION")]
    pub(super) update_delay: Option<Span>,

    /// How long each task is watched for failure (5s)
    #[arg(long, value_name = "DURATION")]
    pub(super) update_monitor: Option<Span>,

    /// What a failure does: pause, continue or rollback (pause)
    #[arg(long, value_name = "ACTION", value_parser = ["pause", "continue", "rollback"])]
    pub(super) update_failure_action: Option<String>,

    /// The part of tasks that may fail, as 0.2 (0)
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub(super) update_max_failure_ratio: Option<f64>,

    /// What comes first, the old task's stop or the new one's start: stop-first or start-first (stop-first)
    #[arg(long, value_name = "ORDER", value_parser = ["start-first", "stop-first"])]
    pub(super) update_order: Option<String>,
}

/// The same where tasks are replaced by those of the specification before.
#[derive(Args, Debug)]
pub(super) struct RollbackFlags {
    /// Tasks that are rolled back at a time; 0: all (1)
    #[arg(long, value_name = "NUMBER")]
    pub(super) rollback_parallelism: Option<i64>,

    /// Time between two of them (0s)
    #[arg(long, value_name = "DURATION")]
    pub(super) rollback_delay: Option<Span>,

    /// How long each task is watched for failure (5s)
    #[arg(long, value_name = "DURATION")]
    pub(super) rollback_monitor: Option<Span>,

    /// What a failure does: pause or continue (pause)
    #[arg(long, value_name = "ACTION", value_parser = ["pause", "continue"])]
    pub(super) rollback_failure_action: Option<String>,

    /// The part of tasks that may fail, as 0.2 (0)
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub(super) rollback_max_failure_ratio: Option<f64>,

    /// What comes first, the old task's stop or the new one's start: stop-first or start-first (stop-first)
    #[arg(long, value_name = "ORDER", value_parser = ["start-first", "stop-first"])]
    pub(super) rollback_order: Option<String>,
}

/// How the health of its containers is checked.
#[derive(Args, Debug)]
pub(super) struct ServiceHealthFlags {
    /// Command that tells whether a container is well, run by its shell
    #[arg(long, value_name = "COMMAND")]
    pub(super) health_cmd: Option<String>,

    /// Time between two checks (30s)
    #[arg(long, value_name = "DURATION")]
    pub(super) health_interval: Option<Span>,

    /// Time after which a check has failed (30s)
    #[arg(long, value_name = "DURATION")]
    pub(super) health_timeout: Option<Span>,

    /// Failures in a row that make it unhealthy (3)
    #[arg(long, value_name = "NUMBER")]
    pub(super) health_retries: Option<i64>,

    /// Time to start in, during which failures do not count
    #[arg(long, value_name = "DURATION")]
    pub(super) health_start_period: Option<Span>,

    /// Time between two checks during that (5s)
    #[arg(long, value_name = "DURATION")]
    pub(super) health_start_interval: Option<Span>,

    /// Do not check, even if the image says how
    #[arg(long)]
    pub(super) no_healthcheck: bool,
}

/// Not a part of one.
#[derive(Debug, thiserror::Error)]
#[error("invalid ratio {0:?}: expected a number from 0 to 1, as 0.2")]
pub(super) struct InvalidRatio(String);

fn ratio(text: &str) -> Result<f64, InvalidRatio> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(InvalidRatio(text.to_owned())),
    }
}
