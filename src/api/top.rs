//! `GET /containers/{id}/top`: a container's processes, out of /proc.

use std::fs;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use bollard_stubs::models::ContainerTopResponse;
use serde::Deserialize;

use super::query::Params;
use super::{Answer, Server};
use crate::daemon::refusal::Refusal;

const TITLES: [&str; 6] = ["UID", "PID", "PPID", "STAT", "TIME", "CMD"];
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
    if !matches!(asked.ps_args.as_str(), "" | "-ef") {
        return Err(Refusal::unsupported(format!(
            "not built: ps options {:?} for top",
            asked.ps_args
        ))
        .into());
    }
    let container = daemon.container(&id)?;
    let processes = daemon
        .container_pids(&container)?
        .into_iter()
        .filter_map(process)
        .collect();
    let titles = TITLES.map(str::to_owned).to_vec();
    Ok(Json(ContainerTopResponse {
        titles: Some(titles),
        processes: Some(processes),
    })
    .into_response())
}

/// A row of the table; `None` for a process that has ended meanwhile.
fn process(pid: u32) -> Option<Vec<String>> {
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
        uid,
        pid.to_string(),
        stat.parent,
        stat.state,
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
    state: String,
    parent: String,
    ticks: u64,
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
            state: (*fields.first()?).to_owned(),
            parent: (*fields.get(1)?).to_owned(),
            ticks: ticks(11)?.saturating_add(ticks(12)?),
        })
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
        let stat = Stat::parse("7 (a) (b c) S 1 7 7 0 -1 4194560 1 2 3 4 350 50 0 0 20")
            .expect("a line of stat");
        let expected = Stat {
            name: "a) (b c".to_owned(),
            state: "S".to_owned(),
            parent: "1".to_owned(),
            ticks: 400,
        };
        assert_eq!(stat, expected);
        assert_eq!(time(stat.ticks), "00:00:04");
        assert_eq!(Stat::parse("7 sh S 1"), None);
    }

    #[test]
    fn this_process_is_shown() {
        let row = process(std::process::id()).expect("it runs");
        assert_eq!(row.len(), TITLES.len());
        assert_eq!(row[1], std::process::id().to_string());
    }
}
