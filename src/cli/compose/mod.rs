//! Compose files, and `compose`: what one describes, on this daemon's host.

mod command;
mod container;
mod decode;
mod deploy;
mod down;
mod file;
mod interpolate;
mod logs;
mod merge;
mod parts;
mod ps;
mod service;
mod show;
mod up;
mod yaml;

pub(super) use command::{ComposeArgs, run};
pub(super) use deploy::{Deploy, Resources, UpdateConfig};
pub(super) use file::{Project, Stored, StoredMap, load, merged};
pub(super) use parts::{FileRef, Port, Volume};
pub(super) use service::Service;
