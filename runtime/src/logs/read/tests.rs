use std::time::Duration;

use super::*;
use crate::logs::{LogWriter, Stream};
use crate::spec::LogOptions;

fn log(max_size: Option<u64>, max_file: u32) -> (tempfile::TempDir, PathBuf, LogWriter) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.log");
    let writer = LogWriter::open(LogOptions {
        path: path.clone(),
        max_size,
        max_file,
    })
    .expect("opened");
    (directory, path, writer)
}

async fn texts(path: &Path, query: LogQuery) -> Vec<String> {
    let mut logs = read(path, query).expect("opened");
    let mut texts = Vec::new();
    while let Some(line) = logs.next().await.expect("a log") {
        texts.push(line.text);
    }
    texts
}

fn write_numbers(writer: &mut LogWriter, numbers: std::ops::Range<u32>) {
    for number in numbers {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes());
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test]
async fn all_lines_across_files() {
    let (_directory, path, mut writer) = log(Some(2000), 9);
    write_numbers(&mut writer, 0..100);
    assert!(files::numbered(&path, 2).exists());
    assert_eq!(texts(&path, LogQuery::default()).await, numbers(0..100));
}

#[tokio::test]
async fn the_last_lines_across_files() {
    let (_directory, path, mut writer) = log(Some(2000), 9);
    write_numbers(&mut writer, 0..100);
    for tail in [0, 1, 5, 29, 30, 31, 60, 99, 100, 1000] {
        let query = LogQuery {
            tail: Some(tail),
            ..LogQuery::default()
        };
        let first = 100_u32.saturating_sub(u32::try_from(tail).expect("small"));
        assert_eq!(
            texts(&path, query).await,
            numbers(first..100),
            "tail {tail}"
        );
    }
}

#[tokio::test]
async fn an_absent_log_is_empty() {
    assert!(
        texts(Path::new("/nonexistent/c.log"), LogQuery::default())
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn times_bound_what_is_read() {
    let (_directory, path, mut writer) = log(None, 1);
    write_numbers(&mut writer, 0..3);
    let mut logs = read(&path, LogQuery::default()).expect("opened");
    let mut times = Vec::new();
    while let Some(line) = logs.next().await.expect("a log") {
        times.push(line.time);
    }
    let since = LogQuery {
        since: Some(times[1]),
        ..LogQuery::default()
    };
    assert_eq!(texts(&path, since).await, numbers(1..3));
    let until = LogQuery {
        until: Some(times[1]),
        ..LogQuery::default()
    };
    assert_eq!(texts(&path, until).await, numbers(0..2));
}

#[tokio::test]
async fn following_sees_every_line_through_rotation_and_ends_with_the_container() {
    let (_directory, path, mut writer) = log(Some(3000), 50);
    write_numbers(&mut writer, 0..10);
    let stop = CancellationToken::new();
    let query = LogQuery {
        tail: Some(5),
        follow: Some(stop.clone()),
        ..LogQuery::default()
    };
    let mut logs = read(&path, query).expect("opened");
    for number in 5..10 {
        assert_eq!(
            logs.next().await.expect("a log").expect("a line").text,
            format!("{number}\n")
        );
    }
    for number in 10..500 {
        write_numbers(&mut writer, number..number + 1);
        let line = tokio::time::timeout(Duration::from_secs(10), logs.next())
            .await
            .expect("in time");
        assert_eq!(
            line.expect("a log").expect("a line").text,
            format!("{number}\n")
        );
    }
    writer.write(Stream::Stderr, b"last");
    writer.finish(Stream::Stderr);
    stop.cancel();
    assert_eq!(
        logs.next().await.expect("a log").expect("a line").text,
        "last"
    );
    assert_eq!(logs.next().await.expect("a log"), None);
}

#[tokio::test]
async fn following_waits_for_a_log_to_be_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.log");
    let query = LogQuery {
        follow: Some(CancellationToken::new()),
        ..LogQuery::default()
    };
    let mut logs = read(&path, query).expect("opened");
    let (line, ()) = tokio::join!(logs.next(), async {
        tokio::task::yield_now().await;
        let options = LogOptions {
            path: path.clone(),
            max_size: None,
            max_file: 1,
        };
        LogWriter::open(options)
            .expect("opened")
            .write(Stream::Stdout, b"here\n");
    });
    assert_eq!(line.expect("a log").expect("a line").text, "here\n");
}

#[tokio::test]
async fn what_is_no_log_is_told() {
    let (_directory, path, _writer) = log(None, 1);
    std::fs::write(&path, "hello\n").expect("written");
    let mut logs = read(&path, LogQuery::default()).expect("opened");
    let error = logs.next().await.expect_err("no log").to_string();
    assert!(
        error.ends_with("has a line that is no log entry: \"hello\""),
        "{error}"
    );
    assert_eq!(logs.next().await.expect("over"), None);
}
