//! What docs/DOCKER.md says of docker's commands and flags, for both clients: that must be true.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use support::{Client, Image, single, tool};

const TABLE: &str = include_str!("../docs/DOCKER.md");

/// A row of the table of commands that are there: those that are the same, and their flags.
struct Row {
    commands: Vec<String>,
    there: BTreeSet<String>,
    refused: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The rows of the table below a heading, as their cells.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = TABLE
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("there is no {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let inside = line.trim_start_matches('|').trim_end_matches('|');
        inside.split('|').map(str::trim).collect()
    })
    .collect()
}

fn rows() -> Vec<Row> {
    let flags = |cell: &str| quoted(cell).map(str::to_owned).collect();
    let rows = table("There").into_iter().map(|cells| {
        let [commands, there, _differs, refused, missing] = cells[..] else {
            panic!("five cells: {cells:?}");
        };
        Row {
            commands: quoted(commands).map(str::to_owned).collect(),
            there: flags(there),
            refused: flags(refused),
            missing: flags(missing),
        }
    });
    rows.collect()
}

fn help(program: &str, command: &str) -> Output {
    let program = match program {
        "docker" => tool("docker"),
        _ => env!("CARGO_BIN_EXE_nuncio").into(),
    };
    let mut run = Command::new(&program);
    run.args(command.split_whitespace()).arg("--help");
    let output = run.output();
    output.unwrap_or_else(|error| panic!("run {}: {error}", program.display()))
}

/// The long flags that a help text lists, but `--help` itself and what all commands have.
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
        .filter(|flag| !["--help", "--host", "--context"].contains(&flag.as_str()))
        .collect()
}

/// All commands of the docker client that have none below them, but for those of plugins.
fn commands(below: &str, found: &mut Vec<String>) {
    let text = help("docker", below).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (mut listed, mut any) = (false, false);
    for line in text.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            listed = line.ends_with("Commands:");
        }
        let name = line
            .strip_prefix("  ")
            .and_then(|line| line.split(' ').next());
        let Some(name) = name.filter(|name| listed && !name.is_empty()) else {
            continue;
        };
        any = true;
        if !name.ends_with('*') {
            commands(&format!("{below} {name}"), found);
        }
    }
    if !any {
        found.push(below.trim().to_owned());
    }
}

/// Whether the docker client is one of those of which the table speaks; others have other flags and words.
fn is_28() -> bool {
    let version = Command::new(tool("docker")).arg("--version").output();
    let version = version.expect("run docker --version").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    let is = version.contains(" 28.");
    if !is {
        println!("not compared: this is {}", version.trim());
    }
    is
}

