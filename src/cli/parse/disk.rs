//! `--blkio-weight-device` and `--device-read-bps` with its kin.

use std::str::FromStr;

use bollard_stubs::models::{ResourcesBlkioWeightDevice, ThrottleDevice};

use super::Size;

/// Why the value of one of these flags is none; in Docker's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidDisk {
    #[error("bad format: {0}")]
    Format(String),
    #[error("bad format for device path: {0}")]
    Path(String),
    #[error("invalid weight for device: {0}")]
    Weight(String),
    #[error(
        "invalid rate for device: {0}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
    )]
    Bytes(String),
    #[error(
        "invalid rate for device: {0}. The correct format is <device-path>:<number>. Number must be a positive integer"
    )]
    Requests(String),
}

/// `PATH:VALUE`.
fn split(text: &str) -> Result<(&str, &str), InvalidDisk> {
    let parts = text
        .split_once(':')
        .filter(|(path, value)| !path.is_empty() && !value.contains(':'));
    let (path, value) = parts.ok_or_else(|| InvalidDisk::Format(text.to_owned()))?;
    match path.starts_with("/dev/") {
        true => Ok((path, value)),
        false => Err(InvalidDisk::Path(text.to_owned())),
    }
}

/// `PATH:WEIGHT`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiskWeight(pub(crate) ResourcesBlkioWeightDevice);

impl FromStr for DiskWeight {
    type Err = InvalidDisk;

    fn from_str(text: &str) -> Result<Self, InvalidDisk> {
        let (path, weight) = split(text)?;
        let weight = weight
            .parse()
            .ok()
            .filter(|weight| *weight == 0 || is_weight(*weight))
            .ok_or_else(|| InvalidDisk::Weight(text.to_owned()))?;
        Ok(Self(ResourcesBlkioWeightDevice {
            path: Some(path.to_owned()),
            weight: Some(weight),
        }))
    }
}

fn is_weight(weight: usize) -> bool {
    (10..=1000).contains(&weight)
}

/// `PATH:BYTES`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiskBytes(pub(crate) ThrottleDevice);

impl FromStr for DiskBytes {
    type Err = InvalidDisk;

    fn from_str(text: &str) -> Result<Self, InvalidDisk> {
        let (path, rate) = split(text)?;
        let rate: Size = rate
            .parse()
            .map_err(|_| InvalidDisk::Bytes(text.to_owned()))?;
        Ok(Self(ThrottleDevice {
            path: Some(path.to_owned()),
            rate: Some(rate.bytes()),
        }))
    }
}

/// `PATH:REQUESTS`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiskRequests(pub(crate) ThrottleDevice);

impl FromStr for DiskRequests {
    type Err = InvalidDisk;

    fn from_str(text: &str) -> Result<Self, InvalidDisk> {
        let (path, rate) = split(text)?;
        let rate: u32 = rate
            .parse()
            .map_err(|_| InvalidDisk::Requests(text.to_owned()))?;
        Ok(Self(ThrottleDevice {
            path: Some(path.to_owned()),
            rate: Some(rate.into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_disk_and_what_it_gives() {
        let weight: DiskWeight = "/dev/sda:200".parse().expect("a weight");
        assert_eq!(weight.0.weight, Some(200));
        let bytes: DiskBytes = "/dev/sda:1mb".parse().expect("a rate");
        assert_eq!(bytes.0.rate, Some(1 << 20));
        let requests: DiskRequests = "/dev/sda:50".parse().expect("a rate");
        assert_eq!(requests.0.rate, Some(50));
    }

    #[test]
    fn what_is_wrong_is_told_in_dockers_words() {
        let told = |text: &str| match text.parse::<DiskBytes>() {
            Ok(found) => format!("{found:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(told("/dev/sda"), "bad format: /dev/sda");
        assert_eq!(told("sda:1mb"), "bad format for device path: sda:1mb");
        assert!(told("/dev/sda:x").starts_with("invalid rate for device: /dev/sda:x. The correct"));
        for wrong in ["/dev/sda:5", "/dev/sda:2000", "/dev/sda:-1", "/dev/sda:"] {
            assert!(wrong.parse::<DiskWeight>().is_err(), "{wrong}");
        }
        assert!("/dev/sda:1mb".parse::<DiskRequests>().is_err());
        assert!("/dev/sda:0".parse::<DiskWeight>().is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[/:a-z0-9]{0,16}") {
            let _ = text.parse::<DiskWeight>();
            let _ = text.parse::<DiskBytes>();
            let _ = text.parse::<DiskRequests>();
        }
    }
}
