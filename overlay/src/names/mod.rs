//! DNS for containers.

mod document;
mod forward;
mod listener;
mod lookup;
#[cfg(test)]
mod property;
mod reply;
mod server;
mod srv;
mod upstreams;

pub use self::{
    document::{NamesDocument, Offer, Subscriber, Zone},
    server::{ApplyNamesError, ListenError, NameServer},
};
