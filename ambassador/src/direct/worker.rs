//! What the director's thread does: forwards on the one side, the kernel on the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::director::{Pause, Task};
use super::report::{DirectCgroup, DirectForward, Report, Standing};
use super::scopes::{Scopes, View};
use super::{Rewriter, Scope, ServiceKey, cgroup};
use crate::edge::chain;

/// An endpoint and its weight.
type Weighted = (SocketAddr, u16);

#[derive(Debug, Default)]
pub(super) struct Worker {
    /// The orders that were carried out last.
    number: u64,
    rewriter: Option<Arc<Rewriter>>,
    /// Why there is none; it is tried once for each order.
    lacking: Option<String>,
    /// What each cgroup is to see.
    views: BTreeMap<PathBuf, View>,
    scopes: Scopes,
    cgroups: BTreeMap<PathBuf, Result<Attached, String>>,
    /// Those of each task.
    endpoints: Vec<Vec<Weighted>>,
    installed: HashMap<(Scope, ServiceKey), Vec<Weighted>>,
    /// Why a service's endpoints were not taken.
    refused: HashMap<(Scope, ServiceKey), String>,
    /// What was told of each forward, which is told again only when it changes.
    told: HashMap<Arc<str>, Option<String>>,
}

/// A cgroup whose processes are spared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Attached {
    /// Its number in the kernel.
    id: u64,
    scope: Scope,
}

impl Worker {
    /// Makes the kernel do what `tasks` say, as far as it can; `number` tells one order from the
    /// next. False if all is as it was, which costs little to find out.
    pub(super) fn carry_out(&mut self, number: u64, tasks: &[Task]) -> bool {
        if tasks.is_empty() {
            // The kernel may be a while in taking the programs off, but not in this.
            self.hand_over(tasks);
            *self = Self::default();
            return true;
        }
        let is_new = self.number != number;
        self.number = number;
        if is_new {
            self.views = views(tasks);
            if self.rewriter.is_none() {
                self.load();
            }
        }
        let Some(rewriter) = self.rewriter.clone() else {
            return is_new;
        };
        let found = self.find();
        let endpoints: Vec<_> = tasks.iter().map(Task::endpoints).collect();
        if !is_new && endpoints == self.endpoints && self.are_known(&found) {
            return false;
        }
        self.endpoints = endpoints;
        self.group(&found);
        self.attach(&rewriter, found);
        self.hand_over(tasks);
        true
    }

    /// How long all stays as it is, unless somebody says otherwise.
    pub(super) fn pause(&self, tasks: &[Task]) -> Pause {
        let is_missing = || self.cgroups.values().any(Result::is_err);
        if self.rewriter.is_none() {
            Pause::Endless
        } else if is_missing() || tasks.iter().any(Task::is_waiting) {
            Pause::Short
        } else {
            Pause::Long
        }
    }

    fn load(&mut self) {
        match Rewriter::load() {
            Ok(rewriter) => (self.rewriter, self.lacking) = (Some(Arc::new(rewriter)), None),
            Err(error) => self.lacking = Some(chain(&error)),
        }
    }

    /// The number of each cgroup that is wanted, or why it has none.
    fn find(&self) -> BTreeMap<PathBuf, Result<u64, String>> {
        let number = |path: &PathBuf| {
            let known = self.cgroups.get(path).and_then(|known| known.as_ref().ok());
            match known.filter(|known| cgroup::number(path) == Some(known.id)) {
                Some(known) => Ok(known.id),
                None => cgroup::open(path)
                    .map(|(_, id)| id)
                    .map_err(|error| chain(&error)),
            }
        };
        let paths = self.views.keys();
        paths.map(|path| (path.clone(), number(path))).collect()
    }

    fn are_known(&self, found: &BTreeMap<PathBuf, Result<u64, String>>) -> bool {
        let known = self.cgroups.iter().map(|(path, known)| {
            let id = known.as_ref().map(|known| known.id);
            (path, id)
        });
        let found = found.iter().map(|(path, id)| (path, id.as_ref().copied()));
        known.eq(found)
    }

    fn group(&mut self, found: &BTreeMap<PathBuf, Result<u64, String>>) {
        let mut views: BTreeMap<u64, View> = BTreeMap::new();
        for (path, view) in &self.views {
            if let Some(Ok(id)) = found.get(path) {
                // There may be several ways to a cgroup.
                views.entry(*id).or_default().extend(view);
            }
        }
        self.scopes
            .follow(&views.iter().map(|(id, view)| (*id, view)).collect());
    }

