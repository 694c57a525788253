//! The files that the daemon lays into a container: hostname, hosts and resolv.conf.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The name server's address inside containers of user-defined networks.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// `/etc/hosts`: loopback, the container itself, then `--add-host` and links.
pub(crate) fn hosts(
    hostname: &str,
    addresses: &[IpAddr],
    extra: &[String],
    links: &[String],
) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for entry in extra {
        if let Some((name, address)) = entry.split_once([':', '=']) {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    for link in links {
        let _ = writeln!(text, "{link}");
    }
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

/// What `resolv.conf` says, as far as it is passed on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Resolving {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Resolving {
    /// Reads a `resolv.conf` (resolv.conf(5)); lines that make no sense are passed over, as libc does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found
                    .servers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// Without the servers on the host's loopback, which a container does not reach.
    pub(crate) fn without_loopback(mut self) -> Self {
        self.servers.retain(|server| !server.is_loopback());
        self
    }

    /// With `server` alone to be asked, and asked for a container's bare name first unless `ndots` says otherwise.
    pub(crate) fn behind(mut self, server: IpAddr) -> Self {
        self.servers = vec![server];
        let sets_dots = |option: &String| option.starts_with("ndots:");
        if !self.options.iter().any(sets_dots) {
            self.options.push("ndots:0".to_owned());
        }
        self
    }

    /// The file's text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_renders() {
        let resolving = Resolving {
            servers: vec![
                "192.0.2.1".parse().expect("address"),
                "2001:db8::1".parse().expect("address"),
            ],
            search: vec!["example.org".into(), "example.net".into()],
            options: vec!["ndots:0".into()],
        };
        assert_eq!(Resolving::parse(&resolving.render()), resolving);
    }

    #[test]
    fn drops_loopback_servers_and_nonsense() {
        let text = "# made by x\nnameserver 127.0.0.53\nnameserver nonsense\nnameserver 192.0.2.1\nsortlist x\n";
        let found = Resolving::parse(text).without_loopback();
        assert_eq!(
            found.servers,
            ["192.0.2.1".parse::<IpAddr>().expect("address")]
        );
    }

    #[test]
    fn options_are_kept_behind_a_name_server() {
        let behind = |text: &str| Resolving::parse(text).behind(NAME_SERVER.into()).render();
        assert_eq!(
            behind("nameserver 192.0.2.1\nsearch a.org b.org\noptions rotate timeout:1\n"),
            "nameserver 127.0.0.11\nsearch a.org b.org\noptions rotate timeout:1 ndots:0\n"
        );
        assert_eq!(
            behind("options ndots:2\n"),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }

    #[test]
    fn hosts_lists_loopback_additions_links_and_itself() {
        let text = hosts(
            "web",
            &[[172, 17, 0, 3].into()],
            &["docs:192.0.2.9".into()],
            &["172.17.0.2\tredis".into()],
        );
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("192.0.2.9\tdocs\n172.17.0.2\tredis\n172.17.0.3\tweb\n"),
            "{text}"
        );
    }
}
