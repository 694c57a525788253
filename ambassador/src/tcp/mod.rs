//! The TCP side: accept, connect, relay.

mod bell;
mod connect;
mod direction;
mod engine;
mod listener;
mod pipe;
mod reactor;
mod relay;

pub(crate) use connect::{failed, is_shortage, resolved};
pub(crate) use direction::{Broken, Side};
pub(crate) use engine::{Closed, Engine};
pub(crate) use pipe::PipePool;
pub(crate) use reactor::{FAILED, READABLE, Socket, WRITABLE};
pub(crate) use relay::{End, Peer, delivered};
