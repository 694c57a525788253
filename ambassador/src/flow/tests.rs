//! The table with flows that carry nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use futures_util::future::AbortHandle;

use super::*;

pub(crate) fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Opens a flow of forward `name` that nothing carries.
pub(crate) fn open(table: &Arc<FlowTable>, name: &str, joined: impl Into<Joined>) -> OpenFlow {
    let name: Arc<str> = name.into();
    let totals = table.totals(&name);
    table.open(
        &name,
        &totals,
        joined,
        Way::Small,
        AbortHandle::new_pair().0,
    )
}

fn filter(text: &str) -> FlowFilter {
    let mut filter = FlowFilter::default();
    for part in text.split('&') {
        let (key, value) = part.split_once('=').unwrap();
        match key {
            "id" => filter.id = Some(value.parse().unwrap()),
            "forward" => filter.forward = Some(value.to_owned()),
            "endpoint" => filter.endpoint = Some(value.parse().unwrap()),
            _ => filter.client = Some(value.parse().unwrap()),
        }
    }
    filter
}

#[test]
fn filters_pick_flows_for_which_all_holds() {
    let table = Arc::new(FlowTable::new());
    let flows = [
        open(&table, "a", (address(1), address(11))),
        open(&table, "a", (address(2), address(12))),
        open(&table, "b", (address(1), address(11))),
    ];
    let ids = |text: &str| -> Vec<u64> {
        let found = table.entries(&filter(text));
        found.iter().map(|entry| entry.id).collect()
    };
    assert_eq!(ids("forward=a"), [1, 2]);
    assert_eq!(ids("endpoint=127.0.0.1:11"), [1, 3]);
    assert_eq!(ids("endpoint=127.0.0.1"), [1, 2, 3]);
    assert_eq!(ids("client=127.0.0.1:2"), [2]);
    assert_eq!(ids("forward=b&endpoint=127.0.0.1:12"), [0; 0]);
    assert_eq!(ids("id=3&forward=b"), [3]);
    assert_eq!(table.end_matching(&filter("forward=a")), 2);
    assert_eq!(
        table.end_matching(&filter("endpoint=127.0.0.1:11")),
        1,
        "one is ending already"
    );
    drop(flows);
    assert!(table.entries(&FlowFilter::default()).is_empty());
}

#[test]
fn flows_spread_over_all_shards_and_are_listed_in_order() {
    let table = Arc::new(FlowTable::new());
    let flows: Vec<_> = (0..1000)
        .map(|_| open(&table, "a", (address(1), address(2))))
        .collect();
    let ids: Vec<_> = table.flows().iter().map(|flow| flow.id).collect();
    assert!(ids.is_sorted() && ids.len() == flows.len(), "{ids:?}");
    table.abort_all();
    let late = open(&table, "a", (address(1), address(2)));
    assert_eq!(
        table.end_matching(&FlowFilter::default()),
        0,
        "all end already"
    );
    drop(late);
}

#[test]
fn what_is_settled_by_many_is_counted_once() {
    let table = Arc::new(FlowTable::new());
    let flow = open(&table, "a", (address(1), address(2)));
    let endpoint = flow.entry.endpoint.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..10_000).for_each(|_| flow.entry.inward.add(3)));
        for _ in 0..3 {
            scope.spawn(|| {
                let mut before = 0;
                for _ in 0..1000 {
                    table.settle();
                    let now = endpoint.bytes_in.load(Ordering::Relaxed);
                    assert!(now >= before && now <= 30_000, "{before} {now}");
                    before = now;
                }
            });
        }
    });
    drop(flow);
    assert_eq!(endpoint.bytes_in.load(Ordering::Relaxed), 30_000);
    assert_eq!(endpoint.open.load(Ordering::Relaxed), 0);
}

#[test]
fn a_flow_that_is_dropped_without_a_word_was_aborted() {
    let table = Arc::new(FlowTable::new());
    let flow = open(&table, "a", (address(1), address(2)));
    let entry = flow.entry.clone();
    drop(flow);
    let ended = entry.ended.get().unwrap();
    assert_eq!(
        (ended.cause, ended.side),
        (EndCause::Aborted, EndSide::Ambassador)
    );
    let flow = open(&table, "a", (address(1), address(2)));
    flow.entry.end(EndCause::Idle, EndSide::Ambassador, None);
    flow.entry.end(EndCause::Reset, EndSide::Client, None);
    let entry = flow.entry.clone();
    drop(flow);
    assert_eq!(
        entry.ended.get().unwrap().cause,
        EndCause::Idle,
        "the first word counts"
    );
}

#[tokio::test]
async fn who_taps_too_slowly_is_told_how_much_passed_by() {
    let table = Arc::new(FlowTable::new());
    let mut tap = table.tap().unwrap();
    let before = open(&table, "a", (address(1), address(2)));
    assert!(
        matches!(tap.next().await, Some(Ok(Event::Begun(entry))) if entry.id == before.entry.id)
    );
    for _ in 0..600 {
        drop(open(&table, "a", (address(1), address(2))));
    }
    let missed = tap.next().await.unwrap().unwrap_err();
    assert_eq!(missed, 1200 - 1024);
    for left in (1..=1024).rev() {
        assert!(matches!(tap.next().await, Some(Ok(_))), "{left} are left");
    }
    drop((before, table));
    assert!(matches!(tap.next().await, Some(Ok(Event::Ended(_)))));
    assert!(tap.next().await.is_none(), "nobody is left to tell");
}

#[test]
fn those_who_tap_are_bounded() {
    let table = FlowTable::new();
    let taps: Vec<_> = (0..64).map(|_| table.tap().unwrap()).collect();
    assert!(table.tap().is_none());
    drop(taps);
    assert!(table.tap().is_some());
}
