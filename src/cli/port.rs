//! `port`, and how `ps` shows ports.

use std::collections::BTreeMap;

use anyhow::bail;
use bollard_stubs::models::{ContainerInspectResponse, Port};
use clap::Args;

use super::output::line;
use super::parse::Expose;
use crate::client::Client;

/// Flags of `port`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio port web
  nuncio port web 80/tcp")]
pub(super) struct PortArgs {
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Show only where this one is published
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<Expose>,
}

/// Prints where the ports of a container are published.
pub(super) async fn run(args: PortArgs, client: &Client) -> anyhow::Result<u8> {
    let path = format!("/containers/{}/json", args.container);
    let container: ContainerInspectResponse = client.get(&path).send().await?.json().await?;
    let ports = container
        .network_settings
        .and_then(|settings| settings.ports)
        .unwrap_or_default();
    let sorted: BTreeMap<_, _> = ports
        .into_iter()
        .map(|(port, bindings)| (order(&port), (port, bindings)))
        .collect();
    let wanted: Option<Vec<String>> = args.port.map(|port| port.ports().collect());
    let mut found = false;
    for (port, bindings) in sorted.into_values() {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.contains(&port))
        {
            continue;
        }
        for binding in bindings.unwrap_or_default() {
            found = true;
            let (ip, host) = (
                binding.host_ip.unwrap_or_default(),
                binding.host_port.unwrap_or_default(),
            );
            let place = format!("{}:{host}", in_brackets(&ip));
            line(&if wanted.is_some() {
                place
            } else {
                format!("{port} -> {place}")
            })?;
        }
    }
    match wanted {
        Some(wanted) if !found => {
            bail!(
                "no public port '{}' published for {}",
                wanted.join(", "),
                args.container
            )
        }
        _ => Ok(0),
    }
}

/// By number, then by protocol.
fn order(port: &str) -> (u16, String) {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    (number.parse().unwrap_or(0), protocol.to_owned())
}

fn in_brackets(ip: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    }
}

/// Ports as `ps` shows them; those that follow each other are one range.
pub(super) fn displayed(ports: &[Port]) -> String {
    let mut keys: Vec<_> = ports
        .iter()
        .map(|port| {
            let protocol = port
                .typ
                .map_or_else(|| "tcp".to_owned(), |protocol| protocol.to_string());
            let public = port.public_port.filter(|port| *port > 0);
            (
                port.ip.clone().unwrap_or_default(),
                protocol,
                port.private_port,
                public,
            )
        })
        .collect();
    keys.sort();
    keys.dedup();
    let mut ranges: Vec<Range> = Vec::new();
    for (ip, protocol, private, public) in keys {
        match ranges.last_mut() {
            Some(range) if range.takes(&ip, &protocol, private, public) => range.more += 1,
            _ => ranges.push(Range {
                ip,
                protocol,
                private,
                public,
                more: 0,
            }),
        }
    }
    ranges
        .iter()
        .map(Range::text)
        .collect::<Vec<_>>()
        .join(", ")
}

struct Range {
    ip: String,
    protocol: String,
    private: u16,
    public: Option<u16>,
    /// How many ports follow the first.
    more: u16,
}

impl Range {
    fn takes(&self, ip: &str, protocol: &str, private: u16, public: Option<u16>) -> bool {
        let next = |port: u16| port.checked_add(self.more)?.checked_add(1);
        self.ip == ip
            && self.protocol == protocol
            && next(self.private) == Some(private)
            && self.public.is_some() == public.is_some()
            && self.public.and_then(next) == public
    }

    fn text(&self) -> String {
        let range = |first: u16| match self.more {
            0 => first.to_string(),
            more => format!("{first}-{}", first + more),
        };
        let private = format!("{}/{}", range(self.private), self.protocol);
        match self.public {
            Some(public) => format!("{}:{}->{private}", in_brackets(&self.ip), range(public)),
            None => private,
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models::PortTypeEnum;

    use super::*;

    fn port(ip: &str, private: u16, public: Option<u16>) -> Port {
        let ip = (!ip.is_empty()).then(|| ip.to_owned());
        Port {
            ip,
            private_port: private,
            public_port: public,
            typ: Some(PortTypeEnum::TCP),
        }
    }

    #[test]
    fn neighbours_become_ranges() {
        let ports = [
            port("", 6379, None),
            port("0.0.0.0", 80, Some(8080)),
            port("0.0.0.0", 81, Some(8081)),
            port("::", 80, Some(8080)),
            port("", 6380, None),
        ];
        assert_eq!(
            displayed(&ports),
            "6379-6380/tcp, 0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp"
        );
    }
}
