//! The TCP side: accept, connect, relay.

mod connect;
mod direction;
mod listener;
mod pipe;
mod relay;

pub(crate) use connect::{is_shortage, resolved};
pub(crate) use listener::serve;
pub(crate) use pipe::PipePool;
