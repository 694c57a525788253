//! Makes the kernel what the state says, by difference.

mod around;
mod counted;
mod flows;
mod kept;
mod links;
mod offload;
mod pass;
mod report;
mod rows;
mod shortcut;

use std::{
    collections::{HashMap, HashSet},
    io,
};

use ipnetwork::IpNetwork;

use self::around::Fit;
use self::counted::Counted;
pub use self::counted::{PeerTraffic, peer_traffic};
use self::kept::{Brought, Kept};
use self::pass::{Pass, Passed};
pub use self::report::{Object, ReconcileError, ReconcileFailure, Report};
use self::shortcut::Shortcut;
pub use self::{
    links::is_link_name,
    shortcut::{ShortcutState, Standing},
};
use crate::{
    HostState, Published, Segment, firewall,
    netlink::{Netlink, Ruleset},
    nft::NftError,
};

/// This network namespace's links, routes, neighbours and rules, as far as they are ours.
pub struct Kernel {
    netlink: Netlink,
    /// What the last pass left standing: what is missing of it now is drift.
    standing: HashSet<Object>,
    /// How routes were last fitted to their paths: that they are to be otherwise now is no drift.
    fitted: HashMap<IpNetwork, Fit>,
    /// What was drift and is mended, until somebody asks.
    repaired: Vec<Object>,
    rules: Kept,
    shortcut: Shortcut,
    counted: Counted,
    /// The ports of UDP for which flows were last looked at.
    udp: Option<Vec<Published>>,
    /// Absent where the kernel does not count changes: then the rules are listed each time.
    ruleset: Option<Ruleset>,
}

/// Repairs that are kept for who asks; of more, the first are.
const REPAIRS: usize = 1024;

/// Why the kernel could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("open a route socket")]
pub struct OpenKernelError(#[from] io::Error);

impl Kernel {
    /// Opens the calling thread's network namespace, from which the later calls must come too,
    /// for `nft` and `/proc/sys/net` follow the caller.
    ///
    /// # Errors
    ///
    /// If the kernel gives no netlink socket.
    pub async fn open() -> Result<Self, OpenKernelError> {
        Ok(Self {
            netlink: Netlink::open()?,
            standing: HashSet::new(),
            fitted: HashMap::new(),
            repaired: Vec::new(),
            rules: Kept::new(&firewall::TABLES),
            shortcut: Shortcut::new(),
            counted: Counted::default(),
            udp: None,
            ruleset: Ruleset::open().ok(),
        })
    }

    /// Makes the kernel what `state` says, and removes what of ours it does not say.
    ///
    /// What others made is left alone, and what already stands is not touched, so that no packet is lost.
    ///
    /// # Errors
    ///
    /// All that could not be done; the rest is done nevertheless.
    pub async fn reconcile(&mut self, state: &HostState) -> Result<Report, ReconcileError> {
        let mut pass = Pass::new(&self.netlink, &self.standing, &self.fitted);
        if !state.segments.is_empty() {
            pass.forwarding();
        }
        if state.segments.iter().any(Segment::has_v6) {
            pass.forwarding_v6();
        }
        let ruleset = self.ruleset.as_ref();
        let links = pass.links(&state.segments).await;
        pass.offloads(&state.segments);
        if let Some(links) = &links {
            pass.rows(&state.segments, links).await;
        }
        Self::rules(&mut self.rules, ruleset, &mut pass, state).await;
        if let Some(links) = &links {
            let shortened: &[_] = match state.shortcut {
                true => &state.segments,
                false => &[],
            };
            let shortcut = &mut self.shortcut;
            if shortcut
                .reconcile(shortened, links, ruleset, &mut pass)
                .await
            {
                self.rules.expect_one_more(ruleset);
            }
        }
        let passed = pass.finish();
        self.fitted = around::fitted(&state.segments);
        self.count(&state.segments).await;
        self.flows(state).await;
        self.keep(passed)
    }

    /// Counts what goes to peers, and has the other tables' keepers know whose change that was.
    async fn count(&mut self, segments: &[Segment]) {
        if self.counted.reconcile(segments).await {
            let ruleset = self.ruleset.as_ref();
            self.rules.expect_one_more(ruleset);
            self.shortcut.expect_one_more(ruleset);
        }
    }

    /// Ends the flows of UDP that go where the rules led once. Those of others, and of TCP, are left alone.
    async fn flows(&mut self, state: &HostState) {
        let udp = flows::udp(state);
        if state.segments.is_empty() || self.udp.as_ref() == Some(&udp) {
            return;
        }
        match flows::forget_stale(&self.netlink, state).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "flows of UDP that led elsewhere"),
            // The kernel may lack it. Clients that send on and on are then late to find the new target.
            Err(error) => tracing::warn!(%error, "look through the flows of UDP"),
        }
        self.udp = Some(udp);
    }

    /// What was not as it had been left, and was mended since the last call.
    pub fn take_repaired(&mut self) -> Vec<Object> {
        std::mem::take(&mut self.repaired)
    }

    /// Whether the tables of rules are as they were left.
    pub async fn standing(&self) -> Standing {
        let ruleset = self.ruleset.as_ref();
        Standing {
            rules: self.rules.stand(ruleset).await,
            shortcut: self.shortcut.state(ruleset).await,
        }
    }

    /// Asks how the kernel lists the rules it was given last: with that, later changes by others are told from those that
    /// do not concern us. It runs `nft`, so it is for a moment when nobody waits; without it all works as well, but slower.
    ///
    /// # Errors
    ///
    /// If `nft` cannot be run.
    pub async fn settle(&mut self) -> Result<(), NftError> {
        let ruleset = self.ruleset.as_ref();
        self.rules.settle(ruleset).await?;
        self.shortcut.settle(ruleset).await
    }

    fn keep(&mut self, passed: Passed) -> Result<Report, ReconcileError> {
        self.standing = passed.standing;
        let room = REPAIRS.saturating_sub(self.repaired.len());
        self.repaired.extend(passed.repaired.into_iter().take(room));
        passed.result
    }

    /// Removes all that is ours, the containers' links included.
    ///
    /// # Errors
    ///
    /// All that could not be removed.
    pub async fn clear(&mut self) -> Result<Report, ReconcileError> {
        let mut pass = Pass::new(&self.netlink, &self.standing, &self.fitted);
        pass.remove_veths().await;
        let ruleset = self.ruleset.as_ref();
        if let Some(links) = pass.links(&[]).await {
            pass.rows(&[], &links).await;
            let shortcut = &mut self.shortcut;
            shortcut.reconcile(&[], &links, ruleset, &mut pass).await;
        }
        let nothing = HostState::default();
        Self::rules(&mut self.rules, ruleset, &mut pass, &nothing).await;
        let passed = pass.finish();
        self.counted.forget();
        self.count(&[]).await;
        self.keep(passed)
    }

    /// Replaces the tables unless they are as they were left.
    async fn rules(
        rules: &mut Kept,
        ruleset: Option<&Ruleset>,
        pass: &mut Pass<'_>,
        state: &HostState,
    ) {
        let batch = firewall::render(state);
        let absent = batch.is_empty();
        match rules.bring(batch, ruleset).await {
            Err(error) => return pass.fail(error.into()),
            Ok(Brought::AsTheyWere) => {}
            Ok(Brought::Replaced { drifted }) => pass.count_table(absent, drifted),
        }
        pass.stands(absent, Object::Table);
    }
}
