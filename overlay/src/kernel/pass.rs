use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
};

use ipnetwork::IpNetwork;

use super::{Object, ReconcileError, ReconcileFailure, Report, around::Fit};
use crate::netlink::Netlink;

/// Whether this namespace forwards packets.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether it forwards those of IPv6.
const FORWARDING_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
/// The settings of IPv6 of each link, and of `all` and `default`.
const LINKS_V6: &str = "/proc/sys/net/ipv6/conf";

/// One reconciliation under way.
pub(super) struct Pass<'k> {
    pub(super) netlink: &'k Netlink,
    before: &'k HashSet<Object>,
    pub(super) fitted: &'k HashMap<IpNetwork, Fit>,
    standing: HashSet<Object>,
    report: Report,
    repaired: Vec<Object>,
    failures: Vec<ReconcileFailure>,
}

/// What a reconciliation leaves.
pub(super) struct Passed {
    pub(super) standing: HashSet<Object>,
    pub(super) repaired: Vec<Object>,
    pub(super) result: Result<Report, ReconcileError>,
}

impl<'k> Pass<'k> {
    pub(super) fn new(
        netlink: &'k Netlink,
        before: &'k HashSet<Object>,
        fitted: &'k HashMap<IpNetwork, Fit>,
    ) -> Self {
        Self {
            netlink,
            before,
            fitted,
            standing: HashSet::new(),
            report: Report::default(),
            repaired: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Passed {
        let Self {
            standing,
            report,
            repaired,
            failures,
            ..
        } = self;
        let result = if failures.is_empty() {
            Ok(report)
        } else {
            Err(ReconcileError { failures, report })
        };
        Passed {
            standing,
            repaired,
            result,
        }
    }

    pub(super) fn fail(&mut self, failure: ReconcileFailure) {
        self.failures.push(failure);
    }

    /// Keeps in mind that `object` is as wanted.
    pub(super) fn stands(&mut self, absent: bool, object: Object) {
        if !absent {
            self.standing.insert(object);
        }
    }

    /// Counts the making of `object`: of one that was there, if otherwise, it is a repair.
    pub(super) fn made(&mut self, object: Object, was_otherwise: bool, result: io::Result<()>) {
        match result {
            Err(source) => self.fail(ReconcileFailure::Make { object, source }),
            Ok(()) => {
                if was_otherwise || self.before.contains(&object) {
                    self.mended(object.clone());
                } else {
                    self.report.created += 1;
                }
                self.standing.insert(object);
            }
        }
    }

    /// Counts what is wanted otherwise than it was before.
    pub(super) fn adjusted(&mut self, object: Object, result: io::Result<()>) {
        match result {
            Err(source) => self.fail(ReconcileFailure::Make { object, source }),
            Ok(()) => {
                self.report.created += 1;
                self.standing.insert(object);
            }
        }
    }

    pub(super) fn removed(&mut self, object: Object, result: io::Result<()>) {
        match result {
            Err(source) => self.fail(ReconcileFailure::Remove { object, source }),
            Ok(()) => self.report.removed += 1,
        }
    }

    /// Counts a repair.
    pub(super) fn mended(&mut self, object: Object) {
        self.report.repaired += 1;
        self.repaired.push(object);
    }

    /// Counts the replacement of the table, or its removal if it is `absent` now; it `drifted` if it was not as it was left.
    pub(super) fn count_table(&mut self, absent: bool, drifted: bool) {
        match (absent, drifted) {
            (true, _) => self.report.removed += 1,
            (false, true) => self.mended(Object::Table),
            (false, false) => self.report.created += 1,
        }
    }

    /// Lets this namespace, and no other, route.
    pub(super) fn forwarding(&mut self) {
        let set = set_sysctl(Path::new(FORWARDING), "1");
        self.set(Object::Forwarding, set);
    }

    /// Lets it route IPv6.
    pub(super) fn forwarding_v6(&mut self) {
        self.set(Object::ForwardingV6, forward_v6());
    }

    fn set(&mut self, object: Object, set: io::Result<bool>) {
        match set {
            Ok(false) => self.stands(false, object),
            Ok(true) => self.made(object, false, Ok(())),
            Err(error) => self.made(object, false, Err(error)),
        }
    }

    /// Takes what was listed, or notes why it was not.
    pub(super) fn listed<T>(&mut self, what: &'static str, result: io::Result<T>) -> Option<T> {
        result
            .map_err(|source| self.fail(ReconcileFailure::List { what, source }))
            .ok()
    }
}

/// Who routes takes no router's word any more (`accept_ra` of 1), unless told to in spite of that (2): without it a host
/// that has its own way out from a router would lose that.
fn forward_v6() -> io::Result<bool> {
    let forwarding = Path::new(FORWARDING_V6);
    if fs::read_to_string(forwarding)?.trim() == "1" {
        return Ok(false);
    }
    for link in fs::read_dir(LINKS_V6)? {
        let accept = link?.path().join("accept_ra");
        // A link may go meanwhile, and what it said with it.
        if fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
            fs::write(&accept, "2").or_else(gone)?;
        }
    }
    fs::write(forwarding, "1").map(|()| true)
}

fn gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Sets a kernel setting unless it is so, and tells whether it had to.
pub(super) fn set_sysctl(path: &Path, value: &str) -> io::Result<bool> {
    if fs::read_to_string(path)?.trim() == value {
        return Ok(false);
    }
    fs::write(path, value).map(|()| true)
}
