//! `doctor`: whether this machine has what nuncio needs.

use anyhow::bail;
use clap::Args;

use super::output::{line, write_out};
use super::table::table;

/// Flags of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio doctor && nuncio daemon")]
pub(super) struct DoctorArgs {
    /// Print only what is missing
    #[arg(short, long)]
    quiet: bool,
}

/// A feature of the machine, whichever library needs it.
struct Feature {
    name: &'static str,
    purpose: &'static str,
    /// Why it is missing, and what to do.
    available: Result<(), String>,
    /// Whether nuncio does as well without it, only slower.
    optional: bool,
}

impl Feature {
    fn new(name: &'static str, purpose: &'static str, available: Result<(), String>) -> Self {
        Self {
            name,
            purpose,
            available,
            optional: false,
        }
    }

    fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}

/// Prints each feature, what it is for, and whether it is there; 1 if one is missing that must not
/// be.
pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<u8> {
    require_root("nuncio doctor")?;
    let mut features = features().await;
    let missing = features
        .iter()
        .filter(|feature| feature.available.is_err() && !feature.optional)
        .count();
    features.retain(|feature| !args.quiet || feature.available.is_err());
    let rows: Vec<Vec<String>> = features.into_iter().map(row).collect();
    if !rows.is_empty() {
        write_out(table(&["FEATURE", "STATE", "WHAT IT IS FOR"], &rows).as_bytes())?;
    }
    match missing {
        0 if args.quiet => Ok(0),
        0 => line("this machine has all that nuncio needs").map(|()| 0),
        1 => bail!("1 feature is missing"),
        missing => bail!("{missing} features are missing"),
    }
}

fn row(feature: Feature) -> Vec<String> {
    let (state, purpose) = match feature.available {
        Ok(()) => ("ok", feature.purpose.to_owned()),
        Err(why) if feature.optional => ("absent", format!("{}: {why}", feature.purpose)),
        Err(why) => ("missing", format!("{}: {why}", feature.purpose)),
    };
    vec![feature.name.to_owned(), state.to_owned(), purpose]
}

/// # Errors
///
/// Says that `what` needs root, if this process is not.
pub(super) fn require_root(what: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} must run as root, for it works with namespaces and mounts: try again with sudo")
}

/// What the libraries need, each feature once.
async fn features() -> Vec<Feature> {
    let mut features: Vec<Feature> = nuncio_runtime::probe()
        .into_iter()
        .map(|probe| Feature::new(probe.feature, probe.purpose, probe.available))
        .collect();
    for probe in nuncio_overlay::probe().await {
        let feature = Feature::new(probe.feature, probe.purpose, probe.available);
        match features.iter_mut().find(|known| known.name == feature.name) {
            Some(known) if known.available.is_ok() => *known = feature,
            Some(_) => {}
            None => features.push(feature),
        }
    }
    let direct = Feature::new(
        "eBPF connect-time rewrite",
        "service addresses without a proxy",
        direct(),
    );
    features.push(direct.optional());
    let tun = Feature::new(
        "tun",
        "encrypted networks",
        nuncio_overlay::can_make_tun().map_err(|error| format!("{:#}", anyhow::Error::from(error))),
    );
    features.push(tun.optional());
    let groups = Feature::new(
        "cgroup2 for containers",
        "containers' connections to services without a proxy",
        groups(),
    );
    features.push(groups.optional());
    features
}

fn direct() -> Result<(), String> {
    nuncio_ambassador::direct::probe().map_err(|error| {
        let error = anyhow::Error::from(error);
        format!("{error:#} (without it, the ambassador relays)")
    })
}

/// Whether a container's processes can be told from others as they connect.
fn groups() -> Result<(), String> {
    match nuncio_runtime::cgroup2("") {
        Some(root) if root.join("cgroup.procs").exists() => Ok(()),
        Some(root) => Err(format!("{} is no cgroup2", root.display())),
        None => Err(
            "no cgroup2 is mounted below /sys/fs/cgroup: try `mkdir /sys/fs/cgroup/unified; mount -t cgroup2 \
             none /sys/fs/cgroup/unified` (without it, the ambassador relays)"
                .to_owned(),
        ),
    }
}
