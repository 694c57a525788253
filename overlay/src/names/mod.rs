//! DNS for containers.

mod counts;
mod document;
mod forward;
mod listener;
mod lookup;
#[cfg(test)]
mod property;
mod quick;
mod reply;
mod server;
mod srv;
mod upstreams;

pub use self::{
    counts::{AnswerStats, NameStats},
    document::{NamesDocument, Offer, Served, Subscriber, Zone},
    server::{ApplyNamesError, ListenError, NameServer},
};
