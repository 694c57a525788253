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

use super::{Object, generation, links::Links, pass::Pass, replace};

/// The table as it was left.
#[derive(Default)]
pub(super) struct Shortcut {
    batch: String,
    listing: Option<String>,
    /// As of the rules of packets: the kernel's count of changes, as long as which stays nothing is different.
    generation: Option<u32>,
    /// The kernel did not take it: it may lack what is needed, or a link went meanwhile. It is asked again when there is
    /// something else to ask for.
    refused: bool,
    /// What a daemon before this one may have left has been looked for.
    looked: bool,
}

impl Shortcut {
    /// Brings the table up to the segments, and tells whether it was changed.
    pub(super) async fn reconcile(
        &mut self,
        segments: &[Segment],
        links: &Links,
        ruleset: Option<&Ruleset>,
        pass: &mut Pass<'_>,
    ) -> bool {
        let batch = render(segments, |link| links.contains_key(link));
        let now = generation(ruleset);
        let same = self.batch == batch;
        let untouched = now.is_some() && self.generation == now;
        let absent = self.looked && self.listing.is_none() && batch.is_empty();
        if same && (self.refused || untouched || absent) {
            return false;
        }
        match self.bring(batch, same, untouched, pass).await {
            Ok(changed) => {
                self.generation = generation(ruleset);
                changed
            }
            Err(error) => {
                tracing::info!(%error, "containers of two hosts reach each other by way of bridge and routes alone");
                self.refused = true;
                self.listing = None;
                let removed = nft::apply(&removal(&[TABLE])).await;
                removed.unwrap_or_else(|error| pass.fail(error.into()));
                true
            }
        }
    }

    async fn bring(
        &mut self,
        batch: String,
        same: bool,
        untouched: bool,
        pass: &mut Pass<'_>,
    ) -> Result<bool, NftError> {
        let before = if untouched {
            self.listing.clone()
        } else {
            nft::list(&[TABLE]).await?
        };
        self.looked = true;
        let stands = same && before == self.listing || batch.is_empty() && before.is_none();
        let lost = same && before.is_none() && self.listing.is_some();
        self.batch = batch;
        if stands {
            return Ok(false);
        }
        replace(&[TABLE], &self.batch).await?;
        self.listing = nft::list(&[TABLE]).await?;
        self.refused = false;
        if lost {
            pass.mended(Object::Shortcut);
        }
        Ok(true)
    }
}
