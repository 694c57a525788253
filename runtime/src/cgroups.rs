//! The cgroups of a container in whichever hierarchies this machine has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys;

const ROOT: &str = "/sys/fs/cgroup";

/// How control groups are laid out here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Layout {
    /// One cgroup2 hierarchy with every controller.
    Unified,
    /// A hierarchy per v1 controller; beside them perhaps a cgroup2 one without controllers.
    V1 {
        hierarchies: Vec<PathBuf>,
        cgroup2: Option<PathBuf>,
    },
    /// None are mounted in this mount namespace.
    Absent,
}

impl Layout {
    /// As it is when it is first asked for. It stays so for as long as a host is up, and the list of mounts grows with
    /// each container: who looks at all of them each second would read it as often.
    pub(crate) fn detect() -> Self {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return found.clone();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        match Self::from_mounts(&mounts) {
            Self::Absent => Self::Absent,
            found => FOUND.get_or_init(|| found).clone(),
        }
    }

    fn from_mounts(mounts: &str) -> Self {
        let of_type = |wanted: &'static str| {
            mounts.lines().filter_map(move |line| {
                let mut words = line.split_ascii_whitespace().skip(1);
                let (target, kind) = (words.next()?, words.next()?);
                (kind == wanted && target.starts_with(ROOT)).then(|| PathBuf::from(target))
            })
        };
        let hierarchies: Vec<_> = of_type("cgroup")
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        match (hierarchies.is_empty(), of_type("cgroup2").next_back()) {
            (true, Some(_)) => Self::Unified,
            (true, None) => Self::Absent,
            (false, cgroup2) => Self::V1 {
                hierarchies,
                cgroup2,
            },
        }
    }

    /// Where `controller` keeps the group `cgroup`; `None` if this machine has no such controller.
    pub(crate) fn group(&self, controller: &str, cgroup: &Path) -> Option<PathBuf> {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        match self {
            Self::Unified => Some(Path::new(ROOT).join(relative)),
            Self::V1 { hierarchies, .. } => {
                let of = |path: &&PathBuf| {
                    path.file_name()
                        .and_then(|name| name.to_str())
                        .is_some_and(|name| name.split(',').any(|name| name == controller))
                };
                Some(hierarchies.iter().find(of)?.join(relative))
            }
            Self::Absent => None,
        }
    }

    /// Where the hierarchy of cgroup2 keeps the group `cgroup`; `None` if there is no such hierarchy.
    pub(crate) fn cgroup2(&self, cgroup: &Path) -> Option<PathBuf> {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        match self {
            Self::Unified => Some(Path::new(ROOT).join(relative)),
            Self::V1 { cgroup2, .. } => Some(cgroup2.as_ref()?.join(relative)),
            Self::Absent => None,
        }
    }

    /// Where each hierarchy keeps the group `cgroup`.
    fn paths(&self, cgroup: &Path) -> Vec<PathBuf> {
        let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
        match self {
            Self::Unified => vec![Path::new(ROOT).join(relative)],
            Self::V1 {
                hierarchies,
                cgroup2,
            } => hierarchies
                .iter()
                .chain(cgroup2)
                .map(|root| root.join(relative))
                .collect(),
            Self::Absent => Vec::new(),
        }
    }
}

/// The directory in the hierarchy of cgroup2 below which containers with this parent have a group each, by their
/// ids; it need not be there yet. `None` if this machine has no such hierarchy.
pub fn cgroup2(parent: &str) -> Option<PathBuf> {
    let root = match Layout::detect() {
        Layout::Unified => PathBuf::from(ROOT),
        Layout::V1 { cgroup2, .. } => cgroup2?,
        Layout::Absent => return None,
    };
    Some(root.join(parent.trim_start_matches('/')))
}

/// Moves the caller into the cgroup2 group `cgroup` of a hybrid layout, so that what it forks is born there, and
/// back when dropped. Elsewhere it does nothing: on a pure cgroup2 libcontainer places the process.
pub(crate) struct Joined(Option<PathBuf>);

impl Joined {
    /// Makes the group if it is not there.
    pub(crate) fn make(cgroup: &Path) -> io::Result<Self> {
        Self::join(cgroup, |group| fs::create_dir_all(group))
    }

    /// Only where the group is there: what was made for a container that is just being removed, nobody would remove.
    pub(crate) fn enter(cgroup: &Path) -> io::Result<Self> {
        Self::join(cgroup, |_| Ok(()))
    }

