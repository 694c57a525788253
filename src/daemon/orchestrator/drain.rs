//! Ending a task without ending what goes on with it: first all hosts lead elsewhere, then its connections end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nuncio_registry::TaskRecord;
use tokio::time::{Instant, sleep, timeout};

use super::spec;
use crate::daemon::Daemon;
use crate::daemon::container::Container;
use crate::daemon::record::Phase;
use crate::daemon::refusal::Refusal;

/// A label of a service: how long its tasks' connections may take to end by themselves, as `30s`.
const DRAIN: &str = "nuncio.drain";
/// The same where nobody says.
const USUAL: Duration = Duration::from_secs(10);
/// How long other hosts may take to lead elsewhere. Those that do not answer are not waited for longer.
const HEARD: Duration = Duration::from_secs(10);
/// How often connections are counted.
const LOOK: Duration = Duration::from_millis(100);
/// What `/proc/net/tcp` calls an established connection.
const ESTABLISHED: &str = "01";
/// Its loopback addresses end so.
const LOOPBACK: [&str; 2] = ["0100007F", "00000000000000000000000001000000"];

impl Daemon {
    /// Has nobody come to a task any more, and waits until those who are there have gone, each for a bounded time.
    pub(super) async fn drain_task(&self, task: &TaskRecord, container: &Arc<Container>) {
        self.leave_service(container).await;
        let parsed = spec::parse(&task.spec).unwrap_or_default();
        if !spec::is_found(&parsed) {
            return;
        }
        let mut catalog = self.catalog_changes.clone();
        let heard = catalog.wait_for(|catalog| {
            let gone = |node| {
                let ack = catalog.desired.acks.get(node);
                ack.is_some_and(|ack| ack.gone.contains(&task.id))
            };
            catalog.alive.iter().all(gone)
        });
        if timeout(HEARD, heard).await.is_err() {
            tracing::warn!(
                task = task.id,
                "not all hosts said that they lead elsewhere"
            );
        }
        let labels = spec::labels(&parsed);
        let patience = labels
            .get(DRAIN)
            .and_then(|text| duration(text))
            .unwrap_or(USUAL);
        let deadline = Instant::now() + patience;
        while container.is_running() && Instant::now() < deadline {
            if connections(container) == 0 {
                return;
            }
            sleep(LOOK).await;
        }
    }
}

/// Refuses a time that is none.
pub(super) fn check(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    match labels.get(DRAIN) {
        Some(text) if duration(text).is_none() => Err(Refusal::invalid(format!(
            "invalid label {DRAIN}={text}: expected a time, as 500ms, 30s or 2m"
        ))),
        _ => Ok(()),
    }
}

/// As `500ms`, `30s`, `2m`, or seconds without a unit.
fn duration(text: &str) -> Option<Duration> {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// How many connections others have with what the container listens on. What cannot be read counts for none.
fn connections(container: &Container) -> usize {
    let Phase::Running { pid, .. } = container.view().phase else {
        return 0;
    };
    let tables = ["tcp", "tcp6"]
        .map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let listening: BTreeSet<String> = tables
        .iter()
        .flat_map(|table| local_ports(table, "0A"))
        .collect();
    let established = tables
        .iter()
        .flat_map(|table| local_ports(table, ESTABLISHED));
    established.filter(|port| listening.contains(port)).count()
}

/// The local ports of the connections in a state.
fn local_ports(table: &str, state: &str) -> Vec<String> {
    let lines = table.lines().skip(1);
    let ports = lines.filter_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let found = fields.nth(1)?;
        let (address, port) = local.rsplit_once(':')?;
        // A container's talk with itself is nobody's.
        let is_own = LOOPBACK.iter().any(|own| address.ends_with(own)) && state == ESTABLISHED;
        (found == state && !is_own).then(|| port.to_owned())
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0200800A:18EB 0300800A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:18EB 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 0200800A:18EB 0300800A:D432 06 00000000:00000000 00:00000000 00000000     0        0 4";

    #[test]
    fn connections_of_others_are_counted() {
        assert_eq!(local_ports(TABLE, "0A"), ["18EB"]);
        assert_eq!(local_ports(TABLE, ESTABLISHED), ["18EB"]);
        assert!(local_ports("", ESTABLISHED).is_empty());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(duration("5"), Some(Duration::from_secs(5)));
        for wrong in ["", "s", "5h", "-1s"] {
            assert_eq!(duration(wrong), None);
        }
    }
}
