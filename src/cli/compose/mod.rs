//! Compose files, and `compose`: what one describes, on this daemon's host.

mod decode;
mod deploy;
mod file;
mod interpolate;
mod merge;
mod parts;
mod service;
mod show;
mod yaml;

pub(super) use deploy::{Deploy, Resources, UpdateConfig};
pub(super) use file::{Project, Stored, StoredMap, load, merged};
pub(super) use parts::{FileRef, Port, Volume};
pub(super) use service::Service;
