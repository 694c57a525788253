//! Networks and containers that come, move and go on three hosts, over killed daemons and hosts that are cut off: in the end
//! nothing of them is left, and at no time have two the same address.
//!
//! `NUNCIO_CHURN` is how often something changes (60), `NUNCIO_CHURN_SEED` what (a number that is told on failure).

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::{Duration, Instant};

use support::{Host, Image, SOON, cluster, wait_until};

const NETWORKS: usize = 4;
const CONTAINERS: usize = 8;
/// Between two looks at everything.
const ROUND: usize = 20;

/// What is to happen: xorshift64* (Vigna 2016), so that a seed tells it all.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).expect("31 bits") % bound
    }
}

/// A container, and the networks that it is in.
struct Place {
    host: usize,
    networks: BTreeSet<usize>,
}

struct Mesh {
    hosts: [Host; 3],
    networks: BTreeSet<usize>,
    containers: BTreeMap<usize, Place>,
}

impl Mesh {
    /// One change, and what it was.
    fn change(&mut self, chance: &mut Chance) -> String {
        let (host, network) = (chance.below(3), chance.below(NETWORKS));
        let container = chance.below(CONTAINERS);
        match chance.below(24) {
            0 => self.kill(host),
            1 => self.cut_off(1 + host % 2),
            2..6 => self.network(host, network),
            6..15 => self.container(host, network, container),
            _ => self.membership(network, container),
        }
    }

    fn kill(&self, host: usize) -> String {
        self.hosts[host].kill_daemon();
        self.hosts[host].start_again();
        format!("daemon {host} killed")
    }

    /// The others go on meanwhile; the first one has the registry, so it is not for this.
    fn cut_off(&self, host: usize) -> String {
        self.hosts[host].ip("link set eth0 down");
        let first = &self.hosts[0];
        first.ok("run -d --name meanwhile busybox sleep 1000");
        first.ok("rm -f meanwhile");
        self.hosts[host].ip("link set eth0 up");
        let is_there = || self.hosts[host].nuncio("network ls").code == 0;
        wait_until("the host is back", is_there);
        format!("host {host} cut off")
    }

    fn network(&mut self, host: usize, network: usize) -> String {
        let on = &self.hosts[host];
        if self.networks.insert(network) {
            on.ok(&*format!("network create -d overlay n{network}"));
            return format!("n{network} made on {host}");
        }
        let used = |place: &Place| place.networks.contains(&network);
        if self.containers.values().any(used) {
            let refused = on.nuncio(&*format!("network rm n{network}")).refused(1);
            assert!(refused.contains("has active endpoints"), "{refused}");
            return format!("n{network} kept");
        }
        on.ok(&*format!("network rm n{network}"));
        self.networks.remove(&network);
        format!("n{network} removed on {host}")
    }

    /// Starts it, moves it to another host, or ends it.
    fn container(&mut self, host: usize, network: usize, container: usize) -> String {
        if let Some(place) = self.containers.remove(&container) {
            self.hosts[place.host].ok(&*format!("rm -f c{container}"));
            if place.host == host {
                return format!("c{container} removed from {host}");
            }
        }
        if !self.networks.contains(&network) {
            return format!("c{container} nowhere");
        }
        self.hosts[host].ok(&*format!(
            "run -d --name c{container} --network n{network} busybox sleep 100000"
        ));
        let networks = BTreeSet::from([network]);
        self.containers.insert(container, Place { host, networks });
        format!("c{container} in n{network} on {host}")
    }

    fn membership(&mut self, network: usize, container: usize) -> String {
        let Some(place) = self.containers.get_mut(&container) else {
            return format!("no c{container}");
        };
        let on = &self.hosts[place.host];
        if place.networks.remove(&network) {
            on.ok(&*format!("network disconnect n{network} c{container}"));
            return format!("c{container} out of n{network}");
        }
        if self.networks.contains(&network) {
            on.ok(&*format!("network connect n{network} c{container}"));
            place.networks.insert(network);
        }
        format!("c{container} in {:?}", place.networks)
    }

    /// No address is there twice, and each container is where it ought to be.
    fn check(&self) {
        let mut addresses = BTreeMap::new();
        for (container, place) in &self.containers {
            let format = "{{range $name, $at := .NetworkSettings.Networks}}{{$name}} {{$at.IPAddress}}\n{{end}}";
            let name = format!("c{container}");
            let told = self.hosts[place.host].ok(["inspect", "-f", format, &name]);
            let lines: BTreeSet<&str> = told.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(lines.len(), place.networks.len(), "{name}: {told}");
            for line in lines {
                let other = addresses.insert(line.to_owned(), name.clone());
                assert_eq!(other, None, "{line} is that of {name} too");
            }
        }
    }

    /// Removes all, each thing from wherever it is.
    fn clear(&mut self) {
        for (container, place) in std::mem::take(&mut self.containers) {
            self.hosts[place.host].ok(&*format!("rm -f c{container}"));
        }
        for network in std::mem::take(&mut self.networks) {
            self.hosts[network % 3].ok(&*format!("network rm n{network}"));
        }
    }
}

/// What the kernel of a host has, without what differs from one look to the next.
fn picture(host: &Host) -> String {
    let script = "ip -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/<.*>//; s/state [A-Z]*//'; \
                  ip -o -4 addr show | sed 's/^[0-9]*: //; s/valid_lft.*//'; \
                  ip -o -6 addr show scope global; ip -6 route show proto 110; \
                  ip -4 route show table all | sed 's/ linkdown//'; ip neigh show nud permanent; bridge fdb show | grep ' dst '; nft list tables | sort | while read -r _ family table; do nft -s list table $family $table; done";
    host.inside("sh", ["-c", script]).stdout
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let number = |name: &str, default: u64| {
        env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let times = number("NUNCIO_CHURN", 60);
    let seed = number("NUNCIO_CHURN_SEED", u64::from(std::process::id()));
    println!("NUNCIO_CHURN_SEED={seed}");
    let mut chance = Chance(seed.max(1));
    let hosts = cluster(&[Image::Busybox]);
    // The default network is there from the first container on.
    for host in &hosts {
        host.ok("run --rm busybox true");
    }
    let before = hosts.each_ref().map(picture);
    let mut mesh = Mesh {
        hosts,
        networks: BTreeSet::new(),
        containers: BTreeMap::new(),
    };
    for time in 0..times {
        println!("{time}: {}", mesh.change(&mut chance));
        if time as usize % ROUND == ROUND - 1 {
            mesh.check();
        }
    }
    mesh.check();
    mesh.clear();
    for (host, before) in mesh.hosts.iter().zip(before) {
        let deadline = Instant::now() + SOON;
        while picture(host) != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(picture(host), before, "the kernel is not as it was");
        let known = host.data_root().join("catalog.json");
        wait_until("nothing is known of containers", || {
            let text = std::fs::read_to_string(&known).unwrap_or_default();
            text.contains("/nuncio/v1/nodes/") && !text.contains("/nuncio/v1/endpoints/")
        });
        assert_eq!(host.ok("ps -aq"), "");
    }
}
