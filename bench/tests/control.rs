//! The simulation of control traffic, at a size that is over at once.

use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn each_host_sees_each_change_and_what_that_costs_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_nuncio-bench"))
        .args(["control", "--hosts", "250", "--endpoints", "500"])
        .args(["--changes", "3", "--quiet", "4"])
        .output()
        .expect("run it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let figures: BTreeMap<&str, f64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, figure)| Some((name, figure.parse().ok()?)))
        .collect();
    // A node, its life and its block, and the containers.
    assert_eq!(figures["list_keys"] as u32, 250 * 3 + 500);
    assert_eq!(figures["keepalives_lost"] as u32, 0);
    let bytes = figures["change_bytes_per_host"];
    assert!(
        (300.0..2000.0).contains(&bytes),
        "a record, and nothing else: {bytes}"
    );
    assert!(figures["change_seen_by_all_p99_ms"] > 0.0);
    assert!(figures["registry_megabytes"] > 1.0);
}
