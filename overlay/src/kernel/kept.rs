//! Tables of rules that are kept as they were left, with as few runs of `nft` as will do: it takes longer to start than
//! all else of a reconciliation.

use crate::{
    firewall::removal,
    netlink::Ruleset,
    nft::{self, NftError},
};

/// Tables that are replaced together, in one transaction.
pub(super) struct Kept {
    tables: &'static [&'static str],
    left: Option<Left>,
}

/// How the tables were left.
struct Left {
    batch: String,
    listing: Listing,
    /// The kernel's count of changes then, if it counts. As long as that stays nothing has drifted.
    generation: Option<u32>,
}

/// How the kernel lists the tables.
#[derive(Clone, PartialEq, Eq)]
enum Listing {
    /// It has not been asked since they were replaced.
    Unasked,
    /// `None` if there are none.
    Known(Option<String>),
}

/// What it took to bring the tables to what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Brought {
    /// Nothing.
    AsTheyWere,
    /// They were replaced.
    Replaced {
        /// They were not as they had been left.
        drifted: bool,
    },
}

impl Kept {
    pub(super) fn new(tables: &'static [&'static str]) -> Self {
        Self { tables, left: None }
    }

    /// Whether there ought to be tables.
    pub(super) fn is_wanted(&self) -> bool {
        self.left
            .as_ref()
            .is_some_and(|left| !left.batch.is_empty())
    }

    /// Whether the last batch that was taken is `batch`.
    pub(super) fn is_left(&self, batch: &str) -> bool {
        self.left.as_ref().is_some_and(|left| left.batch == batch)
    }

    /// Replaces the tables by what `batch` makes, or removes them if it is empty, unless they are so.
    ///
    /// After an error nothing is known of them.
    pub(super) async fn bring(
        &mut self,
        batch: String,
        ruleset: Option<&Ruleset>,
    ) -> Result<Brought, NftError> {
        let left = self.left.take();
        let now = generation(ruleset);
        match left {
            Some(left) if left.batch == batch && (left.is_untouched(now) || left.is_absent()) => {
                self.left = Some(left);
                Ok(Brought::AsTheyWere)
            }
            Some(left) if left.is_untouched(now) => {
                replace(self.tables, &batch).await?;
                self.left = Some(Left {
                    batch,
                    listing: Listing::Unasked,
                    generation: generation(ruleset),
                });
                Ok(Brought::Replaced { drifted: false })
            }
            left => self.compare(left, batch, now, ruleset).await,
        }
    }

    /// As [`Self::bring`], where somebody may have changed the tables.
    async fn compare(
        &mut self,
        left: Option<Left>,
        batch: String,
        now: Option<u32>,
        ruleset: Option<&Ruleset>,
    ) -> Result<Brought, NftError> {
        let before = Listing::Known(nft::list(self.tables).await?);
        let is_same = left.as_ref().is_some_and(|left| left.batch == batch);
        let stands = is_same && left.as_ref().is_some_and(|left| left.listing == before)
            || batch.is_empty() && before == Listing::Known(None);
        let (listing, generation, brought) = if stands {
            (before, now, Brought::AsTheyWere)
        } else {
            replace(self.tables, &batch).await?;
            let counted = generation(ruleset);
            let after = Listing::Known(nft::list(self.tables).await?);
            let drifted = match left.map(|left| left.listing) {
                Some(Listing::Unasked) => is_same && after != before,
                Some(listing) => listing != before,
                None => false,
            };
            let brought = match after == before {
                true => Brought::AsTheyWere,
                false => Brought::Replaced { drifted },
            };
            (after, counted, brought)
        };
        self.left = Some(Left {
            batch,
            listing,
            generation,
        });
        Ok(brought)
    }

    /// Asks how the kernel lists what it was given, if that is not known: for a moment when nobody waits.
    pub(super) async fn settle(&mut self, ruleset: Option<&Ruleset>) -> Result<(), NftError> {
        let Some(left) = &mut self.left else {
            return Ok(());
        };
        if left.listing == Listing::Unasked && left.is_untouched(generation(ruleset)) {
            let listing = nft::list(self.tables).await?;
            if left.is_untouched(generation(ruleset)) {
                left.listing = Listing::Known(listing);
            }
        }
        Ok(())
    }

    /// Whether the tables are as they were left; `None` if that cannot be told.
    pub(super) async fn stand(&self, ruleset: Option<&Ruleset>) -> Option<bool> {
        let left = self.left.as_ref()?;
        if left.is_untouched(generation(ruleset)) {
            return Some(true);
        }
        let Listing::Known(listing) = &left.listing else {
            return None;
        };
        Some(*listing == nft::list(self.tables).await.ok()?)
    }

    /// Takes one change that was made elsewhere for ours, if there has been no other.
    pub(super) fn expect_one_more(&mut self, ruleset: Option<&Ruleset>) {
        let now = generation(ruleset);
        if let Some(left) = &mut self.left
            && let Some(before) = left.generation
            && now == Some(before.wrapping_add(1))
        {
            left.generation = now;
        }
    }
}

impl Left {
    /// Whether nobody has changed a rule since, as the kernel's count is `now`; without a count it cannot be told.
    fn is_untouched(&self, now: Option<u32>) -> bool {
        now.is_some() && self.generation == now
    }

    fn is_absent(&self) -> bool {
        self.batch.is_empty() && self.listing == Listing::Known(None)
    }
}

/// The kernel's count of changes to rules, if it counts.
fn generation(ruleset: Option<&Ruleset>) -> Option<u32> {
    ruleset?.generation().ok()
}

async fn replace(tables: &[&str], batch: &str) -> Result<(), NftError> {
    if batch.is_empty() {
        nft::apply(&removal(tables)).await
    } else {
        nft::apply(batch).await
    }
}
