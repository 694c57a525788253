//! What the director's thread does: forwards on the one side, the kernel on the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::director::Task;
use super::report::{DirectCgroup, DirectForward, Report, Standing};
use super::{DirectError, Rewriter, Scope, ServiceKey};

#[derive(Debug, Default)]
pub(super) struct Worker {
    rewriter: Option<Arc<Rewriter>>,
    /// Why there is none, and for which order it was tried: once for each.
    lacking: Option<(u64, String)>,
    cgroups: BTreeMap<PathBuf, Result<Scope, String>>,
    installed: HashMap<(Scope, ServiceKey), Vec<(SocketAddr, u16)>>,
    /// Why a service's endpoints were not taken.
    refused: HashMap<(Scope, ServiceKey), String>,
    /// What was told of each forward, which is told again only when it changes.
    told: HashMap<Arc<str>, Option<String>>,
}

impl Worker {
    /// Makes the kernel do what `tasks` say, as far as it can; `number` tells one order from the next.
    pub(super) fn carry_out(&mut self, number: u64, tasks: &[Task]) {
        if tasks.is_empty() {
            // The kernel may be a while in taking the programs off, but not in this.
            self.hand_over(tasks);
            return *self = Self::default();
        }
        if self.rewriter.is_none() {
            self.load(number);
        }
        let Some(rewriter) = &self.rewriter else {
            return;
        };
        let wanted: HashSet<&Path> = (tasks.iter())
            .flat_map(|task| task.cgroups.iter().map(PathBuf::as_path))
            .collect();
        self.cgroups.retain(|cgroup, _| {
            let stays = wanted.contains(cgroup.as_path());
            if !stays {
                rewriter.detach(cgroup);
            }
            stays
        });
        for cgroup in wanted {
            let scope = attach(rewriter, cgroup).map_err(|error| chain(&error));
            self.cgroups.insert(cgroup.to_owned(), scope);
        }
        self.hand_over(tasks);
    }

    fn load(&mut self, number: u64) {
        if self
            .lacking
            .as_ref()
            .is_some_and(|(tried, _)| *tried == number)
        {
            return;
        }
        match Rewriter::load() {
            Ok(rewriter) => (self.rewriter, self.lacking) = (Some(Arc::new(rewriter)), None),
            Err(error) => self.lacking = Some((number, chain(&error))),
        }
    }

    /// Hands each service's endpoints to the programs, and takes back what nobody wants.
    fn hand_over(&mut self, tasks: &[Task]) {
        let Some(rewriter) = &self.rewriter else {
            return;
        };
        let mut before = std::mem::take(&mut self.installed);
        let (mut stay, mut refused) = (HashMap::new(), HashMap::new());
        for task in tasks {
            let endpoints = task.endpoints();
            for scope in task.cgroups.iter().filter_map(|path| self.scope(path)) {
                let key = (scope, task.service);
                let known = before.remove(&key);
                if known.as_ref() == Some(&endpoints) {
                    stay.insert(key, endpoints.clone());
                    continue;
                }
                match rewriter.set(scope, task.service, &endpoints) {
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

    fn scope(&self, cgroup: &Path) -> Option<Scope> {
        self.cgroups.get(cgroup)?.as_ref().ok().copied()
    }

    /// How each of `tasks` fares, which is logged when it changes.
    pub(super) fn standing(&mut self, tasks: &[Task]) -> Standing {
        let lacking = self.lacking.as_ref().map(|(_, reason)| reason);
        let report = |task: &Task| Report {
            service: task.service,
            scopes: (task.cgroups.iter())
                .filter_map(|cgroup| self.scope(cgroup))
                .collect(),
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
            Some(Ok(scope)) => self.refused.get(&(*scope, service)).cloned(),
            Some(Err(reason)) => Some(reason.clone()),
            None => None,
        };
        DirectCgroup {
            path: path.to_owned(),
            unavailable,
        }
    }

    fn tell(&mut self, forward: &Arc<str>, report: &DirectForward) {
        let in_cgroups = || (report.cgroups.iter()).find_map(|cgroup| cgroup.unavailable.clone());
        let reason = report.unavailable.clone().or_else(in_cgroups);
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

fn attach(rewriter: &Rewriter, cgroup: &Path) -> Result<Scope, DirectError> {
    let attached = Scope::of(cgroup).and_then(|scope| {
        rewriter.attach(cgroup, scope)?;
        Ok(scope)
    });
    if attached.is_err() {
        rewriter.detach(cgroup);
    }
    attached
}

/// The message with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
