//! Every parser of a flag's value, and the files that are tried on it.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use super::*;
use crate::corpus::try_all;

/// Whether `text` is a `T`; what is not is told in words.
fn is<T: FromStr<Err: Display>>(text: &str) -> bool {
    let parsed = text.parse::<T>();
    parsed
        .inspect_err(|error| assert!(!error.to_string().is_empty()))
        .is_ok()
}

fn is_a_value(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let found = [
        is::<DeviceSpec>(&text),
        is::<EnvVar>(&text),
        is::<HostEntry>(&text),
        is::<Link>(&text),
        is::<MountSpec>(&text),
        is::<Tmpfs>(&text),
        is::<VolumeSpec>(&text),
        is::<NetworkFlag>(&text),
        is::<Expose>(&text),
        is::<Publish>(&text),
        is::<Reference>(&text),
        is::<Restart>(&text),
        is::<Cpus>(&text),
        is::<Size>(&text),
        is::<Moment>(&text),
        is::<Span>(&text),
        is::<Ulimit>(&text),
        is::<KeyValue>(&text),
        is::<Granted>(&text),
        is::<ServicePort>(&text),
        is::<Spread>(&text),
        is::<Words>(&text),
        env::parse_env_file(Path::new("f"), &text).is_ok(),
    ];
    if let Ok(publish) = text.parse::<Publish>() {
        assert!(publish.bindings().count() <= 1 << 16);
    }
    if let Ok(port) = text.parse::<ServicePort>() {
        assert!(port.ports().len() <= 1 << 16);
    }
    found.contains(&true)
}

#[test]
fn values_of_flags_are_taken_or_refused() {
    try_all("flags", is_a_value);
}
