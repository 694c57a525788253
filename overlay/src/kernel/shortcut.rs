//! Keeps the table of shorter ways. Without it all goes the long way, so it is either right or not there.

use crate::{
    Segment,
    firewall::{
        removal,
        shortcut::{TABLE, render},
    },
    netlink::Ruleset,
    nft::{self, NftError},
};

use super::{
    Object,
    kept::{Brought, Kept},
    links::Links,
    pass::Pass,
};

/// How the tables of rules are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Whether the rules of packets and frames are as they were left, if that can be told.
    pub rules: Option<bool>,
    /// The table of shorter ways.
    pub shortcut: ShortcutState,
}

/// How the table of shorter ways is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShortcutState {
    /// There is none, and there need be none.
    Unused,
    /// It is as it was left.
    Stands,
    /// Somebody has removed it.
    Gone,
    /// Somebody has changed it.
    Changed,
    /// That cannot be told.
    Unknown,
}

/// The table as it was left.
pub(super) struct Shortcut {
    kept: Kept,
    /// A batch that the kernel did not take: it may lack what is needed, or a link went meanwhile. It is asked again when
    /// there is something else to ask for.
    refused: Option<String>,
}

impl Shortcut {
    pub(super) fn new() -> Self {
        Self {
            kept: Kept::new(&[TABLE]),
            refused: None,
        }
    }

    /// Brings the table up to the segments, and tells whether it was changed.
    pub(super) async fn reconcile(
        &mut self,
        segments: &[Segment],
        links: &Links,
        ruleset: Option<&Ruleset>,
        pass: &mut Pass<'_>,
    ) -> bool {
        let batch = render(segments, |link| links.contains_key(link));
        if self.refused.as_ref() == Some(&batch) {
            return false;
        }
        self.refused = None;
        let is_left = self.kept.is_left(&batch);
        match self.kept.bring(batch.clone(), ruleset).await {
            Ok(Brought::AsTheyWere) => false,
            Ok(Brought::Replaced { drifted }) => {
                if is_left && drifted {
                    pass.mended(Object::Shortcut);
                }
                true
            }
            Err(error) => {
                tracing::info!(%error, "containers of two hosts reach each other by way of bridge and routes alone");
                self.refused = Some(batch);
                let removed = nft::apply(&removal(&[TABLE])).await;
                removed.unwrap_or_else(|error| pass.fail(error.into()));
                true
            }
        }
    }

    pub(super) async fn state(&self, ruleset: Option<&Ruleset>) -> ShortcutState {
        if !self.kept.is_wanted() {
            return ShortcutState::Unused;
        }
        match self.kept.stand(ruleset).await {
            Some(true) => ShortcutState::Stands,
            None => ShortcutState::Unknown,
            Some(false) => match nft::list(&[TABLE]).await {
                Ok(None) => ShortcutState::Gone,
                Ok(Some(_)) => ShortcutState::Changed,
                Err(_) => ShortcutState::Unknown,
            },
        }
    }

    /// See [`Kept::expect_one_more`].
    pub(super) fn expect_one_more(&mut self, ruleset: Option<&Ruleset>) {
        self.kept.expect_one_more(ruleset);
    }

    /// See [`Kernel::settle`](super::Kernel::settle).
    pub(super) async fn settle(&mut self, ruleset: Option<&Ruleset>) -> Result<(), NftError> {
        self.kept.settle(ruleset).await
    }
}
