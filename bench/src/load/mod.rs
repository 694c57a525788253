//! Servers and clients on either side of a forwarder.

pub(crate) mod brief;
pub(crate) mod dns;
pub(crate) mod idle;
pub(crate) mod serve;
pub(crate) mod sink;
pub(crate) mod stall;
pub(crate) mod steady;
pub(crate) mod udp;

use std::time::Duration;

/// What the server listens on. `bench/net.sh` has them too.
pub(crate) const BRIEF: u16 = 5301;
pub(crate) const HOLD: u16 = 5302;
pub(crate) const UDP: u16 = 5303;
pub(crate) const CONTROL: u16 = 5304;

/// The first byte of a flow that is held: from then on the server does not read.
pub(crate) const STOP_READING: u8 = b's';

/// A forwarder that lets a peer wait for longer fails the measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
