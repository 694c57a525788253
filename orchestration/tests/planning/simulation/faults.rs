use nuncio_orchestration::{Availability, FailureAction, Mode, UpdateState, plan};

use super::Simulation;

impl Simulation {
    /// Has something happen, or not.
    pub(super) fn faults(&mut self) {
        let at = usize::try_from(self.lots.below(self.hosts.len() as u64)).expect("few hosts");
        let away = self.hosts.iter().filter(|h| !h.reaches_others()).count();
        let most = self.hosts.len() / 2;
        let host = &mut self.hosts[at];
        let what = match self.lots.below(60) {
            0 if away < most => {
                host.down = true;
                host.runs.clear();
                "crashes"
            }
            1 if away < most => {
                host.cut_off = true;
                "is cut off"
            }
            2..=7 if !host.reaches_others() => {
                (host.down, host.cut_off) = (false, false);
                "is back"
            }
            8 => {
                host.slow = !host.slow;
                "changes its speed"
            }
            9 => {
                let drained = self
                    .truth
                    .nodes
                    .values()
                    .any(|n| n.availability != Availability::Active);
                let node = self.truth.nodes.get_mut(&host.id).expect("a host");
                node.availability = match node.availability {
                    Availability::Active if !drained => Availability::Drain,
                    _ => Availability::Active,
                };
                "is drained, or no longer"
            }
            10 | 11 => {
                self.lags = !self.lags;
                self.lagging = self.truth.clone();
                "has a leader that lags behind, or no longer"
            }
            12 | 13 => {
                self.change();
                return;
            }
            14 => {
                let web = self.truth.services.get_mut("web").expect("web");
                web.rebalance = true;
                "asks for balance"
            }
            _ => return,
        };
        let note = format!("{} {what}", self.hosts[at].id);
        self.note(&note);
    }

    /// Somebody changes a service: its version, or only its number of replicas.
    fn change(&mut self) {
        let mut names = self.truth.services.keys();
        let count = self.truth.services.len() as u64;
        let at = usize::try_from(self.lots.below(count)).expect("few services");
        let name = names.nth(at).expect("a service").clone();
        let service = self.truth.services.get_mut(&name).expect("a service");
        if name == "web" && self.lots.one_in(2) {
            service.spec.mode = Mode::Replicated {
                replicas: self.lots.between(1, 6),
            };
            self.note("web is scaled");
            return;
        }
        let bad = name == "web" && self.lots.one_in(3);
        self.renew(&name, bad);
    }

    /// Gives a service another version, a bad one of which is taken back.
    fn renew(&mut self, name: &str, bad: bool) {
        let service = self.truth.services.get_mut(name).expect("a service");
        self.changes += 1;
        service.previous = Some(service.spec.clone());
        service.spec.version = self.changes + 1;
        service.update = None;
        service.spec.update.on_failure = FailureAction::Continue;
        if bad {
            service.spec.update.on_failure = FailureAction::Rollback;
            self.bad.insert(service.spec.version);
        }
        self.note(&format!(
            "{name} is changed{}",
            if bad { ", badly" } else { "" }
        ));
    }

    /// All but what has crashed for good is as it should be again.
    pub(super) fn end_faults(&mut self) {
        self.note("no more faults");
        let dead = self.lots.one_in(2);
        for host in &mut self.hosts {
            host.cut_off = false;
            host.slow = false;
            if !dead {
                host.down = false;
            }
        }
        for node in self.truth.nodes.values_mut() {
            node.availability = Availability::Active;
        }
        self.lags = false;
        self.planned = None;
        // Where one may end that went back to what was bad as well.
        let web = &self.truth.services["web"];
        let stands = web
            .update
            .as_ref()
            .is_some_and(|u| matches!(u.state, UpdateState::Paused | UpdateState::RollbackPaused));
        let previous_bad = web
            .previous
            .as_ref()
            .is_some_and(|spec| self.bad.contains(&spec.version));
        if stands || previous_bad || self.bad.contains(&web.spec.version) && web.previous.is_none()
        {
            self.renew("web", false);
        }
    }

    /// Nothing is planned and nothing will be, and no host has anything left to do.
    pub(super) fn at_rest(&self) -> bool {
        let planned = plan(&self.truth);
        // A day later tasks of dead hosts are given up.
        let soon = planned
            .wake_at
            .is_some_and(|at| at < self.truth.now + super::REST);
        let done = |task: &nuncio_orchestration::Task| {
            let alive = task
                .node
                .as_ref()
                .is_some_and(|id| self.truth.nodes[id].alive);
            task.ended() || task.up() || !alive
        };
        let updated = self.truth.services.values().all(|s| {
            let update = s.update.as_ref();
            update.is_none_or(|u| {
                matches!(
                    u.state,
                    UpdateState::Completed | UpdateState::RollbackCompleted
                )
            })
        });
        let known = self
            .hosts
            .iter()
            .all(|host| host.down != self.truth.nodes[&host.id].alive && host.fenced_by.is_none());
        planned.actions.is_empty()
            && !soon
            && updated
            && known
            && self.truth.tasks.values().all(done)
    }
}
