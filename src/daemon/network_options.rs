//! What `network create --opt` asks for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::refusal::Refusal;

/// The name of the bridge: one that is there, or that is to be made.
pub(super) const BRIDGE: &str = "com.docker.network.bridge.name";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Docker's long name, and the short one of its notes.
const MTU: [&str; 2] = ["com.docker.network.driver.mtu", "mtu"];
/// The least MTU of IPv4 (RFC 791).
const LEAST_MTU: u16 = 68;

/// The options of a network, as far as there are any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NetworkOptions {
    /// Containers reach each other without a link.
    pub(super) icc: bool,
    /// Outside its containers are seen as the host.
    pub(super) masquerade: bool,
    pub(super) mtu: Option<u16>,
    /// The address of the host at which its containers' ports are published that name none.
    pub(super) host_binding: Option<Ipv4Addr>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            icc: true,
            masquerade: true,
            mtu: None,
            host_binding: None,
        }
    }
}

impl NetworkOptions {
    /// Whether an option is one of those here; others may be known elsewhere.
    pub(crate) fn knows(option: &str) -> bool {
        [BRIDGE, HOST_BINDING, ICC, MASQUERADE].contains(&option) || MTU.contains(&option)
    }

    /// # Errors
    ///
    /// A [`Refusal`] of a value that makes no sense.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for (option, value) in options {
            match option.as_str() {
                ICC => found.icc = boolean(option, value)?,
                MASQUERADE => found.masquerade = boolean(option, value)?,
                HOST_BINDING => found.host_binding = Some(host_address(option, value)?),
                _ if MTU.contains(&option.as_str()) => found.mtu = Some(mtu(option, value)?),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Those of a network that was made, for which they were looked at.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Self {
        Self::parse(options).unwrap_or_default()
    }
}

/// As Go's `strconv.ParseBool` has it.
fn boolean(option: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Refusal::invalid(format!(
            "invalid value {value:?} of --opt {option}: expected true or false"
        ))),
    }
}

fn host_address(option: &str, value: &str) -> Result<Ipv4Addr, Refusal> {
    value.parse().map_err(|_| {
        Refusal::invalid(format!(
            "invalid value {value:?} of --opt {option}: expected an IPv4 address of the host"
        ))
    })
}

fn mtu(option: &str, value: &str) -> Result<u16, Refusal> {
    let mtu = value.parse().ok().filter(|mtu| *mtu >= LEAST_MTU);
    mtu.ok_or_else(|| {
        Refusal::invalid(format!(
            "invalid value {value:?} of --opt {option}: expected {LEAST_MTU} to 65535 bytes"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(option: &str, value: &str) -> Result<NetworkOptions, Refusal> {
        NetworkOptions::parse(&BTreeMap::from([(option.to_owned(), value.to_owned())]))
    }

    #[test]
    fn values_are_as_docker_takes_them() {
        let usual = NetworkOptions::default();
        assert_eq!(parse("other", "x").ok(), Some(usual));
        let quiet = NetworkOptions {
            icc: false,
            ..usual
        };
        assert_eq!(parse(ICC, "F").ok(), Some(quiet));
        for name in MTU {
            let small = NetworkOptions {
                mtu: Some(1400),
                ..usual
            };
            assert_eq!(parse(name, "1400").ok(), Some(small));
        }
        for (option, value) in [
            (ICC, "perhaps"),
            (MASQUERADE, ""),
            (HOST_BINDING, "localhost"),
            (MTU[0], "67"),
            (MTU[0], "65536"),
            (MTU[1], "large"),
        ] {
            let refusal = parse(option, value).expect_err("refused");
            assert!(refusal.message.contains(option), "{}", refusal.message);
        }
    }
}
