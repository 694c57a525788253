//! What of `HostConfig` bounds a container's use of disks.

use bollard_stubs::models::{HostConfig, ResourcesBlkioWeightDevice, ThrottleDevice};

use crate::daemon::config::DiskLimits;
use crate::daemon::refusal::Refusal;

/// Takes the limits out of `host`.
pub(crate) fn parse(host: &mut HostConfig) -> Result<DiskLimits, Refusal> {
    Ok(DiskLimits {
        weight: weight(host.blkio_weight)?.unwrap_or_default(),
        weights: weights(host.blkio_weight_device.take())?,
        read_bps: rates(host.blkio_device_read_bps.take())?,
        write_bps: rates(host.blkio_device_write_bps.take())?,
        read_iops: rates(host.blkio_device_read_iops.take())?,
        write_iops: rates(host.blkio_device_write_iops.take())?,
    })
}

/// A weight, of which 0 is none.
pub(crate) fn weight(asked: Option<u16>) -> Result<Option<u16>, Refusal> {
    match asked {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(_) => Err(Refusal::invalid("Range of blkio weight is from 10 to 1000")),
    }
}

/// Whether a list bounds any disk.
pub(crate) fn by_disk<const N: usize>(lists: [&Option<Vec<ThrottleDevice>>; N]) -> bool {
    lists.into_iter().flatten().any(|list| !list.is_empty())
}

fn weights(asked: Option<Vec<ResourcesBlkioWeightDevice>>) -> Result<Vec<(String, u16)>, Refusal> {
    let mut weights = Vec::new();
    for asked in asked.into_iter().flatten() {
        let disk = disk(asked.path)?;
        let given = u16::try_from(asked.weight.unwrap_or_default()).unwrap_or(u16::MAX);
        weights.extend(weight(Some(given))?.map(|weight| (disk, weight)));
    }
    Ok(weights)
}

/// Rates, of which 0 is none.
fn rates(asked: Option<Vec<ThrottleDevice>>) -> Result<Vec<(String, u64)>, Refusal> {
    let mut rates = Vec::new();
    for throttle in asked.into_iter().flatten() {
        let disk = disk(throttle.path)?;
        let rate = throttle.rate.unwrap_or_default();
        let rate = u64::try_from(rate).map_err(|_| {
            Refusal::invalid(format!(
                "invalid rate for device {disk}: {rate}: expected a positive integer"
            ))
        })?;
        if rate > 0 {
            rates.push((disk, rate));
        }
    }
    Ok(rates)
}

fn disk(path: Option<String>) -> Result<String, Refusal> {
    let path = path.unwrap_or_default();
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path);
    }
    Err(Refusal::invalid(format!(
        "bad format for device path: {path}: expected that of a disk, as /dev/sda"
    )))
}

/// A `HostConfig` that has these limits and nothing else.
pub(crate) fn view(disks: &DiskLimits) -> HostConfig {
    let throttles = |rates: &[(String, u64)]| {
        let view = rates.iter().map(|(disk, rate)| ThrottleDevice {
            path: Some(disk.clone()),
            rate: i64::try_from(*rate).ok(),
        });
        Some(view.collect())
    };
    let weights = disks.weights.iter();
    let weights = weights.map(|(disk, weight)| ResourcesBlkioWeightDevice {
        path: Some(disk.clone()),
        weight: Some(usize::from(*weight)),
    });
    HostConfig {
        blkio_weight: Some(disks.weight),
        blkio_weight_device: Some(weights.collect()),
        blkio_device_read_bps: throttles(&disks.read_bps),
        blkio_device_write_bps: throttles(&disks.write_bps),
        blkio_device_read_iops: throttles(&disks.read_iops),
        blkio_device_write_iops: throttles(&disks.write_iops),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(host: Value) -> Result<DiskLimits, String> {
        let mut host = serde_json::from_value(host).expect("a host configuration");
        parse(&mut host).map_err(|refusal| refusal.message)
    }

    #[test]
    fn limits_survive_the_round_trip() {
        let asked = json!({
            "BlkioWeight": 300, "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 20}],
            "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1_048_576}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/sdb", "Rate": 50}],
        });
        let limits = parsed(asked).expect("valid");
        assert_eq!(limits.weights, [("/dev/sda".to_owned(), 20)]);
        assert_eq!(limits.write_iops, [("/dev/sdb".to_owned(), 50)]);
        assert_eq!(parse(&mut view(&limits)).expect("its own"), limits);
    }

    #[test]
    fn nothing_is_no_limit_and_what_is_wrong_is_told() {
        for nothing in [
            json!({}),
            json!({"BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": null}),
            json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 0}]}),
        ] {
            assert_eq!(parsed(nothing), Ok(DiskLimits::default()));
        }
        for (wrong, words) in [
            (json!({"BlkioWeight": 5}), "from 10 to 1000"),
            (
                json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 2000}]}),
                "from 10 to 1000",
            ),
            (
                json!({"BlkioDeviceReadBps": [{"Path": "sda", "Rate": 1}]}),
                "bad format for device path: sda",
            ),
            (
                json!({"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": -1}]}),
                "invalid rate for device /dev/sda",
            ),
        ] {
            let message = parsed(wrong).expect_err(words);
            assert!(message.contains(words), "{message}");
        }
    }
}
