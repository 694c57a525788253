//! Input, output, terminals and logs.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod support;

use std::time::Duration;

use anyhow::{Context, Result};
use nuncio_runtime::logs::{self, LogQuery, Stream};
use nuncio_runtime::{AttachError, AttachOptions, LogOptions};
use support::{EVERYTHING, Place, collect, expect};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

async fn log(place: &Place) -> Result<Vec<(Stream, String)>> {
    let mut logs = logs::read(&place.log(), LogQuery::default())?;
    let mut lines = Vec::new();
    while let Some(line) = logs.next().await? {
        lines.push((line.stream, line.text));
    }
    Ok(lines)
}

#[tokio::test]
async fn input_goes_in_and_its_end_too() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("cat; echo end");
    (spec.open_stdin, spec.stdin_once) = (true, true);
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    attach.input.write_all(b"before the start\n").await?;
    shim.start().await?;
    expect(&mut attach.output, "before the start\n").await?;
    attach.input.write_all(b"echo\n").await?;
    expect(&mut attach.output, "echo\n").await?;
    attach.input.shutdown().await?;
    let ran = collect(&shim, &mut attach.output).await?;
    assert_eq!((ran.stdout.as_str(), ran.status.code), ("end\n", 0));
    Ok(())
}

#[tokio::test]
async fn what_a_client_sent_before_it_went_away_arrives() -> Result<()> {
    const SENT: usize = 64 << 10;
    const SOON: Duration = Duration::from_secs(60);
    let place = Place::new()?;
    let script = format!(
        "while :; do echo noise; done & head -c {SENT} >/dev/null; kill $!; wait $!; echo all came"
    );
    let mut spec = place.sh(&script);
    spec.open_stdin = true;
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    attach.output.next().await?;
    attach.input.write_all(&vec![b'x'; SENT]).await?;
    drop(attach); // while output cannot be delivered any more
    let mut attach = shim.attach(EVERYTHING).await?;
    let ran = tokio::time::timeout(SOON, collect(&shim, &mut attach.output)).await??;
    assert!(ran.stdout.ends_with("all came\n"));
    Ok(())
}

#[tokio::test]
async fn a_process_that_writes_without_end_keeps_nobody_from_being_answered() -> Result<()> {
    let place = Place::new()?;
    let shim = place.create(&place.command(&["yes"])).await?;
    shim.start().await?;
    for _ in 0..20 {
        shim.state().await?;
    }
    shim.signal(9).await?;
    shim.wait().await?;
    Ok(())
}

#[tokio::test]
async fn much_goes_through_unharmed_in_both_directions() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.command(&["cat"]);
    (spec.open_stdin, spec.stdin_once, spec.log) = (true, true, None);
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    let sent: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
    let (mut input, copy) = (attach.input, sent.clone());
    let sending = tokio::spawn(async move {
        input.write_all(&copy).await?;
        input.shutdown().await
    });
    let mut received = Vec::new();
    while let Some(output) = attach.output.next().await? {
        received.extend_from_slice(&output.bytes);
    }
    sending.await??;
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    Ok(())
}

#[tokio::test]
async fn without_open_stdin_input_is_empty_and_without_stdin_once_it_stays_open() -> Result<()> {
    let place = Place::new()?;
    assert_eq!(place.says("cat; echo end").await?, "end\n");
    nuncio_runtime::cleanup(&place.run_dir)?;
    let mut spec = place.sh("read a; echo $a; read b; echo $b");
    spec.open_stdin = true;
    let shim = place.start(&spec).await?;
    for word in ["one", "two"] {
        let mut attach = shim.attach(EVERYTHING).await?;
        attach
            .input
            .write_all(format!("{word}\n").as_bytes())
            .await?;
        expect(&mut attach.output, word).await?;
    }
    assert_eq!(shim.wait().await?.code, 0);
    Ok(())
}

#[tokio::test]
async fn a_terminal() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("trap 'stty size' WINCH; tty; test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; echo $TERM; until read a; do :; done; echo got $a");
    (spec.tty, spec.open_stdin) = (true, true);
    let shim = place.create(&spec).await?;
    shim.resize(100, 30).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    expect(
        &mut attach.output,
        "/dev/pts/0\r\nyes\r\n30 100\r\nxterm\r\n",
    )
    .await?;
    shim.resize(120, 40).await?;
    expect(&mut attach.output, "40 120").await?;
    attach.input.write_all(b"word\r").await?;
    let ran = collect(&shim, &mut attach.output).await?;
    assert!(ran.stdout.contains("got word\r\n"), "{ran:?}");
    let all: String = log(&place)
        .await?
        .into_iter()
        .map(|(stream, text)| {
            assert_eq!(stream, Stream::Stdout);
            text
        })
        .collect();
    assert!(
        all.contains("30 100\r\n") && all.contains("got word\r\n"),
        "{all}"
    );
    Ok(())
}

#[tokio::test]
async fn ctrl_c_reaches_the_program() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("trap 'exit 9' INT; echo up; while :; do sleep 0.05; done");
    (spec.tty, spec.open_stdin) = (true, true);
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    expect(&mut attach.output, "up").await?;
    attach.input.write_all(b"\x03").await?;
    assert_eq!(collect(&shim, &mut attach.output).await?.status.code, 9);
    Ok(())
}

