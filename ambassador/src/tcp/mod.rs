//! The TCP side: accept, connect, relay.

mod connect;
mod direction;
mod engine;
mod listener;
mod pipe;
mod reactor;
mod relay;

pub(crate) use connect::{is_shortage, resolved};
pub(crate) use engine::{Closed, Engine};
pub(crate) use pipe::PipePool;
