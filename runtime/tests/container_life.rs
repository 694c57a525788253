//! Shims and containers outlive who made them, and leave nothing when they end.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nuncio_runtime::{ConnectError, LogOptions, Shim, Shims, bundle, cleanup};
use support::{EVERYTHING, Place, collect, expect};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// The shim's own process, which only tests have to know.
fn shim_pid(run_dir: &Path) -> Result<i32> {
    let pids: serde_json::Value = serde_json::from_slice(&fs::read(run_dir.join("pid.json"))?)?;
    Ok(i32::try_from(
        pids["shim"]["pid"].as_i64().context("a number")?,
    )?)
}

fn kill(pid: i32) -> Result<()> {
    Ok(nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )?)
}

#[tokio::test]
async fn a_container_outlives_its_maker_and_is_taken_over() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("while read word; do echo said $word; done; exit 4");
    (spec.open_stdin, spec.stdin_once) = (true, true);
    bundle::write(&place.run_dir, &spec)?;
    // a maker that is killed while its pipe is still open
    let mut maker = Command::new("/bin/sh")
        .args(["-c", "\"$0\" shim \"$1\"; exec sleep 1000"])
        .arg(support::binary())
        .arg(&place.run_dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(maker.stdout.take().context("a pipe")?),
        &mut line,
    )?;
    assert_eq!(line, "{\"Ok\":null}\n");
    maker.kill()?;
    maker.wait()?;

    let shim = Shim::connect(&place.run_dir).await?;
    shim.start().await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    attach.input.write_all(b"hello\n").await?;
    expect(&mut attach.output, "said hello\n").await?;
    let again = Shim::connect(&place.run_dir).await?;
    let waiting = tokio::spawn(async move { again.wait().await });
    attach.input.shutdown().await?;
    let ran = collect(&shim, &mut attach.output).await?;
    assert_eq!(ran.status.code, 4);
    assert_eq!(waiting.await??, ran.status);
    match Shim::connect(&place.run_dir).await {
        Err(ConnectError::Gone(status)) => assert_eq!(status, ran.status),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_shim_has_a_session_of_its_own_and_ignores_polite_signals() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let pid = nix::unistd::Pid::from_raw(shim_pid(&place.run_dir)?);
    assert_eq!(
        nix::unistd::getsid(Some(pid))?,
        nix::unistd::getsid(Some(pid))?
    );
    assert_ne!(nix::unistd::getsid(Some(pid))?, nix::unistd::getsid(None)?);
    for signal in [
        nix::sys::signal::Signal::SIGTERM,
        nix::sys::signal::Signal::SIGHUP,
        nix::sys::signal::Signal::SIGINT,
    ] {
        nix::sys::signal::kill(pid, signal)?;
    }
    shim.signal(9).await?;
    assert_eq!(shim.wait().await?.code, 137);
    Ok(())
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.sh("sleep 1000 & sleep 1000")).await?;
    kill(shim_pid(&place.run_dir)?)?;
    match Shim::connect(&place.run_dir).await {
        Err(ConnectError::Dead(status)) => assert_eq!(status.code, 137),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.processes(), Vec::<String>::new());
    assert!(place.cgroups().is_empty());
    assert_eq!(shim.wait().await?.code, 137);
    Ok(())
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_not_given_up() -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    let place = Place::new()?;
    place.start(&place.command(&["sleep", "1000"])).await?;
    let pid = nix::unistd::Pid::from_raw(shim_pid(&place.run_dir)?);
    kill(pid, Signal::SIGSTOP)?;
    let connected = Shim::connect(&place.run_dir).await;
    kill(pid, Signal::SIGCONT)?;
    let Err(ConnectError::Slow(shim)) = connected else {
        panic!("{connected:?}");
    };
    assert!(shim.state().await?.pid.is_some());
    shim.signal(9).await?;
    assert_eq!(shim.wait().await?.code, 137);
    Ok(())
}

