//! docs/DOCKER.md says of each of docker's commands and flags whether `nuncio` has it: that must be true.

use std::collections::BTreeSet;
use std::process::{Command, Output};

const TABLE: &str = include_str!("../docs/DOCKER.md");

/// A row of the table: commands that are the same, and their flags.
struct Row {
    commands: Vec<Vec<String>>,
    there: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn rows() -> Vec<Row> {
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let rows = TABLE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = cells(line);
            let [_, commands, there, missing, _] = cells[..] else {
                panic!("three cells: {line}");
            };
            let words = |command: &str| command.split(' ').map(str::to_owned).collect();
            let flags = |cell| quoted(cell).map(str::to_owned).collect();
            Row {
                commands: quoted(commands).map(words).collect(),
                there: flags(there),
                missing: flags(missing),
            }
        });
    rows.collect()
}

fn help(program: &str, command: &[String]) -> Output {
    let output = Command::new(program).args(command).arg("--help").output();
    output.unwrap_or_else(|error| panic!("run {program}: {error}"))
}

/// The long flags that a help text lists, but `--help` itself.
fn flags(help: &Output) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&help.stdout);
    let listed = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let long = match line.split_once(", ") {
            Some((short, rest)) if short.len() == 2 && short.starts_with('-') => rest,
            _ => line,
        };
        let name = long.strip_prefix("--")?;
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        Some(format!("--{}", &name[..end.unwrap_or(name.len())]))
    });
    listed
        .filter(|flag| flag != "--help" && flag != "--host")
        .collect()
}

#[test]
fn nuncio_has_what_the_table_says_and_nothing_that_it_denies() {
    let nuncio = env!("CARGO_BIN_EXE_nuncio");
    let rows = rows();
    assert!(rows.len() > 50, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        for command in &row.commands {
            let help = help(nuncio, command);
            let has = flags(&help);
            let name = command.join(" ");
            if !help.status.success() {
                wrong.push(format!("{name}: there is no such command"));
                continue;
            }
            let denied: Vec<_> = row.missing.intersection(&has).collect();
            let claimed: Vec<_> = row.there.difference(&has).collect();
            if !denied.is_empty() || !claimed.is_empty() {
                wrong.push(format!("{name}: has {denied:?}, has not {claimed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_leaves_out_no_flag_of_the_docker_client() {
    let version = Command::new("docker").arg("--version").output();
    let version = version.expect("run docker --version").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.contains(" 28.") {
        // Others have other flags; the table speaks of those of 28.
        println!("not compared: this is {}", version.trim());
        return;
    }
    let mut forgotten = Vec::new();
    for row in rows() {
        for command in &row.commands {
            let help = help("docker", command);
            if !help.status.success() {
                continue; // one of nuncio's own spellings
            }
            for flag in flags(&help) {
                if !row.there.contains(&flag) && !row.missing.contains(&flag) {
                    forgotten.push(format!("{} {flag}", command.join(" ")));
                }
            }
        }
    }
    assert!(forgotten.is_empty(), "{forgotten:#?}");
}
