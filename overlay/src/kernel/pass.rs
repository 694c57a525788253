use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
};

use ipnetwork::Ipv4Network;

use super::{Object, ReconcileError, ReconcileFailure, Report};
use crate::netlink::Netlink;

/// Whether this namespace forwards packets.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// One reconciliation under way.
pub(super) struct Pass<'k> {
    pub(super) netlink: &'k Netlink,
    before: &'k HashSet<Object>,
    pub(super) fitted: &'k HashMap<Ipv4Network, u32>,
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
        fitted: &'k HashMap<Ipv4Network, u32>,
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
        match set_sysctl(Path::new(FORWARDING), "1") {
            Ok(false) => self.stands(false, Object::Forwarding),
            Ok(true) => self.made(Object::Forwarding, false, Ok(())),
            Err(error) => self.made(Object::Forwarding, false, Err(error)),
        }
    }

    /// Takes what was listed, or notes why it was not.
    pub(super) fn listed<T>(&mut self, what: &'static str, result: io::Result<T>) -> Option<T> {
        result
            .map_err(|source| self.fail(ReconcileFailure::List { what, source }))
            .ok()
    }
}

/// Sets a kernel setting unless it is so, and tells whether it had to.
pub(super) fn set_sysctl(path: &Path, value: &str) -> io::Result<bool> {
    if fs::read_to_string(path)?.trim() == value {
        return Ok(false);
    }
    fs::write(path, value).map(|()| true)
}
