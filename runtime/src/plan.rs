//! `shim.json`: what a shim does beyond the OCI bundle beside it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capabilities::CapSet;
use crate::group_values::GroupValue;
use crate::spec::LogOptions;
use crate::status;

const PLAN_FILE: &str = "shim.json";

/// What libcontainer does not do, or does wrong, and the shim therefore does itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    pub(crate) v: u32,
    pub(crate) id: String,
    pub(crate) role: Role,
    pub(crate) payload: Payload,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: Option<Log>,
    /// `<parent>/<id>` in every hierarchy.
    pub(crate) cgroup: PathBuf,
    /// What libcontainer does not tell its groups.
    #[serde(default)]
    pub(crate) group_values: Vec<GroupValue>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The container's first process, from `config.json`.
    Init,
    /// A further one, from `process.json`, in the container whose run directory this is.
    Exec(PathBuf),
}

/// The process in the container from where libcontainer hands over.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Payload {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    /// `args` is run by `/sbin/docker-init`.
    pub(crate) reaper: bool,
    pub(crate) capabilities: CapSet,
    /// The capabilities by which the seccomp filter is chosen, `None` for no filter.
    pub(crate) filter_for: Option<CapSet>,
    pub(crate) oom_score_adj: i32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Log {
    path: PathBuf,
    max_size: Option<u64>,
    max_file: u32,
}

impl Plan {
    pub(crate) fn load(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(PLAN_FILE);
        let plan: Self = status::load(&path)?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is missing", path.display()),
            )
        })?;
        if plan.v == 1 {
            Ok(plan)
        } else {
            let text = format!(
                "{} has version {}, this nuncio knows 1",
                path.display(),
                plan.v
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }

    pub(crate) fn save(&self, run_dir: &Path) -> io::Result<()> {
        status::save(&run_dir.join(PLAN_FILE), self)
    }
}

impl From<&LogOptions> for Log {
    fn from(options: &LogOptions) -> Self {
        Self {
            path: options.path.clone(),
            max_size: options.max_size,
            max_file: options.max_file,
        }
    }
}

impl From<Log> for LogOptions {
    fn from(log: Log) -> Self {
        Self {
            path: log.path,
            max_size: log.max_size,
            max_file: log.max_file,
        }
    }
}
