//! Stops a container's processes where they stand, and lets them go on, by its cgroup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroups::Layout;
use crate::plan::Plan;

/// How long the kernel may take to stop every process; one that is deep in a system call holds it up.
const LIMIT: Duration = Duration::from_secs(10);
/// The kernel tells nobody when a v1 group is frozen: it is asked again so often.
const PAUSE: Duration = Duration::from_millis(2);

/// Why a container could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is no freezer, which is a controller of its own in cgroup v1.
    #[error("this machine has no freezer cgroup")]
    Absent,
    /// It did not come to rest; it has been let go again.
    #[error("not every process of {} could be stopped within {} s", group.display(), LIMIT.as_secs())]
    Restless {
        /// The container's group.
        group: PathBuf,
    },
    /// The container is not there, or the kernel refuses.
    #[error("freeze or thaw the container in {}", run_dir.display())]
    Io {
        /// The run directory.
        run_dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A container's group, and how its freezer is spoken to.
struct Freezer {
    /// Written to.
    control: PathBuf,
    /// Read from.
    state: PathBuf,
    /// What is written to freeze, and to thaw.
    words: (&'static str, &'static str),
    /// A line of `state` when all is frozen.
    frozen: &'static str,
    group: PathBuf,
}

/// Freezes the container of `run_dir`; it returns when none of its processes runs any more. It blocks.
///
/// # Errors
///
/// [`FreezeError`]; the container runs on then.
pub fn freeze(run_dir: &Path) -> Result<(), FreezeError> {
    let freezer = Freezer::of(run_dir)?;
    let failed = |source| FreezeError::Io {
        run_dir: run_dir.into(),
        source,
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        // said again each time, for a v1 group may miss a process that is just being born
        fs::write(&freezer.control, freezer.words.0).map_err(failed)?;
        if freezer.is_frozen().map_err(failed)? {
            return Ok(());
        }
        if Instant::now() > deadline {
            fs::write(&freezer.control, freezer.words.1).map_err(failed)?;
            return Err(FreezeError::Restless {
                group: freezer.group,
            });
        }
        sleep(PAUSE);
    }
}

/// Lets the container of `run_dir` go on; one that is not frozen is no error.
///
/// # Errors
///
/// [`FreezeError`].
pub fn thaw(run_dir: &Path) -> Result<(), FreezeError> {
    let freezer = Freezer::of(run_dir)?;
    fs::write(&freezer.control, freezer.words.1).map_err(|source| FreezeError::Io {
        run_dir: run_dir.into(),
        source,
    })
}

/// Whether the container of `run_dir` is frozen.
///
/// # Errors
///
/// [`FreezeError`].
pub fn is_frozen(run_dir: &Path) -> Result<bool, FreezeError> {
    let freezer = Freezer::of(run_dir)?;
    freezer.is_frozen().map_err(|source| FreezeError::Io {
        run_dir: run_dir.into(),
        source,
    })
}

impl Freezer {
    fn of(run_dir: &Path) -> Result<Self, FreezeError> {
        let plan = Plan::load(run_dir).map_err(|source| FreezeError::Io {
            run_dir: run_dir.into(),
            source,
        })?;
        let layout = Layout::detect();
        let group = layout
            .group("freezer", &plan.cgroup)
            .ok_or(FreezeError::Absent)?;
        Ok(match layout {
            Layout::V1 { .. } => Self {
                control: group.join("freezer.state"),
                state: group.join("freezer.state"),
                words: ("FROZEN", "THAWED"),
                frozen: "FROZEN",
                group,
            },
            Layout::Unified | Layout::Absent => Self {
                control: group.join("cgroup.freeze"),
                state: group.join("cgroup.events"),
                words: ("1", "0"),
                frozen: "frozen 1",
                group,
            },
        })
    }

    fn is_frozen(&self) -> io::Result<bool> {
        let text = fs::read_to_string(&self.state)?;
        Ok(text.lines().any(|line| line == self.frozen))
    }
}
