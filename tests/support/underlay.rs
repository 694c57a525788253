//! A switch and hosts on it, as network namespaces.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use super::command::{Finished, Spawned, tool};
use super::host::Host;
use super::relay::Relay;
use super::remains;

/// An underlay: a bridge in a namespace of its own, out of which no route leads.
///
/// Hosts keep it alive. Addresses repeat from one underlay to the next, as they never meet.
#[derive(Clone)]
pub(crate) struct Underlay {
    switch: Arc<Namespace>,
    hosts: Arc<AtomicUsize>,
}

impl Underlay {
    /// Makes the switch.
    #[track_caller]
    pub(crate) fn new() -> Self {
        static ONCE: Once = Once::new();
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        ONCE.call_once(remains::remove_those_of_dead_tests);
        let switch = Namespace::new(&unique());
        switch.ip("link add underlay type bridge");
        switch.ip("link set underlay up");
        Self {
            switch: Arc::new(switch),
            hosts: Arc::default(),
        }
    }

    /// Adds a host, on which nothing runs yet.
    #[track_caller]
    pub(crate) fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let namespace = Namespace::new(&format!("{}-{number}", self.switch.name));
        let address = format!("198.18.0.{number}");
        namespace.ip(&format!(
            "link add eth0 type veth peer name host{number} netns {}",
            self.switch.name
        ));
        self.switch
            .ip(&format!("link set host{number} master underlay up"));
        namespace.ip(&format!("address add {address}/24 dev eth0"));
        namespace.ip("link set lo up");
        namespace.ip("link set eth0 up");
        Host::new(
            namespace,
            address.parse().expect("an address"),
            number,
            self.clone(),
        )
    }
}

impl Underlay {
    /// Drops VXLAN's packets of more than `mtu` bytes, without a word, or none any more.
    #[track_caller]
    pub(crate) fn narrow(&self, mtu: Option<u16>) {
        let rules = match mtu {
            Some(mtu) => format!(
                "add table bridge narrow\n\
                 add chain bridge narrow way {{ type filter hook forward priority 0; }}\n\
                 add rule bridge narrow way udp dport 4789 ip length > {mtu} drop\n"
            ),
            None => "delete table bridge narrow\n".to_owned(),
        };
        self.rule(&rules);
    }

    /// Puts a device that does not know VXLAN between a host, by its number, and the switch, for as long as it is kept.
    #[track_caller]
    pub(crate) fn misunderstand(&self, host: usize) -> Relay {
        let (port, far) = (format!("host{host}"), format!("far{host}"));
        self.switch
            .ip(&format!("link add {far} type veth peer name near{host}"));
        self.switch.ip(&format!("link set {port} nomaster"));
        self.switch.ip(&format!("link set near{host} up"));
        self.switch
            .ip(&format!("link set {far} master underlay up"));
        Relay::between(&self.switch.path(), [&port, &format!("near{host}")])
    }

    /// Connects the host to the switch again, without that device.
    #[track_caller]
    pub(crate) fn understand(&self, host: usize, device: Relay) {
        drop(device);
        self.switch.ip(&format!("link del far{host}"));
        self.switch
            .ip(&format!("link set host{host} master underlay"));
    }

    /// Drops packets that are as nft's words say.
    #[track_caller]
    pub(crate) fn block(&self, what: &str) {
        self.rule(&format!(
            "add table bridge block\n\
             add chain bridge block way {{ type filter hook forward priority 0; }}\n\
             add rule bridge block way {what} drop\n"
        ));
    }

    /// Lets them pass again.
    #[track_caller]
    pub(crate) fn unblock(&self) {
        self.rule("delete table bridge block\n");
    }

    #[track_caller]
    fn rule(&self, rules: &str) {
        let mut nft = self.switch.command(&tool("nft"));
        nft.args(["-f", "-"]);
        Spawned::new(nft, Some(rules.as_bytes())).finish().ok();
    }
}

/// A name no other test has: it is this process's, and a number.
fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!(
        "nt-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A named network namespace.
pub(crate) struct Namespace {
    pub(super) name: String,
}

impl Namespace {
    #[track_caller]
    fn new(name: &str) -> Self {
        ip(&format!("netns add {name}")).ok();
        Self {
            name: name.to_owned(),
        }
    }

    /// Runs `ip` in it.
    #[track_caller]
    pub(super) fn ip(&self, words: &str) -> String {
        ip(&format!("-n {} {words}", self.name)).ok()
    }

    /// Where it can be opened.
    pub(super) fn path(&self) -> std::path::PathBuf {
        std::path::Path::new("/run/netns").join(&self.name)
    }

    /// A command to be run in it. The rest of the machine, such as its cgroups, is seen as from outside.
    pub(super) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(tool("nsenter"));
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let gone = ip(&format!("netns del {}", self.name));
        if gone.code != 0 {
            eprintln!("{gone:?}");
        }
    }
}

#[track_caller]
pub(super) fn ip(words: &str) -> Finished {
    let mut command = Command::new(tool("ip"));
    command.args(words.split_whitespace());
    Spawned::new(command, None).finish()
}
