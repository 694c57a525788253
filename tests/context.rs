//! Contexts: what one client keeps the other uses.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use support::{Args, Finished, Spawned, single, tool};

const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// A client of either kind with a configuration, and nothing of the environment's that says where a daemon is.
fn client(
    program: &str,
    config: &Path,
    variables: &BTreeMap<&str, &str>,
    args: impl Args,
) -> Finished {
    let program = match program {
        "docker" => tool("docker"),
        _ => NUNCIO.into(),
    };
    let mut command = Command::new(program);
    for name in ["DOCKER_HOST", "NUNCIO_HOST", "DOCKER_CONTEXT"] {
        command.env_remove(name);
    }
    command
        .current_dir(config)
        .env("DOCKER_CONFIG", config)
        .envs(variables)
        .args(args.words());
    Spawned::new(command, None).finish()
}

const PROGRAMS: [&str; 2] = ["docker", "nuncio"];

#[test]
fn a_context_made_by_one_client_leads_the_other() {
    let host = single(&[]);
    for (maker, user) in [("docker", "nuncio"), ("nuncio", "docker")] {
        let config = tempfile::tempdir().expect("a directory");
        let run = |program, line: &str| client(program, config.path(), &BTreeMap::new(), line);
        let endpoint = format!("host={}", host.url());
        let made = run(
            maker,
            &format!("context create here --docker {endpoint} --description Here"),
        );
        assert_eq!(made.stderr, "Successfully created context \"here\"\n");
        assert_eq!(made.ok(), "here");
        for program in [maker, user] {
            assert_eq!(run(program, "context ls -q").ok(), "default\nhere");
            assert_eq!(run(program, "--context here ps -q").ok(), "");
        }
        let used = run(user, "context use here");
        assert_eq!(used.stderr, "Current context is now \"here\"\n");
        assert_eq!(used.ok(), "here");
        for program in PROGRAMS {
            assert_eq!(run(program, "context show").ok(), "here");
            assert_eq!(
                run(program, "info --format {{.ClientInfo.Context}}").ok(),
                "here"
            );
            let refused = run(program, "context rm here");
            assert!(
                refused
                    .stderr
                    .contains("context \"here\" is in use, set -f flag to force remove"),
                "{refused:?}"
            );
        }
        // What each shows of it is the same.
        for line in [
            "context inspect here",
            "context ls --format json",
            "context ls",
            "context inspect -f {{.Endpoints.docker.Host}} here",
        ] {
            let [theirs, ours] = PROGRAMS.map(|program| run(program, line).ok());
            let host = |text: &str| {
                let default = "unix:///var/run/docker.sock";
                let text = text.replace("unix:///run/nuncio/nuncio.sock", default);
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            };
            assert_eq!(host(&theirs), host(&ours), "{line}");
        }
        assert_eq!(
            run(maker, "context update --description There here").ok(),
            "here"
        );
        let described = run(user, "context ls --format {{.Description}}").ok();
        assert!(described.ends_with("There"), "{described}");
        // Out of one, into the other.
        run(maker, "context export here").ok();
        assert_eq!(
            run(user, "context import there here.dockercontext").ok(),
            "there"
        );
        assert_eq!(run(maker, "--context there ps -q").ok(), "");
        assert_eq!(run(user, "context rm -f here there").ok(), "here\nthere");
        assert_eq!(run(maker, "context show").ok(), "default");
        assert_eq!(run(maker, "context ls -q").ok(), "default");
    }
}

#[test]
fn flags_and_the_environment_come_before_the_configuration() {
    let host = single(&[]);
    let url = host.url();
    for program in PROGRAMS {
        let config = tempfile::tempdir().expect("a directory");
        let run = |variables: &[(&'static str, &str)], line: &str| {
            let variables = variables.iter().copied().collect();
            client(program, config.path(), &variables, line)
        };
        run(&[], &format!("context create right --docker host={url}")).ok();
        run(
            &[],
            "context create wrong --docker host=unix:///nosuch.sock",
        )
        .ok();
        run(&[], "context use wrong").ok();
        assert!(run(&[], "ps").stderr.contains("/nosuch.sock"));
        run(&[("DOCKER_CONTEXT", "right")], "ps").ok();
        run(&[("DOCKER_HOST", &url)], "ps").ok();
        run(&[("DOCKER_HOST", &url), ("DOCKER_CONTEXT", "wrong")], "ps").ok();
        run(&[("DOCKER_CONTEXT", "wrong")], "--context right ps").ok();
        run(&[], &format!("-H {url} ps")).ok();
        let empty = config.path().join("empty");
        let empty = empty.to_str().expect("a path in UTF-8");
        let shown = run(&[], &format!("--config {empty} context show"));
        assert_eq!(shown.ok(), "default");
        let both = run(&[], &format!("-H {url} --context right ps"));
        assert!(
            both.stderr
                .contains("cannot specify both --host and --context"),
            "{both:?}"
        );
        let warned = run(&[("DOCKER_HOST", &url)], "context use right");
        let words = "Warning: DOCKER_HOST environment variable overrides the active context. To use \"right\", either set the global --context flag, or unset DOCKER_HOST environment variable.";
        assert!(warned.stderr.contains(words), "{warned:?}");
        let gone = run(&[], "--context nosuch ps");
        assert!(
            gone.stderr
                .contains("context \"nosuch\": context not found: open "),
            "{gone:?}"
        );
    }
}

#[test]
fn what_no_context_is_gets_dockers_words() {
    for program in PROGRAMS {
        let config = tempfile::tempdir().expect("a directory");
        let run = |line: &str| client(program, config.path(), &BTreeMap::new(), line);
        run("context create once --docker host=unix:///x").ok();
        for (line, words) in [
            (
                "context create a",
                "context name \"a\" is invalid, names are validated against regexp",
            ),
            (
                "context create default",
                "\"default\" is a reserved context name",
            ),
            ("context create once", "context \"once\" already exists"),
            (
                "context create bb --docker foo=bar",
                "unable to create docker endpoint config: unrecognized config key: foo",
            ),
            (
                "context create bb --docker host=unix:///x,ca=/nosuch",
                "open /nosuch: ",
            ),
            (
                "context create bb --from once --docker host=unix:///x",
                "cannot use --docker flag when --from is set",
            ),
            (
                "context use nosuch",
                "context \"nosuch\": context not found",
            ),
            (
                "context rm default",
                "context \"default\" cannot be removed",
            ),
            ("context rm nosuch", "context \"nosuch\" does not exist"),
            (
                "context inspect nosuch",
                "context \"nosuch\": context not found",
            ),
            (
                "context update nosuch --description x",
                "context \"nosuch\": context not found",
            ),
            ("context import once /nosuch", "already exists"),
            ("context import bb /nosuch", "open /nosuch: "),
        ] {
            let told = run(line);
            assert_eq!(told.code, 1, "{program}: {told:?}");
            assert!(told.stderr.contains(words), "{program} {line}: {told:?}");
        }
    }
    // What the other client reaches by itself, this one says how to reach.
    let config = tempfile::tempdir().expect("a directory");
    let run = |line: &str| client("nuncio", config.path(), &BTreeMap::new(), line);
    run("context create far --docker host=ssh://me@far").ok();
    run("context create tls --docker host=tcp://192.0.2.1:2376").ok();
    for (context, words) in [
        ("far", "ssh -nNT -L"),
        ("tls", "to those alone who show a certificate"),
    ] {
        let told = run(&format!("--context {context} ps")).refused(1);
        assert!(told.contains(words), "{told}");
    }
}
