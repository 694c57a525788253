//! DNS for containers.

mod document;
mod forward;
mod listener;
mod lookup;
mod reply;
mod server;

pub use self::{
    document::{NamesDocument, Subscriber, Zone},
    server::{ApplyNamesError, ListenError, NameServer},
};
