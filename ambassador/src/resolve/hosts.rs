//! The format of hosts(5).

use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses by lower-case name.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads what can be read; like libc, passes over lines that make no sense.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else {
                continue;
            };
            for name in words {
                let addresses = hosts.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    pub(super) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.0.get(&name).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let hosts = Hosts::parse(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n\
             172.17.0.2 Redis 0123456789ab redis-server # linked\n\
             # 10.0.0.1 gone\nnonsense redis\n",
        );
        let redis: &[IpAddr] = &[[172, 17, 0, 2].into()];
        for name in ["redis", "REDIS", "redis.", "0123456789ab", "redis-server"] {
            assert_eq!(hosts.addresses(name), Some(redis), "{name}");
        }
        assert_eq!(hosts.addresses("localhost").map(<[_]>::len), Some(2));
        assert_eq!(hosts.addresses("gone"), None);
    }
}