    /// Attaches the programs to the cgroups that are found, and to no others.
    fn attach(&mut self, rewriter: &Rewriter, found: BTreeMap<PathBuf, Result<u64, String>>) {
        for gone in self
            .cgroups
            .keys()
            .filter(|path| !found.contains_key(*path))
        {
            rewriter.detach(gone);
        }
        let mut before = std::mem::take(&mut self.cgroups);
        for (path, id) in found {
            let wanted = id.and_then(|id| {
                let scope = self.scopes.of(id).ok_or("it has no scope")?;
                Ok(Attached { id, scope })
            });
            let known = before.remove(&path);
            let attached = wanted.and_then(|wanted| match known {
                Some(Ok(known)) if known == wanted => Ok(wanted),
                _ => match rewriter.attach(&path, wanted.scope) {
                    Ok(()) => Ok(wanted),
                    Err(error) => Err(chain(&error)),
                },
            });
            if attached.is_err() {
                rewriter.detach(&path);
            }
            self.cgroups.insert(path, attached);
        }
    }

    /// Hands each service's endpoints to the programs, and takes back what nobody wants.
    fn hand_over(&mut self, tasks: &[Task]) {
        let Some(rewriter) = &self.rewriter else {
            return;
        };
        let mut before = std::mem::take(&mut self.installed);
        let (mut stay, mut refused) = (HashMap::new(), HashMap::new());
        for (task, endpoints) in tasks.iter().zip(&self.endpoints) {
            for scope in self.scopes_of(task) {
                let key = (scope, task.service);
                let known = before.remove(&key);
                if known.as_ref() == Some(endpoints) {
                    stay.insert(key, endpoints.clone());
                    continue;
                }
                match rewriter.set(scope, task.service, endpoints) {
                    Ok(()) => _ = stay.insert(key, endpoints.clone()),
                    // Better none than those of yesterday, which nobody takes out any more.
                    Err(error) => {
                        refused.insert(key, chain(&error));
                        before.extend(known.map(|known| (key, known)));
                    }
                }
            }
        }
        for (scope, service) in before.into_keys() {
            if let Err(error) = rewriter.remove(scope, service) {
                warn!(%service, error = chain(&error), "rewriting is not taken back");
            }
        }
        (self.installed, self.refused) = (stay, refused);
    }

    fn scopes_of(&self, task: &Task) -> BTreeSet<Scope> {
        let scope = |path: &PathBuf| self.scope(path);
        task.cgroups.iter().filter_map(scope).collect()
    }

    fn scope(&self, cgroup: &Path) -> Option<Scope> {
        let attached = self.cgroups.get(cgroup)?.as_ref().ok()?;
        Some(attached.scope)
    }

    /// How each of `tasks` fares, which is logged when it changes.
    pub(super) fn standing(&mut self, tasks: &[Task]) -> Standing {
        let lacking = self.lacking.as_ref();
        let report = |task: &Task| Report {
            service: task.service,
            scopes: self.scopes_of(task),
            forward: DirectForward {
                forward: task.forward.to_string(),
                service: task.service.to_string(),
                unavailable: lacking.cloned().or_else(|| task.foreign()),
                cgroups: (task.cgroups.iter())
                    .map(|path| self.cgroup(path, task.service))
                    .collect(),
                connects: Vec::new(),
            },
        };
        let reports: Vec<_> = tasks.iter().map(report).collect();
        let names: HashSet<_> = tasks.iter().map(|task| &task.forward).collect();
        self.told.retain(|forward, _| names.contains(forward));
        for (task, report) in tasks.iter().zip(&reports) {
            self.tell(&task.forward, &report.forward);
        }
        Standing {
            rewriter: self.rewriter.clone(),
            reports,
        }
    }

    fn cgroup(&self, path: &Path, service: ServiceKey) -> DirectCgroup {
        let unavailable = match self.cgroups.get(path) {
            Some(Ok(attached)) => self.refused.get(&(attached.scope, service)).cloned(),
            Some(Err(reason)) => Some(reason.clone()),
            None => None,
        };
        DirectCgroup {
            path: path.to_owned(),
            unavailable,
        }
    }

    /// Says whether the forward's clients are spared; that one of many cgroups has just gone is not
    /// worth a word.
    fn tell(&mut self, forward: &Arc<str>, report: &DirectForward) {
        let mut reasons = report.cgroups.iter().map(|cgroup| &cgroup.unavailable);
        let in_all = match report.cgroups.first() {
            Some(first) if reasons.all(Option::is_some) => first.unavailable.clone(),
            _ => None,
        };
        let reason = report.unavailable.clone().or(in_all);
        if self.told.get(forward) == Some(&reason) {
            return;
        }
        match &reason {
            None => {
                info!(%forward, service = report.service, "connections go straight to the endpoints");
            }
            Some(reason) => {
                info!(%forward, service = report.service, reason, "connections are relayed");
            }
        }
        self.told.insert(forward.clone(), reason);
    }
}

/// What each cgroup is to see, by its path.
fn views(tasks: &[Task]) -> BTreeMap<PathBuf, View> {
    let mut views: BTreeMap<PathBuf, View> = BTreeMap::new();
    for task in tasks {
        for path in &task.cgroups {
            match views.get_mut(path) {
                Some(view) => _ = view.insert(task.service),
                None => _ = views.insert(path.clone(), View::from([task.service])),
            }
        }
    }
    views
}
