//! `ambassador`, and `flows`, `explain` and `tap`, which show what one does.

mod explain;
mod flows;
mod host;
mod tap;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use super::host::Host;
use crate::client::{AmbassadorClient, AmbassadorHost, Client, ClientError};

pub(super) use explain::ExplainArgs;
pub(super) use flows::FlowsArgs;
pub(super) use host::HostAmbassadorArgs;
pub(super) use tap::TapArgs;

pub(super) use explain::run as explain;
pub(super) use flows::run as flows;
pub(super) use host::run as serve;
pub(super) use tap::run as tap;

/// Which ambassador is meant.
#[derive(Args, Clone, Debug)]
struct AdminFlag {
    /// The ambassador to talk to, as its own --admin has it (else the one of the daemon of -H or NUNCIO_HOST)
    #[arg(long, value_name = "unix://PATH|http://ADDR:PORT")]
    admin: Option<AmbassadorHost>,
}

impl AdminFlag {
    /// # Errors
    ///
    /// A `NUNCIO_HOST` that is no address.
    async fn client(self, daemon: Option<Host>) -> anyhow::Result<AmbassadorClient> {
        // Docker's own variable would lead to where no ambassador is
        let variable = |name: &str| match name {
            "NUNCIO_HOST" => std::env::var(name).ok(),
            _ => None,
        };
        let host = match self.admin {
            Some(host) => host,
            None => {
                let daemon = Host::choose(daemon, variable).context("find the ambassador")?;
                of_daemon(&daemon).await?
            }
        };
        Ok(AmbassadorClient::new(host))
    }
}

/// The row of a daemon's own account that says where its sockets are.
const EXEC_ROOT: &str = "Exec Root";

/// Where the ambassador of `daemon` is: as a rule beside it, and else where it says. It may be away.
///
/// # Errors
///
/// One of another host, whose sockets are not here.
async fn of_daemon(daemon: &Host) -> anyhow::Result<AmbassadorHost> {
    let Some(beside) = AmbassadorHost::beside(daemon) else {
        bail!("{daemon}: an ambassador is asked on its own host, or at its --admin");
    };
    if beside.is_there() {
        return Ok(beside);
    }
    let told = async {
        let client = Client::connect(daemon.clone()).await?;
        let info: Info = client.get("/info").send().await?.json().await?;
        Ok::<_, ClientError>(info.driver_status)
    };
    let rows = told.await.unwrap_or_default();
    let exec_root = rows.into_iter().find_map(|row| match &row[..] {
        [name, path] if name == EXEC_ROOT => Some(PathBuf::from(path)),
        _ => None,
    });
    Ok(exec_root.map_or(beside, |root| AmbassadorHost::below(&root)))
}

/// What is of interest in what a daemon says of itself.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(rename = "DriverStatus", default)]
    driver_status: Vec<Vec<String>>,
}

/// A flow as the ambassador writes it.
#[derive(Clone, Debug, Deserialize)]
struct Record {
    time: String,
    id: u64,
    forward: String,
    protocol: String,
    client: String,
    local: Option<String>,
    /// None if it never had one.
    endpoint: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    /// In seconds.
    duration: f64,
    /// In seconds.
    connect_time: Option<f64>,
    datapath: String,
    reason: String,
    /// Why it is relayed, if one might have it go straight; only the list of flows has it.
    #[serde(default)]
    not_direct: Option<String>,
    /// None while it is open, as what follows.
    end: Option<String>,
    side: Option<String>,
    error: Option<String>,
}

/// `seconds` in the unit that leaves the fewest digits, as `1.5ms` or `2m3s`.
fn short(seconds: f64) -> String {
    match seconds {
        ..0.001 => format!("{:.0}us", seconds * 1e6),
        ..1.0 => format!("{:.1}ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1}s"),
        _ => {
            let whole = seconds as u64;
            let (days, hours) = (whole / 86_400, whole / 3600 % 24);
            let (minutes, seconds) = (whole / 60 % 60, whole % 60);
            match (days, hours) {
                (0, 0) => format!("{minutes}m{seconds}s"),
                (0, _) => format!("{hours}h{minutes}m"),
                _ => format!("{days}d{hours}h"),
            }
        }
    }
}

fn bytes(count: u64) -> String {
    super::human::size(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (0.0, "0us"),
            (0.000_25, "250us"),
            (0.0015, "1.5ms"),
            (1.25, "1.2s"),
            (59.9, "59.9s"),
            (123.0, "2m3s"),
            (7260.0, "2h1m"),
            (90_000.0, "1d1h"),
        ] {
            assert_eq!(short(seconds), text);
        }
    }
}
