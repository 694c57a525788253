//! Capabilities by name and as a set, and how a process comes to have exactly those.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Names in the order of their numbers (capabilities(7)), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, bit n being capability n.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) struct CapSet(u64);

/// A capability was named that the kernel does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown capability {0:?}: it should be one of capabilities(7), CAP_NET_ADMIN for example, or ALL"
)]
pub struct UnknownCapability(String);

impl CapSet {
    pub(crate) const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What Docker leaves a container.
    pub(crate) const DOCKER: Self = Self(0xa804_25fb);

    /// The set of one capability, named with or without `CAP_`, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| *known == name)
            .map(|bit| Self(1 << bit))
    }

    /// Docker's default, widened by `add` and narrowed by `drop`; `ALL` in either means all of them.
    pub(crate) fn tweaked(add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let (add_all, add) = union(add)?;
        let (drop_all, drop) = union(drop)?;
        // as Docker does: `--cap-add ALL --cap-drop X` is all but X, `--cap-drop ALL --cap-add X` is X
        Ok(match (add_all, drop_all) {
            (true, _) => Self(Self::ALL.0 & !drop.0),
            (false, true) => add,
            (false, false) => Self((Self::DOCKER.0 | add.0) & !drop.0),
        })
    }

    /// Whether it has the capability `name`, said without `CAP_`.
    pub(crate) fn contains(self, name: &str) -> bool {
        NAMES
            .iter()
            .position(|known| *known == name)
            .is_some_and(|bit| self.0 >> bit & 1 == 1)
    }

    /// Takes every other capability out of the bounding set, so that no program gains it again.
    pub(crate) fn bound(self) -> io::Result<()> {
        for bit in 0..64 {
            let single = CapabilitySet::from_bits_retain(1 << bit);
            match rustix::thread::capability_is_in_bounding_set(single) {
                Ok(true) if self.0 >> bit & 1 == 0 => {
                    rustix::thread::remove_capability_from_bounding_set(single)?;
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INVAL) => break, // beyond the last this kernel knows
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Holds exactly these from now on. What a program then has after execve(2) depends on its user: root gets the
    /// bounding set, others nothing, as with Docker.
    pub(crate) fn hold(self) -> io::Result<()> {
        let held = rustix::thread::capabilities(None)?
            .permitted
            .intersection(CapabilitySet::from_bits_retain(self.0));
        let sets = CapabilitySets {
            effective: held,
            permitted: held,
            inheritable: CapabilitySet::empty(),
        };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }
}

fn union(names: &[String]) -> Result<(bool, CapSet), UnknownCapability> {
    let mut all = false;
    let mut set = CapSet(0);
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            set.0 |= CapSet::named(name)
                .ok_or_else(|| UnknownCapability(name.clone()))?
                .0;
        }
    }
    Ok((all, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tweaked(add: &[&str], drop: &[&str]) -> u64 {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        CapSet::tweaked(&owned(add), &owned(drop))
            .expect("known names")
            .0
    }

    #[test]
    fn docker_grammar() {
        assert_eq!(tweaked(&[], &[]), 0xa804_25fb);
        assert_eq!(tweaked(&["net_admin"], &[]), 0xa804_25fb | 1 << 12);
        assert_eq!(tweaked(&["CAP_NET_ADMIN"], &["ALL"]), 1 << 12);
        assert_eq!(tweaked(&["ALL"], &["CAP_CHOWN"]), CapSet::ALL.0 & !1);
        assert_eq!(tweaked(&[], &["MKNOD"]), 0xa804_25fb & !(1 << 27));
    }

    #[test]
    fn an_unknown_name_is_told() {
        let error = CapSet::tweaked(&["NET_ADMINN".into()], &[]).expect_err("unknown");
        assert!(error.to_string().contains("NET_ADMINN"));
    }
}
