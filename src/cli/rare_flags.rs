//! Flags of `run` and `create` that few use: bounds on disks, and what is there for old scripts' or Windows' sake.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::bail;
use bollard_stubs::models::{DeviceRequest, HostConfig, HostConfigIsolationEnum};
use clap::Args;

use super::parse::{DiskBytes, DiskRequests, DiskWeight, KeyValue, Size};

/// How much a container may take of disks.
#[derive(Args, Debug)]
pub(super) struct DiskFlags {
    /// Weight against other containers where a disk is busy, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(super) blkio_weight: Option<u16>,

    /// The same for one disk
    #[arg(long, value_name = "PATH:WEIGHT")]
    blkio_weight_device: Vec<DiskWeight>,

    /// Most bytes a second read from a disk, as /dev/sda:1mb
    #[arg(long, value_name = "PATH:BYTES")]
    device_read_bps: Vec<DiskBytes>,

    /// Most bytes a second written to a disk
    #[arg(long, value_name = "PATH:BYTES")]
    device_write_bps: Vec<DiskBytes>,

    /// Most requests a second that read from a disk
    #[arg(long, value_name = "PATH:NUMBER")]
    device_read_iops: Vec<DiskRequests>,

    /// Most requests a second that write to a disk
    #[arg(long, value_name = "PATH:NUMBER")]
    device_write_iops: Vec<DiskRequests>,

    /// Microseconds in which --cpu-rt-runtime is counted
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,

    /// Microseconds of real time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,

    /// Below which cgroup the container has its own
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
}

impl DiskFlags {
    /// Writes these wishes into a body.
    pub(super) fn ask(&self, host: &mut HostConfig) {
        host.blkio_weight = self.blkio_weight;
        host.blkio_weight_device = list(&self.blkio_weight_device, |disk| disk.0.clone());
        host.blkio_device_read_bps = list(&self.device_read_bps, |disk| disk.0.clone());
        host.blkio_device_write_bps = list(&self.device_write_bps, |disk| disk.0.clone());
        host.blkio_device_read_iops = list(&self.device_read_iops, |disk| disk.0.clone());
        host.blkio_device_write_iops = list(&self.device_write_iops, |disk| disk.0.clone());
        host.cpu_realtime_period = self.cpu_rt_period;
        host.cpu_realtime_runtime = self.cpu_rt_runtime;
        host.cgroup_parent.clone_from(&self.cgroup_parent);
    }
}

fn list<T, U>(flags: &[T], body: impl Fn(&T) -> U) -> Option<Vec<U>> {
    (!flags.is_empty()).then(|| flags.iter().map(body).collect())
}

/// What Docker's client takes and a daemon on Linux mostly does not.
#[derive(Args, Debug)]
pub(super) struct RareFlags {
    /// Metadata for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<KeyValue>,

    /// MAC address in its network
    #[arg(long, value_name = "MAC")]
    pub(super) mac_address: Option<String>,

    /// IPv6 address in its network
    #[arg(long, value_name = "IP")]
    pub(super) ip6: Option<Ipv6Addr>,

    /// Link-local addresses: refused
    #[arg(long, value_name = "IP")]
    pub(super) link_local_ip: Vec<IpAddr>,

    /// OCI runtime; nuncio is the one there is
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,

    /// Isolation; default is the one there is
    #[arg(long, value_name = "NAME")]
    isolation: Option<String>,

    /// Options of the storage driver: refused, it has none
    #[arg(long, value_name = "KEY=VALUE")]
    storage_opt: Vec<KeyValue>,

    /// GPUs: refused, there is no driver for them
    #[arg(long, value_name = "REQUEST")]
    gpus: Option<String>,

    /// Taken for old scripts' sake: the kernel has no such limit any more
    #[arg(long, value_name = "BYTES")]
    kernel_memory: Option<Size>,

    /// Taken for old scripts' sake: nothing is signed
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    disable_content_trust: bool,

    /// Refused: of Windows
    #[arg(long, value_name = "NUMBER")]
    cpu_count: Option<i64>,

    /// Refused: of Windows
    #[arg(long, value_name = "NUMBER")]
    cpu_percent: Option<i64>,

    /// Refused: of Windows
    #[arg(long, value_name = "BYTES")]
    io_maxbandwidth: Option<Size>,

    /// Refused: of Windows
    #[arg(long, value_name = "NUMBER")]
    io_maxiops: Option<u64>,
}

impl RareFlags {
    /// Writes these wishes into a body.
    ///
    /// # Errors
    ///
    /// What only Windows has, and signatures.
    pub(super) fn ask(&self, host: &mut HostConfig) -> anyhow::Result<()> {
        trusts(self.disable_content_trust)?;
        for (asked, flag) in [
            (self.cpu_count.is_some(), "--cpu-count"),
            (self.cpu_percent.is_some(), "--cpu-percent"),
            (self.io_maxbandwidth.is_some(), "--io-maxbandwidth"),
            (self.io_maxiops.is_some(), "--io-maxiops"),
        ] {
            if asked {
                bail!(
                    "\"{flag}\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
                );
            }
        }
        host.annotations = map(&self.annotation);
        host.storage_opt = map(&self.storage_opt);
        host.runtime.clone_from(&self.runtime);
        host.device_requests = self.gpus.as_deref().map(|asked| vec![gpus(asked)]);
        host.isolation = match self.isolation.as_deref() {
            None | Some("" | "default") => None,
            Some("hyperv") => Some(HostConfigIsolationEnum::HYPERV),
            Some("process") => Some(HostConfigIsolationEnum::PROCESS),
            Some(other) => bail!("invalid isolation '{other}' on linux"),
        };
        Ok(())
    }
}

/// Refuses to check signatures, which nothing here does.
///
/// # Errors
///
/// Always when they are wanted.
pub(super) fn trusts(disabled: bool) -> anyhow::Result<()> {
    if !disabled {
        bail!("content trust is not built: leave out --disable-content-trust=false");
    }
    Ok(())
}

fn map(pairs: &[KeyValue]) -> Option<std::collections::HashMap<String, String>> {
    let pair = |pair: &KeyValue| (pair.key.clone(), pair.value.clone());
    (!pairs.is_empty()).then(|| pairs.iter().map(pair).collect())
}

/// `all`, or a number; the daemon has no driver for more.
fn gpus(asked: &str) -> DeviceRequest {
    DeviceRequest {
        driver: Some(String::new()),
        count: Some(asked.parse().unwrap_or(-1)),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}
