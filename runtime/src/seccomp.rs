//! The default seccomp filter: the system calls that Docker lets a container make.
//!
//! The verdicts stand in `seccomp/syscalls.txt`. Compiling them takes some microseconds, so nothing is cached.

mod filter;

use crate::capabilities::CapSet;
use crate::sys::Instruction;

const TABLE: &str = include_str!("seccomp/syscalls.txt");

#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 2] = [
    Abi {
        audit: 0xc000_003e,
        column: 0,
        x32: true,
    },
    Abi {
        audit: 0x4000_0003,
        column: 1,
        x32: false,
    },
];
#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 1] = [Abi {
    audit: 0xc000_00b7,
    column: 2,
    x32: false,
}];

/// One calling convention of this processor.
#[derive(Clone, Copy)]
struct Abi {
    /// `AUDIT_ARCH_*`, as the kernel names it to a filter.
    audit: u32,
    /// Column of `TABLE` that has its numbers.
    column: usize,
    /// Whether numbers with bit 30 are those of the x32 convention, which is refused.
    x32: bool,
}

/// What the filter says to a system call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Allow,
    /// `EPERM`.
    Deny,
    /// `ENOSYS`, so that a C library falls back on an older call.
    Unknown,
    /// `clone` without new namespaces.
    Clone,
    /// `personality` with a harmless argument.
    Personality,
    /// `socket` of a family that containers need.
    Socket,
}

/// The filter for a process whose bounding set is `caps`.
pub(crate) fn compile(caps: CapSet) -> Vec<Instruction> {
    filter::assemble(
        ABIS.iter()
            .map(|abi| (abi.audit, abi.x32, verdicts(abi.column, caps))),
    )
}

/// Number and verdict of each call in one column of the table, by number.
fn verdicts(column: usize, caps: CapSet) -> Vec<(u32, Verdict)> {
    let mut rows: Vec<_> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let name = words.next()?;
            let number = words.nth(column)?.parse().ok()?; // `-` where there is none
            Some((number, verdict(name, words.last()?, caps)))
        })
        .collect();
    rows.sort_unstable_by_key(|(number, _)| *number);
    rows
}

fn verdict(name: &str, rule: &str, caps: CapSet) -> Verdict {
    let privileged = caps.contains("SYS_ADMIN");
    match (rule, name) {
        ("allow", _) => Verdict::Allow,
        ("args", "clone" | "clone3") if privileged => Verdict::Allow,
        ("args", "clone") => Verdict::Clone,
        ("args", "clone3") => Verdict::Unknown,
        ("args", "personality") => Verdict::Personality,
        ("args", "socket") => Verdict::Socket,
        _ => match rule.strip_prefix("cap:") {
            Some(any) if any.split(',').any(|cap| caps.contains(cap)) => Verdict::Allow,
            _ => Verdict::Deny,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_three_numbers_and_a_known_rule() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            assert_eq!(words.len(), 5, "{line}");
            for number in &words[1..4] {
                assert!(*number == "-" || number.parse::<u32>().is_ok(), "{line}");
            }
            match words[4] {
                "allow" | "deny" => {}
                "args" => assert!(["clone", "clone3", "personality", "socket"].contains(&words[0])),
                rule => {
                    let caps = rule.strip_prefix("cap:").expect(line);
                    assert!(
                        caps.split(',').all(|cap| CapSet::named(cap).is_some()),
                        "{line}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_capability_opens_its_calls() {
        let reboot = |caps| verdict("reboot", "cap:SYS_BOOT", caps);
        assert_eq!(reboot(CapSet::DOCKER), Verdict::Deny);
        assert_eq!(
            reboot(CapSet::named("SYS_BOOT").expect("known")),
            Verdict::Allow
        );
    }
}
