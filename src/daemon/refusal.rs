//! Errors that are the caller's to mend, with the kind that decides the HTTP status.

/// What is wrong with a request, by what its sender can do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalKind {
    /// Malformed or contradictory: 400.
    Invalid,
    /// Not allowed in any state: 403.
    Forbidden,
    /// No such container, image, network or exec: 404.
    NotFound,
    /// Not possible in the present state, as a name in use: 409.
    Conflict,
    /// Known in Docker, not built here: 501.
    Unsupported,
}

/// A request that the daemon declines, in words for the person who made it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Forbidden, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unsupported, message)
    }

    /// Whether `error` says that something is not possible in the present state.
    pub(crate) fn is_conflict(error: &anyhow::Error) -> bool {
        let refusal = error.downcast_ref::<Self>();
        refusal.is_some_and(|refusal| refusal.kind == RefusalKind::Conflict)
    }

    fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
