//! Where and when a run was made.

use std::fs;
use std::thread;

use jiff::Timestamp;

/// What a figure must not be read without.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) revision: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) time: Timestamp,
}

impl Machine {
    pub(crate) fn here(revision: &str) -> Self {
        let unknown = || "unknown".to_owned();
        let uname = nix::sys::utsname::uname().ok();
        let kernel = uname.and_then(|uname| Some(uname.release().to_str()?.to_owned()));
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = (cpuinfo.lines())
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, name)| name.to_owned());
        Self {
            revision: revision.to_owned(),
            kernel: kernel.unwrap_or_else(unknown),
            processor: processor.unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(0, usize::from),
            time: Timestamp::now(),
        }
    }

    /// The time as a part of a file's name, as 20260131T235959Z.
    pub(crate) fn stamp(&self) -> String {
        self.time.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// In one line.
    pub(crate) fn words(&self) -> String {
        let Self {
            revision,
            kernel,
            processor,
            cores,
            time,
        } = self;
        let date = time.strftime("%Y-%m-%d");
        format!("revision {revision}, {cores} cores of {processor}, Linux {kernel}, {date}")
    }
}
