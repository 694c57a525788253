//! What is answered: places on the way, and which of them it breaks at.

use nuncio_overlay::{Finding, Verdict};
use serde::{Deserialize, Serialize};

/// Whether a place on the way is as it ought to be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Broken,
    Unknown,
}

/// A place on the way, as it is told to clients and other hosts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Hop {
    /// Name of the host that it is on.
    pub(crate) host: String,
    /// The container that it belongs to, if to one.
    pub(crate) end: String,
    pub(crate) hop: String,
    pub(crate) status: Status,
    pub(crate) detail: String,
    /// A command that would mend it.
    #[serde(default)]
    pub(crate) mend: Option<String>,
    /// 0 for a cause; of what is broken elsewhere too this is but a consequence, the more so the higher it is.
    #[serde(default)]
    pub(crate) symptom: u8,
}

impl Hop {
    pub(super) fn new(
        host: &str,
        end: &str,
        hop: &str,
        status: Status,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            host: host.to_owned(),
            end: end.to_owned(),
            hop: hop.to_owned(),
            status,
            detail: detail.into(),
            mend: None,
            symptom: 0,
        }
    }

    pub(super) fn mend(self, command: impl Into<String>) -> Self {
        Self {
            mend: Some(command.into()),
            ..self
        }
    }

    pub(super) fn symptom(self, symptom: u8) -> Self {
        Self { symptom, ..self }
    }

    pub(super) fn found(host: &str, end: &str, finding: Finding) -> Self {
        let status = match finding.verdict {
            Verdict::Fine => Status::Ok,
            Verdict::Broken => Status::Broken,
            Verdict::Unclear => Status::Unknown,
        };
        let hop = Self::new(host, end, finding.hop.word(), status, finding.detail);
        Self {
            mend: finding.mend,
            ..hop
        }
    }
}

/// The way from one to the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Why {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) hops: Vec<Hop>,
    /// Which of them it breaks at.
    pub(crate) culprit: Option<usize>,
}

impl Why {
    pub(super) fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            hops: Vec::new(),
            culprit: None,
        }
    }

    pub(super) fn push(&mut self, hop: Hop) {
        self.extend([hop]);
    }

    pub(super) fn extend(&mut self, hops: impl IntoIterator<Item = Hop>) {
        self.hops.extend(hops);
        let broken = self.hops.iter().enumerate();
        let broken = broken.filter(|(_, hop)| hop.status == Status::Broken);
        self.culprit = broken
            .min_by_key(|(at, hop)| (hop.symptom, *at))
            .map(|(at, _)| at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(hops: &[(&str, Status, u8)]) -> Option<String> {
        let mut why = Why::new("a", "b");
        for (hop, status, symptom) in hops {
            why.push(Hop::new("host", "a", hop, *status, "").symptom(*symptom));
        }
        why.culprit.map(|at| why.hops[at].hop.clone())
    }

    #[test]
    fn the_culprit_is_the_first_cause_and_a_symptom_only_where_there_is_none() {
        use Status::{Broken, Ok, Unknown};
        assert_eq!(why(&[("link", Ok, 0), ("rules", Unknown, 0)]), None);
        let both = [
            ("path", Broken, 1),
            ("peer", Broken, 2),
            ("vxlan", Broken, 0),
            ("bridge", Broken, 0),
        ];
        assert_eq!(why(&both).as_deref(), Some("vxlan"));
        let symptoms = [
            ("name", Broken, 4),
            ("peer", Broken, 2),
            ("path", Broken, 1),
        ];
        assert_eq!(why(&symptoms).as_deref(), Some("path"));
        assert_eq!(why(&symptoms[..2]).as_deref(), Some("peer"));
    }
}
