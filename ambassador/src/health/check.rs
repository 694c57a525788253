//! How endpoints are asked whether they are well, as it is told.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Asks each endpoint of a forward, again and again, whether it is well. One that is not gets no
/// newcomers; its open flows go on. If none is well all are used, since the fault is then likely
/// in the asking.
///
/// Until its first check has ended, an endpoint counts as well; that check decides alone. Checks
/// speak TCP, to the endpoints of a UDP forward too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// The port to ask, if not the endpoint's own.
    pub port: Option<NonZeroU16>,
    /// Between the beginnings of two checks, give or take a tenth, so that they do not come all at
    /// once.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Good checks in a row that bring an endpoint back.
    pub rise: NonZeroU32,
    /// Failed checks in a row that take an endpoint out.
    pub fall: NonZeroU32,
}

/// What a check asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CheckKind {
    /// Whether it takes a connection.
    Tcp,
    /// How it answers `GET`, over HTTP/1.1.
    Http {
        /// What is got: begins with `/`, and has neither spaces nor control characters.
        path: String,
        /// The `Host` header; `None` stands for the endpoint's address.
        host: Option<String>,
        /// The status codes that are well.
        status: RangeInclusive<u16>,
    },
    /// Whether its answer contains certain bytes, within its first 4 KiB.
    SendExpect {
        /// What is sent; may be empty, if it speaks first.
        send: Vec<u8>,
        /// What must come.
        expect: Vec<u8>,
    },
}

impl Check {
    /// A check at the usual pace: every 5 s, at most 2 s long, out after 3 failures, back after 2
    /// successes.
    #[must_use]
    pub fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            port: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: NonZeroU32::MIN.saturating_add(1),
            fall: NonZeroU32::MIN.saturating_add(2),
        }
    }

    /// Asks once, for whoever looks without a forward.
    ///
    /// # Errors
    ///
    /// Why the endpoint is not well, in a line.
    pub async fn ask(&self, endpoint: SocketAddr) -> Result<(), String> {
        let asked = super::probe::probe(self, endpoint).await;
        asked.map_err(|fault| fault.chain())
    }
}
