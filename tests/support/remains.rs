//! What a daemon and its containers have on this machine, by the directory they were given; and how it goes away.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::underlay::ip;

/// No process or cgroup takes longer to go.
const LIMIT: Duration = Duration::from_secs(10);

/// What hangs on a host's directory.
pub(crate) struct Remains {
    directory: PathBuf,
}

impl Remains {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// All of it, in words: nothing, if all is gone.
    pub(crate) fn list(&self) -> Vec<String> {
        let processes = self.processes().into_iter().map(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!(
                "process {pid} {}",
                String::from_utf8_lossy(&words).replace('\0', " ")
            )
        });
        let mounts = self
            .mounts()
            .into_iter()
            .map(|target| format!("mount {}", target.display()));
        let cgroups = self
            .cgroups()
            .into_iter()
            .map(|group| format!("cgroup {}", group.display()));
        processes.chain(mounts).chain(cgroups).collect()
    }

    /// Processes of our program that were given the directory, and those whose root file system lies in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let directory = self.directory.to_string_lossy().into_owned();
        let ours = Path::new(env!("CARGO_BIN_EXE_nuncio")).file_name();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let proc = PathBuf::from(format!("/proc/{pid}"));
                let named = fs::read(proc.join("cmdline"))
                    .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&directory));
                let program = fs::read_link(proc.join("exe")).unwrap_or_default();
                let program =
                    PathBuf::from(program.to_string_lossy().trim_end_matches(" (deleted)"));
                let rooted = || {
                    fs::read_to_string(proc.join("mountinfo"))
                        .is_ok_and(|table| has_root_in(&table, &directory))
                };
                (named && program.file_name() == ours) || rooted()
            })
            .collect()
    }

    /// Mounts below the directory, the last one first.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let targets = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from);
        let mut below: Vec<PathBuf> = targets
            .filter(|target| target.starts_with(&self.directory))
            .collect();
        below.reverse();
        below
    }

    /// Cgroups of the containers the directory knows, the inner ones first.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for parent in cgroup_parents() {
            for id in self.container_ids() {
                inner_first(&parent.join(id), &mut found);
            }
        }
        found
    }

    fn container_ids(&self) -> BTreeSet<String> {
        let places = ["d/containers", "x/run"].map(|place| self.directory.join(place));
        let entries = places
            .iter()
            .flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Removes all of it but the directory itself, and carries on past what fails.
    pub(super) fn remove(&self) {
        let deadline = Instant::now() + LIMIT;
        let mut cgroups = self.cgroups();
        loop {
            let processes = self.processes();
            for pid in &processes {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL); // gone already is as good
            }
            if processes.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                eprintln!("these outlive SIGKILL: {processes:?}");
                break;
            }
            sleep(Duration::from_millis(10));
        }
        for target in self.mounts() {
            if umount2(&target, MntFlags::empty()).is_err() {
                let _ = umount2(&target, MntFlags::MNT_DETACH);
            }
        }
        cgroups.extend(self.cgroups()); // of a container that was being made
        for group in cgroups {
            // A group is busy until the kernel is done with its last process.
            while group.exists() && fs::remove_dir(&group).is_err() && Instant::now() < deadline {
                sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Whether the table's root is an overlay with a layer in `directory`.
fn has_root_in(mountinfo: &str, directory: &str) -> bool {
    let root = mountinfo
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| {
        line.contains(&format!("={directory}/")) || line.contains(&format!(":{directory}/"))
    })
}

/// `nuncio` in each hierarchy, on cgroup v2 and on v1 hybrids.
fn cgroup_parents() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    std::iter::once(top.to_owned())
        .chain(hierarchies)
        .map(|path| path.join("nuncio"))
        .filter(|path| path.is_dir())
        .collect()
}

fn inner_first(group: &Path, into: &mut Vec<PathBuf>) {
    if !group.is_dir() {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            inner_first(&entry.path(), into);
        }
    }
    into.push(group.to_owned());
}

/// Removes what test processes left that were killed before they could do so.
pub(super) fn remove_those_of_dead_tests() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_str().is_some_and(is_dead) {
            Remains::of(&entry.path()).remove();
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| is_dead(name)) {
            let gone = ip(&format!("netns del {name}"));
            if gone.code != 0 {
                eprintln!("{gone:?}");
            }
        }
    }
}

/// Whether `name` is `nt-<pid>-…` of a process that is no more.
fn is_dead(name: &str) -> bool {
    let pid = name
        .strip_prefix("nt-")
        .and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}
