//! Whether a port is open: exposed, and listened on.

use std::net::IpAddr;
use std::path::Path;

use nuncio_overlay::{Protocol, listeners};

use super::{Daemon, Hop, Status};
use crate::daemon::record::Record;

impl Daemon {
    /// The default network lets other hosts reach only what a container exposes.
    pub(super) fn exposed(&self, record: &Record, (protocol, number): (Protocol, u16)) -> Hop {
        let hop = |status, detail: String| {
            Hop::new(&self.node.name, &record.name, "exposed", status, detail)
        };
        let is = |port: &crate::daemon::config::Port| {
            (port.protocol.to_string(), port.number) == (protocol.to_string(), number)
        };
        if record.config.exposed.iter().any(is) {
            return hop(Status::Ok, format!("exposes {number}/{protocol}"));
        }
        let mend = format!("start {} with --expose {number}/{protocol}", record.name);
        hop(
            Status::Broken,
            format!("{} does not expose {number}/{protocol}", record.name),
        )
        .mend(mend)
    }

    pub(super) async fn listener(
        &self,
        record: &Record,
        address: IpAddr,
        (protocol, number): (Protocol, u16),
        netns: &Path,
    ) -> Hop {
        let hop = |status, detail: String| {
            Hop::new(&self.node.name, &record.name, "listener", status, detail)
        };
        let found = match listeners(netns).await {
            Ok(found) => found,
            Err(error) => {
                return hop(
                    Status::Unknown,
                    format!("who listens cannot be told: {error}"),
                );
            }
        };
        let of_port = found
            .iter()
            .filter(|one| one.protocol == protocol && one.address.port() == number);
        let of_port: Vec<_> = of_port.collect();
        let name = &record.name;
        if let Some(listener) = of_port.iter().find(|one| one.takes(address)) {
            return hop(
                Status::Ok,
                format!("something listens on {}/{protocol}", listener.address),
            );
        }
        match of_port.first() {
            Some(other) => hop(
                Status::Broken,
                format!("what listens there does so on {} only", other.address.ip()),
            )
            .mend(format!(
                "have it listen on {} or {address}",
                if address.is_ipv6() { "::" } else { "0.0.0.0" }
            )),
            None => hop(
                Status::Broken,
                format!("nobody in {name} listens on {number}/{protocol}"),
            )
            .mend(format!("nuncio logs {name}; nuncio top {name}")),
        }
    }
}
