//! The TCP side: accept, connect, relay.

mod connect;
mod direction;
mod listener;
mod pipe;
mod relay;

pub(crate) use connect::resolved;
pub(crate) use listener::serve;
pub(crate) use pipe::PipePool;
