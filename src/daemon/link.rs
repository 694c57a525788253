//! What a container learns of those it is linked to: environment and hosts entries, by Docker's rules
//! for `--link` on the default bridge.

use super::config::Port;
use super::record::Link;

/// The environment that `links` give to the container named `consumer`.
pub(crate) fn environment(consumer: &str, links: &[Link]) -> Vec<String> {
    links
        .iter()
        .flat_map(|link| of_link(consumer, link))
        .collect()
}

fn of_link(consumer: &str, link: &Link) -> Vec<String> {
    let prefix = prefix(&link.alias);
    let address = link.address;
    let mut ports = link.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    let mut env = Vec::new();
    if let Some(first) = ports.first() {
        env.push(format!("{prefix}_PORT={}", url(first, address)));
    }
    for run in consecutive(&ports) {
        if let ([first, .., last], protocol) = (run, run[0].protocol) {
            let shout = protocol.to_string().to_uppercase();
            let base = format!("{prefix}_PORT_{}_{shout}", first.number);
            env.push(format!("{base}_START={}", url(first, address)));
            env.push(format!("{base}_PORT_START={}", first.number));
            env.push(format!("{base}_END={}", url(last, address)));
            env.push(format!("{base}_PORT_END={}", last.number));
        }
    }
    for port in &ports {
        let base = format!(
            "{prefix}_PORT_{}_{}",
            port.number,
            port.protocol.to_string().to_uppercase()
        );
        env.push(format!("{base}={}", url(port, address)));
        env.push(format!("{base}_ADDR={address}"));
        env.push(format!("{base}_PORT={}", port.number));
        env.push(format!("{base}_PROTO={}", port.protocol));
    }
    env.push(format!("{prefix}_NAME=/{consumer}/{}", link.alias));
    let inherited = link.local.iter().flat_map(|target| &target.env);
    for variable in inherited {
        let Some((name, value)) = variable.split_once('=') else {
            continue;
        };
        if !matches!(name, "HOME" | "PATH") {
            env.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    env
}

/// The hosts entries that `links` give: address, alias, the target's hostname and name.
pub(crate) fn hosts(links: &[Link]) -> Vec<String> {
    links
        .iter()
        .map(|link| {
            let mut names = vec![link.alias.as_str()];
            let hostname = link.local.as_ref().map(|target| target.hostname.as_str());
            for name in hostname.into_iter().chain([link.target.as_str()]) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            format!("{}\t{}", link.address, names.join(" "))
        })
        .collect()
}

fn prefix(alias: &str) -> String {
    let last = alias.rsplit('/').next().unwrap_or(alias);
    last.to_uppercase().replace('-', "_")
}

fn url(port: &Port, address: std::net::Ipv4Addr) -> String {
    format!("{}://{address}:{}", port.protocol, port.number)
}

/// Runs of ports with the same protocol and consecutive numbers.
fn consecutive(ports: &[Port]) -> impl Iterator<Item = &[Port]> {
    ports.chunk_by(|a, b| a.protocol == b.protocol && a.number.checked_add(1) == Some(b.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::record::LinkedContainer;

    fn link(ports: &[&str]) -> Link {
        Link {
            target: "redis-server".into(),
            alias: "my-redis".into(),
            address: [172, 17, 0, 2].into(),
            remote: false,
            plain: false,
            ports: ports
                .iter()
                .map(|port| port.parse().expect("port"))
                .collect(),
            local: Some(LinkedContainer {
                id: "0123".into(),
                hostname: "012345678901".into(),
                env: vec!["HOME=/".into(), "PATH=/bin".into(), "A=b=c".into()],
            }),
        }
    }

    #[test]
    fn gives_dockers_variables() {
        assert_eq!(
            environment("web", &[link(&["6379/tcp"])]),
            [
                "MY_REDIS_PORT=tcp://172.17.0.2:6379",
                "MY_REDIS_PORT_6379_TCP=tcp://172.17.0.2:6379",
                "MY_REDIS_PORT_6379_TCP_ADDR=172.17.0.2",
                "MY_REDIS_PORT_6379_TCP_PORT=6379",
                "MY_REDIS_PORT_6379_TCP_PROTO=tcp",
                "MY_REDIS_NAME=/web/my-redis",
                "MY_REDIS_ENV_A=b=c",
            ]
        );
    }

    #[test]
    fn the_first_port_is_the_lowest_and_tcp_before_udp() {
        let env = environment("web", &[link(&["53/udp", "80/tcp", "53/tcp"])]);
        assert_eq!(env[0], "MY_REDIS_PORT=tcp://172.17.0.2:53");
    }

    #[test]
    fn consecutive_ports_give_their_range() {
        let env = environment("web", &[link(&["7002/tcp", "7000/tcp", "7001/tcp"])]);
        assert!(
            env.contains(&"MY_REDIS_PORT_7000_TCP_START=tcp://172.17.0.2:7000".to_owned()),
            "{env:?}"
        );
        assert!(
            env.contains(&"MY_REDIS_PORT_7000_TCP_PORT_END=7002".to_owned()),
            "{env:?}"
        );
    }

    #[test]
    fn hosts_entries_name_alias_hostname_and_target_once() {
        assert_eq!(
            hosts(&[link(&[])]),
            ["172.17.0.2\tmy-redis 012345678901 redis-server"]
        );
        let mut same = link(&[]);
        same.alias = "redis-server".into();
        same.local = None;
        assert_eq!(hosts(&[same]), ["172.17.0.2\tredis-server"]);
    }
}
