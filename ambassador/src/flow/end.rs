//! How flows end: why, and who brought it about.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum EndCause {
    /// Both peers have sent all they had.
    Finished,
    Reset,
    /// Nobody answered in time, neither to a connect nor to data.
    Timeout,
    Refused,
    /// No route leads there.
    Unreachable,
    /// A peer may not speak here, by what it says or shows of itself.
    Forbidden,
    /// The flow was ended on demand, or the ambassador is gone.
    Aborted,
    /// The endpoint was ejected.
    Ejected,
    /// The endpoint is no longer among those of the forward.
    Removed,
    /// No datagram came for too long.
    Idle,
    /// Another session needed the place.
    Evicted,
    /// Discovery has found no endpoint.
    Unknown,
    /// Anything else; the error tells.
    Failed,
}

impl EndCause {
    const ALL: [Self; 13] = [
        Self::Finished,
        Self::Reset,
        Self::Timeout,
        Self::Refused,
        Self::Unreachable,
        Self::Forbidden,
        Self::Aborted,
        Self::Ejected,
        Self::Removed,
        Self::Idle,
        Self::Evicted,
        Self::Unknown,
        Self::Failed,
    ];

    /// Its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Aborted => "aborted",
            Self::Ejected => "ejected",
            Self::Removed => "removed",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

impl From<&io::Error> for EndCause {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Failed,
        }
    }
}

/// Who ended a flow. Of one that finished: who was the first to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum EndSide {
    Client,
    Upstream,
    Ambassador,
}

impl EndSide {
    const ALL: [Self; 3] = [Self::Client, Self::Upstream, Self::Ambassador];

    /// Its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Ambassador => "ambassador",
        }
    }
}

/// The end of a flow.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cause: EndCause,
    pub(crate) side: EndSide,
    pub(crate) error: Option<io::Error>,
}

impl Ended {
    /// What becomes of a flow that is dropped without a word.
    pub(crate) fn aborted() -> Self {
        Self {
            cause: EndCause::Aborted,
            side: EndSide::Ambassador,
            error: None,
        }
    }
}

/// How many flows ended in each way.
#[derive(Debug, Default)]
pub(crate) struct Ends([[AtomicU64; EndSide::ALL.len()]; EndCause::ALL.len()]);

impl Ends {
    pub(crate) fn count(&self, cause: EndCause, side: EndSide) {
        self.0[cause as usize][side as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that happened.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (EndCause, EndSide, u64)> {
        let each = EndCause::ALL
            .into_iter()
            .flat_map(|cause| EndSide::ALL.map(|side| (cause, side)));
        each.filter_map(|(cause, side)| {
            let count = self.0[cause as usize][side as usize].load(Ordering::Relaxed);
            (count > 0).then_some((cause, side, count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_as_what_it_is() {
        let ends = Ends::default();
        for (index, cause) in EndCause::ALL.into_iter().enumerate() {
            assert_eq!(index, cause as usize, "{}", cause.name());
            for side in EndSide::ALL {
                ends.count(cause, side);
                ends.count(cause, side);
                let last = ends.counts().last();
                assert_eq!(last, Some((cause, side, 2)));
            }
        }
        assert_eq!(
            ends.counts().count(),
            EndCause::ALL.len() * EndSide::ALL.len()
        );
    }

    #[test]
    fn errors_tell_the_cause() {
        use nix::libc;
        for (errno, cause) in [
            (libc::ECONNRESET, EndCause::Reset),
            (libc::EPIPE, EndCause::Reset),
            (libc::ETIMEDOUT, EndCause::Timeout),
            (libc::ECONNREFUSED, EndCause::Refused),
            (libc::EHOSTUNREACH, EndCause::Unreachable),
            (libc::ENETUNREACH, EndCause::Unreachable),
            (libc::EPERM, EndCause::Forbidden),
            (libc::EMFILE, EndCause::Failed),
        ] {
            assert_eq!(EndCause::from(&io::Error::from_raw_os_error(errno)), cause);
        }
    }
}
