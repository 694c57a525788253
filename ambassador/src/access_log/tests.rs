#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::flow::tests::{address, open};
use crate::flow::{EndCause, EndSide, FlowTable, Joined};

const PATIENCE: Duration = Duration::from_secs(20);

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn logging(path: &Path, format: LogFormat) -> (Arc<FlowTable>, AccessLog) {
    let table = Arc::new(FlowTable::new());
    let log = AccessLog::open(path, format).unwrap();
    table.log_to(log.clone());
    (table, log)
}

#[tokio::test]
async fn each_flow_is_a_line_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (table, log) = logging(&path, LogFormat::Json);
    let joined = Joined {
        client: address(1),
        local: Some(address(2)),
        upstream: Some(address(3)),
        connect_time: Some(Duration::from_millis(5)),
    };
    let flow = open(&table, "web", joined);
    flow.entry.inward.add(7);
    flow.entry.outward.add(9);
    let error = io::Error::from_raw_os_error(nix::libc::ECONNRESET);
    flow.entry
        .end(EndCause::Reset, EndSide::Client, Some(error));
    assert!(log.flush(PATIENCE).await);
    assert_eq!(lines(&path), [Value::Null; 0], "it is open");
    drop(flow);
    assert!(log.flush(PATIENCE).await);
    let [line] = &lines(&path)[..] else {
        panic!("{:?}", lines(&path));
    };
    for (key, value) in [
        ("forward", Value::from("web")),
        ("protocol", "tcp".into()),
        ("client", "127.0.0.1:1".into()),
        ("local", "127.0.0.1:2".into()),
        ("endpoint", "127.0.0.1:3".into()),
        ("bytes_in", 7.into()),
        ("bytes_out", 9.into()),
        ("connect_time", 0.005.into()),
        ("datapaths", vec!["copy"].into()),
        ("end", "reset".into()),
        ("side", "client".into()),
        ("errno", nix::libc::ECONNRESET.into()),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    assert!(
        line["error"].as_str().unwrap().contains("os error 104"),
        "{line}"
    );
    assert!(
        line["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok(),
        "{line}"
    );
    assert!(line["duration"].as_f64().unwrap() > 0.0, "{line}");
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    let (table, log) = logging(&path, LogFormat::Json);
    let flow = |name: &str| drop(open(&table, name, (address(1), address(2))));
    flow("before");
    assert!(log.flush(PATIENCE).await);
    std::fs::rename(&path, &moved).unwrap();
    flow("meanwhile");
    log.reopen();
    assert!(log.flush(PATIENCE).await);
    flow("after");
    assert!(log.flush(PATIENCE).await);
    let names = |path| -> Vec<Value> { lines(path).iter().map(|l| l["forward"].clone()).collect() };
    assert_eq!(names(&path).last(), Some(&Value::from("after")));
    let mut all = names(&moved);
    all.extend(names(&path));
    assert_eq!(all, ["before", "meanwhile", "after"]);
}

/// The reader of a FIFO does not read: flows end nevertheless, and what is lost is counted.
#[tokio::test]
async fn a_log_that_stalls_holds_up_no_flow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Both ends, so that opening waits for nobody.
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (table, log) = logging(&path, LogFormat::Text);
    let mut ended = 0;
    while log.dropped() == 0 {
        drop(open(&table, "web", (address(1), address(2))));
        ended += 1;
        assert!(ended < 1_000_000, "nothing is ever dropped");
    }
    assert!(ended > QUEUE, "{ended} were too few to fill the queue");
    let mut text = Vec::new();
    let mut part = vec![0; 1 << 16];
    let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count() as u64;
    // All that was not dropped arrives: as many lines as records.
    while count(&text) + log.dropped() < ended as u64 {
        let read = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..read]);
    }
    assert!(log.flush(PATIENCE).await);
    assert_eq!(log.written() + log.dropped(), ended as u64);
    assert_eq!(log.written(), count(&text));
    drop(open(&table, "late", (address(1), address(2))));
    assert!(log.flush(PATIENCE).await);
    let read = reader.read(&mut part).unwrap();
    assert!(String::from_utf8_lossy(&part[..read]).contains("forward=late"));
}

#[test]
fn a_file_that_cannot_be_had_is_refused() {
    let nowhere = Path::new("/nonexistent/access.log");
    let error = AccessLog::open(nowhere, LogFormat::Json).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_full_disk_drops_records_and_is_survived() {
    let (table, log) = logging(Path::new("/dev/full"), LogFormat::Json);
    // More than the writer holds back.
    for _ in 0..400 {
        drop(open(&table, "web", (address(1), address(2))));
        assert!(log.flush(PATIENCE).await);
    }
    assert!(log.dropped() > 0, "{log:?}");
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn any_flow_is_one_line_of_valid_json_and_of_text(
        name in any::<String>(),
        client in addresses(),
        local in proptest::option::of(addresses()),
        upstream in proptest::option::of(addresses()),
        nanoseconds in proptest::option::of(any::<u64>()),
        error in proptest::option::of(any::<String>()),
    ) {
        let connect_time = nanoseconds.map(Duration::from_nanos);
        let table = Arc::new(FlowTable::new());
        let flow = open(&table, &name, Joined { client, local, upstream, connect_time });
        flow.entry.end(EndCause::Failed, EndSide::Upstream, error.clone().map(io::Error::other));
        let record = Record::from(&*flow.entry);
        let json = record.json();
        prop_assert!(!json.contains('\n'), "{json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&value["forward"], &Value::from(name));
        prop_assert_eq!(&value["client"], &Value::from(client.to_string()));
        prop_assert_eq!(&value["endpoint"], &Value::from(upstream.map(|a| a.to_string())));
        prop_assert_eq!(&value["error"], &Value::from(error));
        let text = record.text();
        prop_assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        prop_assert!(text.contains(" end=failed side=upstream"), "{text}");
    }
}
