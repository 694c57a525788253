//! Makes the kernel what the state says, by difference.

mod flows;
mod links;
mod pass;
mod report;
mod rows;
mod shortcut;

use std::{
    collections::{HashMap, HashSet},
    io,
};

use ipnetwork::Ipv4Network;

pub(crate) use self::links::is_link_name;
use self::pass::{Pass, Passed};
pub use self::report::{Object, ReconcileError, ReconcileFailure, Report};
use self::shortcut::Shortcut;
use crate::{
    HostState, Published, firewall,
    netlink::{Netlink, Ruleset},
    nft::{self, NftError},
};

/// This network namespace's links, routes, neighbours and rules, as far as they are ours.
pub struct Kernel {
    netlink: Netlink,
    /// What the last pass left standing: what is missing of it now is drift.
    standing: HashSet<Object>,
    /// The MTUs that routes were last given: other ones that are wanted now are no drift.
    fitted: HashMap<Ipv4Network, u32>,
    /// What was drift and is mended, until somebody asks.
    repaired: Vec<Object>,
    rules: Option<Rules>,
    shortcut: Shortcut,
    /// The ports of UDP for which flows were last looked at.
    udp: Option<Vec<Published>>,
    /// Absent where the kernel does not count changes: then the rules are listed each time.
    ruleset: Option<Ruleset>,
}

/// Repairs that are kept for who asks; of more, the first are.
const REPAIRS: usize = 1024;

/// The rules last applied, and how the kernel lists them.
struct Rules {
    batch: String,
    listing: Option<String>,
    /// The kernel's count of changes when they were listed, if it counts. As long as that stays nothing has drifted, and
    /// `nft` need not be run to see it.
    generation: Option<u32>,
}

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
            rules: None,
            shortcut: Shortcut::default(),
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
        let ruleset = self.ruleset.as_ref();
        let links = pass.links(&state.segments).await;
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
                Self::expect_one_more(&mut self.rules, ruleset);
            }
        }
        let passed = pass.finish();
        self.fitted = rows::fitted(&state.segments);
        self.flows(state).await;
        self.keep(passed)
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

    /// Whether the rules are as they were left; `None` if they were never applied, or cannot be listed.
    pub async fn table_stands(&self) -> Option<bool> {
        let rules = self.rules.as_ref()?;
        let found = nft::list(&firewall::TABLES).await.ok()?;
        Some(found == rules.listing)
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
        self.keep(passed)
    }

    /// Keeps the rules from being listed because the other table was replaced, if nothing else has changed.
    fn expect_one_more(rules: &mut Option<Rules>, ruleset: Option<&Ruleset>) {
        let now = generation(ruleset);
        if let Some(rules) = rules
            && let Some(before) = rules.generation
            && now == Some(before.wrapping_add(1))
        {
            rules.generation = now;
        }
    }

    /// Replaces the tables unless they are as they were left.
    async fn rules(
        rules: &mut Option<Rules>,
        ruleset: Option<&Ruleset>,
        pass: &mut Pass<'_>,
        state: &HostState,
    ) {
        let batch = firewall::render(state);
        let mut counted = generation(ruleset);
        // As long as nobody changes a rule they are as they were listed last: nft takes longer to start than all else here.
        let known = rules
            .as_ref()
            .filter(|rules| rules.generation.is_some() && rules.generation == counted);
        if known.is_some_and(|rules| rules.batch == batch) {
            return pass.stands(batch.is_empty(), Object::Table);
        }
        let before = match known {
            Some(rules) => rules.listing.clone(),
            None => match nft::list(&firewall::TABLES).await {
                Ok(before) => before,
                Err(error) => return pass.fail(error.into()),
            },
        };
        let as_left = rules
            .as_ref()
            .is_some_and(|rules| rules.batch == batch && rules.listing == before);
        if as_left || batch.is_empty() && before.is_none() {
            pass.stands(batch.is_empty(), Object::Table);
            *rules = Some(Rules {
                batch,
                listing: before,
                generation: counted,
            });
            return;
        }
        let drifted = rules.as_ref().is_some_and(|rules| rules.listing != before);
        let listing = match replace(&firewall::TABLES, &batch).await {
            Ok(()) => {
                counted = generation(ruleset);
                nft::list(&firewall::TABLES).await
            }
            Err(error) => Err(error),
        };
        match listing {
            Err(error) => {
                *rules = None;
                pass.fail(error.into());
            }
            Ok(after) => {
                if after != before {
                    pass.count_table(&after, drifted);
                }
                pass.stands(after.is_none(), Object::Table);
                *rules = Some(Rules {
                    batch,
                    listing: after,
                    generation: counted,
                });
            }
        }
    }
}

/// The kernel's count of changes to rules, if it counts.
fn generation(ruleset: Option<&Ruleset>) -> Option<u32> {
    ruleset?.generation().ok()
}

/// Applies a batch that replaces `tables`, or removes them if it is empty.
async fn replace(tables: &[&str], batch: &str) -> Result<(), NftError> {
    if batch.is_empty() {
        nft::apply(&firewall::removal(tables)).await
    } else {
        nft::apply(batch).await
    }
}