#[test]
fn nuncio_has_what_the_table_says_and_nothing_that_it_denies() {
    let rows = rows();
    assert!(rows.len() > 60, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        for command in &row.commands {
            let help = help("nuncio", command);
            let has = flags(&help);
            if !help.status.success() {
                wrong.push(format!("{command}: there is no such command"));
                continue;
            }
            let denied: Vec<_> = row.missing.intersection(&has).collect();
            let claimed = row.there.union(&row.refused);
            let claimed: Vec<_> = claimed.filter(|flag| !has.contains(*flag)).collect();
            if !denied.is_empty() || !claimed.is_empty() {
                wrong.push(format!("{command}: has {denied:?}, has not {claimed:?}"));
            }
        }
    }
    for cells in table("Not there") {
        let is_another = cells[1].contains("`nuncio`'s own");
        for command in quoted(cells[0]) {
            // Help of a group that is there is no sign of the command.
            let (group, last) = command.rsplit_once(' ').unwrap_or(("", command));
            let help = String::from_utf8_lossy(&help("nuncio", group).stdout).into_owned();
            let has = |line: &str| line.trim_start().split([' ', ',']).next() == Some(last);
            let is_there = help.lines().any(|line| line.starts_with("  ") && has(line));
            if is_there != is_another {
                wrong.push(format!("{command}: is it there? {is_there}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_leaves_out_no_command_and_no_flag_of_the_docker_client() {
    if !is_28() {
        return;
    }
    let mut known: BTreeMap<String, Option<Row>> = BTreeMap::new();
    for cells in table("Not there") {
        known.extend(quoted(cells[0]).map(|command| (command.to_owned(), None)));
    }
    for row in rows() {
        for command in &row.commands {
            let flags = Row {
                commands: Vec::new(),
                there: row.there.clone(),
                refused: row.refused.clone(),
                missing: row.missing.clone(),
            };
            known.insert(command.clone(), Some(flags));
        }
    }
    let mut all = Vec::new();
    commands("", &mut all);
    assert!(all.len() > 150, "{} commands", all.len());
    let mut forgotten = Vec::new();
    for command in all {
        match known.get(&command) {
            None => forgotten.push(command),
            Some(None) => {}
            Some(Some(row)) => {
                for flag in flags(&help("docker", &command)) {
                    let lists = [&row.there, &row.refused, &row.missing];
                    if !lists.iter().any(|list| list.contains(&flag)) {
                        forgotten.push(format!("{command} {flag}"));
                    }
                }
            }
        }
    }
    assert!(forgotten.is_empty(), "{forgotten:#?}");
}

/// Commands that are shown to work from both clients elsewhere, where there is what they need: a terminal, a registry.
const ELSEWHERE: [(&str, &str); 12] = [
    ("attach", include_str!("terminals.rs")),
    ("container attach", include_str!("terminals.rs")),
    ("login", include_str!("registry.rs")),
    ("pull", include_str!("registry.rs")),
    ("image pull", include_str!("registry.rs")),
    ("push", include_str!("registry.rs")),
    ("image push", include_str!("registry.rs")),
    ("search", include_str!("registry.rs")),
    ("node ls", "the docker client's ls is swarm's"),
    ("node rm", include_str!("mesh.rs")),
    ("stack ps", include_str!("stacks.rs")),
    ("stack rm", include_str!("stacks.rs")),
];

/// Lines in an order in which each can work. `{container} ` is nothing, or that word: most commands have both spellings.
const LINES: &[&str] = &[
    "{container} create --name made busybox true",
    "{container} start made",
    "{container} wait made",
    "{container} run -d --name web -p 80 busybox sleep 1000",
    "{container} exec web true",
    "{container} logs web",
    "{container} top web",
    "{container} port web",
    "{container} stats --no-stream web",
    "{container} pause web",
    "{container} unpause web",
    "{container} update --cpu-shares 512 web",
    "{container} cp web:/etc/hostname FILE.name",
    "{container} diff web",
    "{container} export -o FILE.tar web",
    "{container} commit web committed",
    "{container} rename web site",
    "{container} restart -t 0 site",
    "{container} stop -t 0 site",
    "{container} start site",
    "{container} kill site",
    "{container} rm site made",
    "ps -a",
    "container ls -a",
    "container create --name shown busybox",
    "container inspect shown",
    "inspect shown",
    "container prune -f",
    "images",
    "image ls",
    "image inspect busybox",
    "{image} history busybox",
    "{image} tag busybox other",
    "{image} save -o FILE.image busybox",
    "{image} load -i FILE.image",
    "{image} import FILE.tar imported",
    "rmi other imported",
    "image tag busybox other",
    "image rm other",
    "image prune -f",
    "builder prune -f",
    "network create front",
    "container create --name member busybox",
    "network connect front member",
    "network disconnect front member",
    "container rm member",
    "network inspect front",
    "network ls",
    "network rm front",
    "network prune -f",
    "volume create data",
    "volume ls",
    "volume inspect data",
    "volume rm data",
    "volume prune -f",
    "config create page FILE.name",
    "config ls",
    "config inspect page",
    "config rm page",
    "secret create password FILE.name",
    "secret ls",
    "secret inspect password",
    "secret rm password",
    "info",
    "version",
    "logout localhost:1",
    "{system} events --since 1 --until 2",
    "system info",
    "system df",
    "system prune -f",
    "service create --detach --replicas 0 --no-resolve-image --name svc busybox sleep 1000",
    "service ls",
    "service ps svc",
    "service inspect svc",
    "service scale --detach svc=0",
    "service update --detach --label-add a=b svc",
    "service rollback --detach svc",
    "service rm svc",
    "stack config -c FILE.yml",
    "stack deploy --detach=true --resolve-image never -c FILE.yml stk",
    "stack ls",
    "stack services stk",
    "service rm stk_a",
    "network rm stk_default",
    "node inspect host-1",
    "node update --label-add a=b host-1",
    "node ps host-1",
    "context create here --docker host=unix:///nosuch.sock",
    "context export here FILE.context",
    "context import there FILE.context",
    "context inspect there",
    "context ls",
    "context show",
    "context update here --description x",
    "context use here",
    "context use default",
    "context rm here there",
];

/// The command that a line begins with, of those known.
fn command_of<'a>(line: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let fits = |command: &&String| {
        let rest = line.strip_prefix(command.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let found = known.iter().filter(fits);
    found
        .max_by_key(|command| command.len())
        .map(String::as_str)
}

#[test]
fn every_command_of_the_table_works_from_both_clients() {
    let host = single(&[Image::Busybox]);
    let known: BTreeSet<String> = rows().into_iter().flat_map(|row| row.commands).collect();
    for client in Client::ALL {
        let mut left = known.clone();
        for grouped in [false, true] {
            let file = host.scratch().join(format!("{client:?}-{grouped}"));
            let file = file.to_str().expect("a path in UTF-8");
            let stack = "services: {a: {image: busybox, deploy: {replicas: 0}}}";
            std::fs::write(format!("{file}.yml"), stack).expect("write a file");
            for line in LINES {
                let line = match grouped {
                    true => line.replace(['{', '}'], ""),
                    false => line
                        .split_once("} ")
                        .map_or(*line, |(_, rest)| rest)
                        .to_owned(),
                };
                let done = client.run(&host, &line.replace("FILE", file));
                assert_eq!(done.code, 0, "{client:?} {line}: {done:?}");
                if let Some(command) = command_of(&line, &known) {
                    left.remove(command);
                }
            }
        }
        for (command, text) in ELSEWHERE {
            let last = command.rsplit(' ').next().unwrap_or(command);
            assert!(text.contains(last), "{command} is shown there");
            left.remove(command);
        }
        assert!(
            left.is_empty(),
            "{client:?}: nobody shows that these work: {left:?}"
        );
    }
}

#[test]
fn what_is_refused_is_refused_in_the_words_of_the_table() {
    if !is_28() {
        return;
    }
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name web busybox sleep 1000");
    host.ok("network create front");
    host.ok("volume create data");
    let directory = host.scratch().join("work");
    std::fs::create_dir(&directory).expect("make a directory");
    for (name, content) in [
        ("Dockerfile", "FROM busybox\n"),
        ("file", "x\n"),
        ("config.json", "{}\n"),
        ("compose.yml", "services: {web: {image: busybox}}\n"),
        ("image.tar", ""),
    ] {
        std::fs::write(directory.join(name), content).expect("write a file");
    }
    std::fs::create_dir(directory.join("rootfs")).expect("make a directory");
    let (mut wrong, mut shown) = (Vec::new(), BTreeSet::new());
    for cells in table("Refused") {
        let [line, clients, code, says] = cells[..] else {
            panic!("four cells: {cells:?}");
        };
        let line = line.trim_matches('`');
        let clients = match clients {
            "both" => &Client::ALL[..],
            "docker" => &[Client::Docker],
            "nuncio" => &[Client::Nuncio],
            other => panic!("{line}: {other} is no client"),
        };
        for client in clients {
            let told = client.shell(&host, &directory, &format!("docker {line}"));
            let text = told.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
            let says = says.trim_matches('`');
            if told.code.to_string() != code || !text.contains(says) {
                wrong.push(format!("{client:?} {line}: {} {text}", told.code));
            }
        }
        shown.insert(line);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // All that the docker client is said not to get is among them.
    let mut unproved = Vec::new();
    for cells in table("Not there") {
        let [commands, _, docker] = cells[..] else {
            panic!("three cells: {cells:?}");
        };
        let is_shown = |command: &&str| shown.iter().any(|line| line.starts_with(*command));
        match docker {
            "refused" => unproved.extend(quoted(commands).filter(|command| !is_shown(command))),
            "by itself" | "works" => {}
            other => panic!("{commands}: {other} is no verdict"),
        }
    }
    assert!(
        unproved.is_empty(),
        "nobody shows that these are refused: {unproved:?}"
    );
}

#[test]
fn each_flag_that_is_said_to_be_refused_is_shown_to_be() {
    let lines: Vec<&str> = table("Refused").iter().map(|cells| cells[0]).collect();
    let mut unproved = BTreeSet::new();
    for row in rows() {
        for flag in &row.refused {
            let words = |line: &&str| line.split([' ', '=', '`']).any(|word| word == flag);
            if !lines.iter().any(words) {
                unproved.insert(flag.clone());
            }
        }
    }
    assert!(
        unproved.is_empty(),
        "nobody shows that these are refused: {unproved:?}"
    );
}