    fn join(cgroup: &Path, prepare: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Self> {
        let Layout::V1 {
            cgroup2: Some(root),
            ..
        } = Layout::detect()
        else {
            return Ok(Self(None));
        };
        let group = root.join(cgroup.strip_prefix("/").unwrap_or(cgroup));
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default()
            .to_owned();
        prepare(&group)?;
        fs::write(group.join("cgroup.procs"), "0")?;
        Ok(Self(Some(root.join(own))))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(own) = &self.0
            && let Err(error) = fs::write(own.join("cgroup.procs"), "0")
        {
            eprintln!("return to cgroup {}: {error}", own.display());
        }
    }
}

/// The numbers of all processes in any of the groups `cgroup` and below.
pub(crate) fn processes(cgroup: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for path in Layout::detect().paths(cgroup) {
        for group in below(&path) {
            let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(
                procs
                    .lines()
                    .filter_map(|line| line.parse::<i32>().ok())
                    .filter(|pid| *pid > 0),
            );
        }
    }
    found
}

/// Whether the kernel killed a process of the group for want of memory.
pub(crate) fn oom_killed(cgroup: &Path) -> bool {
    Layout::detect().paths(cgroup).iter().any(|path| {
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        })
    })
}

/// Kills whatever runs in the groups and removes them. Those that are gone already are no error.
pub(crate) fn remove(cgroup: &Path) -> io::Result<()> {
    kill(cgroup, Duration::from_secs(10))?;
    let mut first = Ok(());
    for path in Layout::detect().paths(cgroup) {
        for group in below(&path).into_iter().rev() {
            match fs::remove_dir(&group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if first.is_ok() => {
                    first = Err(io::Error::new(
                        error.kind(),
                        format!("remove cgroup {}: {error}", group.display()),
                    ));
                }
                Err(_) => {}
            }
        }
    }
    first
}

/// Removes the empty groups `parent`, which containers leave behind for each other. Not while one is being made.
pub(crate) fn remove_empty(parent: &Path) {
    for path in Layout::detect().paths(parent) {
        let _ = fs::remove_dir(path); // in use, or gone
    }
}

/// Kills until the groups are empty, since a process may fork while it is being killed.
fn kill(cgroup: &Path, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    thaw(cgroup);
    loop {
        let pids = processes(cgroup);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            let Some(handle) =
                Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            // it still is in the group, so the number was not given to a stranger
            if processes(cgroup).contains(pid) {
                let _ = sys::pidfd_kill(std::os::fd::AsFd::as_fd(&handle), nix::libc::SIGKILL); // it ended by itself
                wait_end(&handle, deadline.saturating_duration_since(Instant::now()))?;
            }
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "processes {pids:?} in cgroup {} do not die",
                    cgroup.display()
                ),
            ));
        }
    }
}

/// Lets a group go on that is frozen, for what is frozen does not die.
fn thaw(cgroup: &Path) {
    let layout = Layout::detect();
    let Some(group) = layout.group("freezer", cgroup) else {
        return;
    };
    let (file, word) = match layout {
        Layout::V1 { .. } => ("freezer.state", "THAWED"),
        Layout::Unified | Layout::Absent => ("cgroup.freeze", "0"),
    };
    let _ = fs::write(group.join(file), word); // it is gone, or was never frozen
}

/// Waits until the process behind `pidfd` ended.
pub(crate) fn wait_end(pidfd: &impl std::os::fd::AsFd, limit: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout))?;
    Ok(())
}

/// `path` and all groups below, parents first.
fn below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_path_buf()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let children: Vec<_> = fs::read_dir(group)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entering_a_group_that_is_gone_makes_none() {
        let gone = Path::new("/nuncio-test-gone/container");
        let _ = Joined::enter(gone); // an error on a hybrid, and nothing elsewhere
        let made = Layout::detect()
            .paths(gone)
            .into_iter()
            .any(|path| path.exists());
        assert!(!made);
    }

    #[test]
    fn layouts() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(Layout::from_mounts(v2), Layout::Unified);
        assert_eq!(
            Layout::from_mounts("proc /proc proc rw 0 0\n"),
            Layout::Absent
        );
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let layout = Layout::from_mounts(hybrid);
        let paths = layout.paths(Path::new("/nuncio/c1"));
        let expected = ["cpu", "memory", "unified"]
            .map(|name| PathBuf::from(format!("/sys/fs/cgroup/{name}/nuncio/c1")));
        assert_eq!(paths, expected);
        let group = |controller| layout.group(controller, Path::new("/nuncio/c1"));
        assert_eq!(group("memory"), Some(expected[1].clone()));
        assert_eq!(group("freezer"), None);
    }
}
