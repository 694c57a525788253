//! `GET /containers/{id}/top`: a container's processes, out of /proc, or as the host's `ps` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use bollard_stubs::models::ContainerTopResponse;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use tokio::process::Command;

use super::query::Params;
use super::{Answer, Server};
use crate::daemon::refusal::Refusal;

/// As `ps -ef` has them.
const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
/// Units of processor time in a second, as /proc counts on every architecture we build for (proc_pid_stat(5)).
const TICKS: u64 = 100;

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    ps_args: String,
}

pub(crate) async fn top(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
) -> Answer {
    let container = daemon.container(&id)?;
    let pids = daemon.container_pids(&container)?;
    let (titles, processes) = match asked.ps_args.trim() {
        "" | "-ef" => {
            let host = Host::look();
            let rows = pids.into_iter().filter_map(|pid| process(pid, &host));
            (TITLES.map(str::to_owned).to_vec(), rows.collect())
        }
        options => table(&run_ps(options).await?, &pids.into_iter().collect())?,
    };
    Ok(Json(ContainerTopResponse {
        titles: Some(titles),
        processes: Some(processes),
    })
    .into_response())
}

/// What the host's `ps` prints with these options, of all its processes.
async fn run_ps(options: &str) -> anyhow::Result<String> {
    let renamed = |word: &str| word.to_ascii_lowercase().replace(' ', "").contains("pid=");
    if renamed(options) {
        let message = format!("specifying \"{options}\" is not allowed: it gives PID another name");
        return Err(Refusal::invalid(message).into());
    }
    let output = Command::new("ps")
        .args(options.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .await
        .context("run the host's ps, which shows processes by these options")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said
            .lines()
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        return Err(Refusal::invalid(format!("ps: {first}")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The titles and the rows of those processes, the last column being as long as it likes.
fn table(text: &str, pids: &BTreeSet<u32>) -> Result<(Vec<String>, Vec<Vec<String>>), Refusal> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let Some(at) = titles.iter().position(|title| title == "PID") else {
        return Err(Refusal::invalid("Couldn't find PID field in ps output"));
    };
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid: u32 = words.get(at)?.parse().ok()?;
        if !pids.contains(&pid) {
            return None;
        }
        let (head, tail) = words.split_at_checked(titles.len() - 1)?;
        let mut row: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
        row.push(tail.join(" "));
        Some(row)
    };
    let rows = lines.filter_map(row).collect();
    Ok((titles, rows))
}

/// What of the host is needed to tell of its processes.
struct Host {
    passwd: String,
    /// Seconds since 1970.
    booted: u64,
    now: Timestamp,
}

impl Host {
    fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let booted = read("/proc/stat")
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.parse().ok());
        Self {
            passwd: read("/etc/passwd"),
            booted: booted.unwrap_or_default(),
            now: Timestamp::now(),
        }
    }

    /// The user's name, or the number if there is none.
    fn user(&self, uid: &str) -> String {
        let is = |line: &&str| line.split(':').nth(2) == Some(uid);
        let line = self.passwd.lines().find(is);
        let name = line.and_then(|line| line.split(':').next());
        name.unwrap_or(uid).to_owned()
    }

    /// When a process began: the time of day, or the day if that is not today.
    fn start(&self, ticks: u64) -> String {
        let seconds = self.booted.saturating_add(ticks / TICKS);
        let began = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        let zone = TimeZone::system();
        let (began, now) = (
            began.unwrap_or_default().to_zoned_datetime(zone.clone()),
            self.now.to_zoned_datetime(zone),
        );
        let format = if began.date() == now.date() {
            "%H:%M"
        } else {
            "%b%d"
        };
        began.strftime(format).to_string()
    }
}

/// A row of the table; `None` for a process that has ended meanwhile.
fn process(pid: u32, host: &Host) -> Option<Vec<String>> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let uid = uid(&read("status")?)?;
    let stat = Stat::parse(&read("stat")?)?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = command
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let command = match words.join(" ").trim_end() {
        "" => format!("[{}]", stat.name),
        command => command.to_owned(),
    };
    Some(vec![
        host.user(&uid),
        pid.to_string(),
        stat.parent,
        "0".to_owned(), // ps has rounded it to nothing for most, too
        host.start(stat.start),
        terminal(stat.terminal),
        time(stat.ticks),
        command,
    ])
}

fn uid(status: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// What is shown of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    parent: String,
    /// Its number; 0 is none.
    terminal: u64,
    /// Of processor time.
    ticks: u64,
    /// When it began, since the machine did.
    start: u64,
}

impl Stat {
    /// The name is in parentheses and may hold any character, also these.
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: (*fields.get(1)?).to_owned(),
            terminal: ticks(4)?,
            ticks: ticks(11)?.saturating_add(ticks(12)?),
            start: ticks(19)?,
        })
    }
}

/// `pts/0` for a device number out of `/proc/<pid>/stat`.
fn terminal(number: u64) -> String {
    let (major, minor) = (
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xfff00),
    );
    match (major, minor) {
        (0, _) => "?".to_owned(),
        (136..=143, minor) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, minor) => format!("tty{minor}"),
        (major, minor) => format!("{major}:{minor}"),
    }
}

fn time(ticks: u64) -> String {
    let seconds = ticks / TICKS;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_parentheses_and_spaces() {
        let stat =
            Stat::parse("7 (a) (b c) S 1 7 7 34816 -1 4194560 1 2 3 4 350 50 0 0 20 0 1 0 99 1000")
                .expect("a line of stat");
        let expected = Stat {
            name: "a) (b c".to_owned(),
            parent: "1".to_owned(),
            terminal: 34816,
            ticks: 400,
            start: 99,
        };
        assert_eq!(stat, expected);
        assert_eq!(time(stat.ticks), "00:00:04");
        assert_eq!(Stat::parse("7 sh S 1"), None);
    }

    #[test]
    fn this_process_is_shown() {
        let row = process(std::process::id(), &Host::look()).expect("it runs");
        assert_eq!(row.len(), TITLES.len());
        assert_eq!(row[1], std::process::id().to_string());
    }

    #[test]
    fn terminals_are_named() {
        for (number, expected) in [(0, "?"), (34816, "pts/0"), (34819, "pts/3"), (1025, "tty1")] {
            assert_eq!(terminal(number), expected);
        }
    }

    #[test]
    fn the_table_of_ps_is_narrowed_to_the_containers() {
        let text =
            "  PID USER COMMAND\n    7 root sh -c  x\n   70 root sh\n    x y z\n    8 me a\n";
        let (titles, rows) = table(text, &[7, 8].into()).expect("it has a PID");
        assert_eq!(titles, ["PID", "USER", "COMMAND"]);
        assert_eq!(rows, [["7", "root", "sh -c x"], ["8", "me", "a"]]);
        assert!(table("USER COMMAND\n", &[7].into()).is_err());
    }
}
