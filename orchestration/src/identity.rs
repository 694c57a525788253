//! Ids of tasks.

use crate::Slot;

/// The id of a slot's task: 25 characters of base 36, as Docker's.
///
/// FNV-1a of 128 bits: nobody chooses ids so that they collide, for those of services are drawn by the daemon.
pub(crate) fn task_id(service: &str, slot: &Slot, version: u64, attempt: u64) -> String {
    let slot = match slot {
        Slot::Replica(number) => format!("{number}"),
        Slot::Node(node) => format!("@{node}"),
    };
    let text = format!("{service}\0{slot}\0{version}\0{attempt}");
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes() {
        hash ^= u128::from(byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    let mut digits = [b'0'; 25];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(hash % 36) as usize];
        hash /= 36;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_stay() {
        let mut seen = HashSet::new();
        for service in ["a", "b", "a\0"] {
            for number in 0..50 {
                for version in 0..5 {
                    for attempt in 0..20 {
                        let slots = [Slot::Replica(number), Slot::Node(number.to_string())];
                        for slot in slots {
                            assert!(seen.insert(task_id(service, &slot, version, attempt)));
                        }
                    }
                }
            }
        }
        assert!(seen.iter().all(|id| id.len() == 25));
        assert_eq!(
            task_id("service", &Slot::Replica(1), 2, 3),
            task_id("service", &Slot::Replica(1), 2, 3)
        );
    }
}
