//! What users write as values of flags, parsed once into types that cannot be wrong.

mod device;
mod disk;
mod env;
mod filter;
mod granted;
mod host_entry;
mod link;
mod mount;
mod network;
mod otlp;
mod port;
mod reference;
mod restart;
mod service_port;
mod size;
mod time;
mod ulimit;
mod volume;
mod words;

pub(super) use device::DeviceSpec;
pub(super) use disk::{DiskBytes, DiskRequests, DiskWeight};
pub(super) use env::{EnvVar, read_env_file, read_label_file};
pub(crate) use filter::Filter;
pub(super) use granted::Granted;
pub(super) use host_entry::HostEntry;
pub(super) use link::Link;
pub(super) use mount::MountSpec;
pub(super) use network::NetworkFlag;
pub(crate) use otlp::OtlpEndpoint;
pub(super) use port::{Expose, Publish};
pub(super) use reference::Reference;
pub(super) use restart::Restart;
pub(super) use service_port::ServicePort;
pub(super) use size::{Cpus, Size};
pub(crate) use time::{Moment, Span};
pub(super) use ulimit::Ulimit;
pub(super) use volume::{Tmpfs, VolumeSpec};
pub(super) use words::{Spread, Words};

/// A `KEY=VALUE` whose value may be left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: String,
}

/// Not `KEY=VALUE`.
#[derive(Debug, thiserror::Error)]
#[error("invalid {0:?}: expected KEY=VALUE with a key that is not empty")]
pub(super) struct NoKey(String);

impl std::str::FromStr for KeyValue {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.trim().is_empty() {
            return Err(NoKey(text.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