#[tokio::test]
async fn who_waits_learns_of_a_killed_shim() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let waiter = shim.clone();
    let waiting = tokio::spawn(async move { waiter.wait().await });
    // it waits once its request was read, which this one being answered after it shows
    tokio::task::yield_now().await;
    shim.state().await?;
    kill(shim_pid(&place.run_dir)?)?;
    assert_eq!(waiting.await??.code, 137);
    assert_eq!(place.processes(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_number_that_was_given_away_is_not_killed() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    shim.signal(9).await?;
    shim.wait().await?;
    // as if the first process's number had gone to a stranger
    let mut stranger = Command::new("sleep").arg("1000").spawn()?;
    let path = place.run_dir.join("pid.json");
    let mut pids: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    pids["init"]["pid"] = stranger.id().into();
    fs::write(&path, pids.to_string())?;
    fs::remove_file(place.run_dir.join("exit.json"))?;
    let connected = Shim::connect(&place.run_dir).await;
    let lives = stranger.try_wait()?.is_none();
    stranger.kill()?;
    stranger.wait()?;
    assert!(
        matches!(connected, Err(ConnectError::Dead(_))),
        "{connected:?}"
    );
    assert!(lives);
    Ok(())
}

#[tokio::test]
async fn nothing_is_left() -> Result<()> {
    let place = Place::new()?;
    place
        .run(&place.sh("sleep 1000 & exit 0"))
        .await?
        .succeeded()?;
    assert!(place.cgroups().is_empty(), "{:?}", place.cgroups());
    assert_eq!(place.mounts(), Vec::<String>::new());
    cleanup(&place.run_dir)?;
    assert!(!place.run_dir.exists());
    cleanup(&place.run_dir)?;
    assert_eq!(place.processes(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn cleaning_up_ends_what_runs() -> Result<()> {
    let place = Place::new()?;
    place.start(&place.command(&["sleep", "1000"])).await?;
    cleanup(&place.run_dir)?;
    assert_eq!(place.processes(), Vec::<String>::new());
    assert!(place.cgroups().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    // refused at once, and refused by the kernel after all mounts are made
    for (name, value, words) in [
        ("no.such.parameter", "1", "sysctl no.such.parameter"),
        ("kernel.shm_rmid_forced", "nonsense", "nvalid argument"),
    ] {
        let mut spec = place.command(&["true"]);
        spec.sysctls.insert(name.into(), value.into());
        let error = place.create(&spec).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(place.cgroups().is_empty());
        assert_eq!(place.mounts(), Vec::<String>::new());
        assert_eq!(place.processes(), Vec::<String>::new());
        cleanup(&place.run_dir)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_container_that_was_never_started_can_be_dropped() -> Result<()> {
    let place = Place::new()?;
    let shim = place.create(&place.command(&["true"])).await?;
    assert_eq!(shim.state().await?.started_at, None);
    shim.signal(9).await?;
    assert_eq!(shim.wait().await?.code, 137);
    assert!(place.cgroups().is_empty());
    Ok(())
}

#[tokio::test]
async fn starting_twice_changes_nothing() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    assert_eq!(
        shim.start().await.unwrap_err().to_string(),
        "it was started already"
    );
    assert!(shim.state().await?.started_at.is_some());
    Ok(())
}

#[tokio::test]
async fn signals_to_all() -> Result<()> {
    let place = Place::new()?;
    let shim = place.create(&place.sh("sh -c \"trap 'echo child' USR1; echo up; while :; do sleep 0.05; done\" & trap 'echo parent' USR1; wait; wait")).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    expect(&mut attach.output, "up").await?;
    shim.signal_all(10).await?;
    let mut said = String::new();
    while !(said.contains("child") && said.contains("parent")) {
        let piece = attach.output.next().await?.context("it goes on")?;
        said.push_str(std::str::from_utf8(&piece.bytes)?);
    }
    Ok(())
}

#[tokio::test]
async fn long_run_directories_do() -> Result<()> {
    let place = Place::new()?;
    let run_dir = place.path().join("d".repeat(120)).join("e".repeat(120));
    for tty in [false, true] {
        let mut spec = place.command(&["echo", "hello"]);
        spec.tty = tty;
        bundle::write(&run_dir, &spec)?;
        let shim = support::shims().spawn(&run_dir).await?;
        let mut attach = shim.attach(EVERYTHING).await?;
        shim.start().await?;
        let ran = collect(&shim, &mut attach.output).await?;
        assert_eq!(ran.stdout.trim_end(), "hello");
        cleanup(&run_dir)?;
    }
    Ok(())
}

/// The processes that fork shims for this one.
fn forkers() -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task")? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for pid in children.split_ascii_whitespace() {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.ends_with("\0shims\0") {
                found.insert(pid.parse()?);
            }
        }
    }
    Ok(found)
}

#[tokio::test]
async fn shims_are_made_though_their_parent_was_killed() -> Result<()> {
    let first = Place::new()?;
    first.says("true").await?; // the forker of all other tests is there
    let others = forkers()?;
    let shims = Shims::new(support::binary());
    for round in 0..2 {
        let place = Place::new()?;
        bundle::write(&place.run_dir, &place.sh("sleep 100"))?;
        let shim = shims.spawn(&place.run_dir).await?;
        shim.start().await?;
        let name = fs::read_to_string(format!("/proc/{}/comm", shim_pid(&place.run_dir)?))?;
        assert_eq!(name, "nuncio-shim\n");

        let own: Vec<_> = forkers()?.difference(&others).copied().collect();
        assert_eq!(own.len(), 1, "round {round}");
        kill(own[0])?;
        while !forkers()?.is_subset(&others) {
            tokio::task::yield_now().await; // it still ends
        }
        assert!(shim.state().await?.pid.is_some(), "the shim goes on");
        shim.signal(9).await?;
        assert_eq!(shim.wait().await?.signal, Some(9));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_at_once() -> Result<()> {
    let places = (0..20).map(|_| Place::new()).collect::<Result<Vec<_>>>()?;
    let mut running = JoinSet::new();
    for (number, place) in places.into_iter().enumerate() {
        running.spawn(async move {
            let mut spec = place.sh(&format!("echo {number}; exit {number}"));
            spec.log = Some(LogOptions {
                path: place.log(),
                max_size: None,
                max_file: 1,
            });
            let ran = place.run(&spec).await?;
            assert_eq!(ran.stdout, format!("{number}\n"));
            assert_eq!(usize::try_from(ran.status.code)?, number);
            assert!(place.cgroups().is_empty());
            anyhow::Ok(())
        });
    }
    while let Some(ran) = running.join_next().await {
        ran??;
    }
    Ok(())
}