#[tokio::test]
async fn without_a_terminal_there_is_no_size() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    assert_eq!(
        shim.resize(1, 1).await.unwrap_err().to_string(),
        "it has no terminal"
    );
    Ok(())
}

#[tokio::test]
async fn every_client_gets_what_it_asked_for() -> Result<()> {
    let place = Place::new()?;
    let shim = place.create(&place.sh("echo out; echo err >&2")).await?;
    let mut both = shim.attach(EVERYTHING).await?;
    let mut only = shim
        .attach(AttachOptions {
            stderr: true,
            ..AttachOptions::default()
        })
        .await?;
    shim.start().await?;
    let both = collect(&shim, &mut both.output).await?;
    let only = collect(&shim, &mut only.output).await?;
    assert_eq!(
        (both.stdout.as_str(), both.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!((only.stdout.as_str(), only.stderr.as_str()), ("", "err\n"));
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_and_the_container_goes_on() -> Result<()> {
    let place = Place::new()?;
    // 4 MiB is more than all the buffers on the way hold
    let mut spec =
        place.sh("dd if=/dev/zero bs=64k count=64 2>/dev/null | tr '\\0' x; echo; echo over >&2");
    spec.log = None;
    let shim = place.create(&spec).await?;
    let mut stuck = shim.attach(EVERYTHING).await?;
    let mut reads = shim.attach(EVERYTHING).await?;
    shim.start().await?;
    let ran = collect(&shim, &mut reads.output).await?;
    assert_eq!(
        (ran.stdout.len(), ran.stderr.as_str(), ran.status.code),
        ((4 << 20) + 1, "over\n", 0)
    );
    let mut received = 0;
    let error = loop {
        match stuck.output.next().await {
            Ok(Some(output)) => received += output.bytes.len(),
            Ok(None) => panic!("it was not told"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, AttachError::LetGo(why) if why.contains("nothing was read for 10 s")),
        "{error}"
    );
    assert!(received < 2 << 20, "{received} bytes were kept");
    Ok(())
}

#[tokio::test]
async fn the_log_has_lines_and_what_was_begun() -> Result<()> {
    let place = Place::new()?;
    place
        .says("echo one; sleep 0.05; echo two >&2; sleep 0.05; printf 'no end'")
        .await?;
    let expected = [
        (Stream::Stdout, "one\n"),
        (Stream::Stderr, "two\n"),
        (Stream::Stdout, "no end"),
    ];
    assert_eq!(
        log(&place).await?,
        expected.map(|(stream, text)| (stream, text.to_owned()))
    );
    let file = std::fs::read_to_string(place.log())?;
    let first = file.lines().next().context("a line")?;
    assert!(
        first.starts_with(r#"{"log":"one\n","stream":"stdout","time":"2"#)
            && first.ends_with("Z\"}"),
        "{first}"
    );
    Ok(())
}

#[tokio::test]
async fn a_full_log_is_rotated_and_loses_only_the_oldest() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("seq 1 2000");
    spec.log = Some(LogOptions {
        path: place.log(),
        max_size: Some(20_000),
        max_file: 3,
    });
    place.run(&spec).await?.succeeded()?;
    let lines = log(&place).await?;
    assert_eq!(lines.last().unwrap().1, "2000\n");
    let first: u32 = lines[0].1.trim().parse()?;
    assert_eq!(lines.len(), 2001 - first as usize, "without a gap");
    assert!(place.path().join("container.log.2").exists());
    assert!(!place.path().join("container.log.3").exists());
    Ok(())
}

#[tokio::test]
async fn a_log_is_followed_to_the_containers_end() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("while read word; do echo said $word; done");
    (spec.open_stdin, spec.stdin_once) = (true, true);
    let shim = place.start(&spec).await?;
    let mut attach = shim.attach(EVERYTHING).await?;
    let ended = CancellationToken::new();
    let query = LogQuery {
        follow: Some(ended.clone()),
        ..LogQuery::default()
    };
    let mut logs = logs::read(&place.log(), query)?;
    for word in ["a", "b"] {
        attach
            .input
            .write_all(format!("{word}\n").as_bytes())
            .await?;
        let line = tokio::time::timeout(Duration::from_secs(20), logs.next())
            .await??
            .context("a line")?;
        assert_eq!(line.text, format!("said {word}\n"));
    }
    attach.input.write_all(b"c\n").await?;
    attach.input.shutdown().await?;
    shim.wait().await?;
    ended.cancel();
    assert_eq!(logs.next().await?.context("a line")?.text, "said c\n");
    assert_eq!(logs.next().await?, None);
    Ok(())
}

#[tokio::test]
async fn output_of_a_fast_program_is_complete() -> Result<()> {
    let place = Place::new()?;
    for round in 0..10 {
        let ran = place.run(&place.sh("seq 1 20000")).await?;
        let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
        assert!(
            ran.stdout == expected,
            "round {round}: {} of {} bytes",
            ran.stdout.len(),
            expected.len()
        );
        nuncio_runtime::cleanup(&place.run_dir)?;
    }
    Ok(())
}
