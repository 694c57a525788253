use std::{fs, io};

use tokio::runtime;

use crate::{
    MacAddr,
    netlink::{Netlink, NewVeth, VxlanSettings},
    netns::{NetNs, on_a_thread},
    nft,
};

/// Something of the kernel, or of the system, that the overlay needs.
#[derive(Debug)]
pub struct Probe {
    /// What.
    pub feature: &'static str,
    /// What for.
    pub purpose: &'static str,
    /// Whether it was there when tried, else why not and what to do.
    pub available: Result<(), String>,
}

/// All kinds of rule that the overlay uses.
const RULES: &str = "table inet nuncio-probe {
	chain filter { type filter hook forward priority 0; ct state established accept; }
	chain nat {
		type nat hook prerouting priority -100;
		fib daddr type local tcp dport 9 dnat ip to 192.0.2.1:9
	}
	chain outward { type nat hook postrouting priority 100; ct status dnat masquerade; }
}
table bridge nuncio-probe {
	chain ports { type filter hook prerouting priority -300; iifname . ether saddr . ip saddr { \"x\" . 2:0:0:0:0:0 . 192.0.2.1 } accept; }
}
";

/// Tries everything the overlay needs in a network namespace that is thrown away.
///
/// Lists of modules tell little: a feature may be built in, or forbidden here.
pub async fn probe() -> Vec<Probe> {
    let tried = on_a_thread(|| {
        let here = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        here.map_err(io::Error::from)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        io::Result::Ok(runtime.block_on(features()))
    });
    let (available, features) = match tried.await.and_then(|features| features) {
        Ok(features) => (Ok(()), features),
        Err(error) => (
            Err(format!(
                "{error}: run as root, on a kernel with CONFIG_NET_NS"
            )),
            Vec::new(),
        ),
    };
    let mut probes = vec![Probe {
        feature: "network namespaces",
        purpose: "every container has its own network",
        available,
    }];
    probes.extend(features);
    probes
}

async fn features() -> Vec<Probe> {
    vec![
        Probe {
            feature: "bridge",
            purpose: "joins the containers of a network on this host",
            available: told(bridge().await, "load the module bridge"),
        },
        Probe {
            feature: "veth",
            purpose: "leads from a container to its network",
            available: told(veth().await, "load the module veth"),
        },
        Probe {
            feature: "vxlan",
            purpose: "carries a network between hosts",
            available: told(vxlan().await, "load the module vxlan"),
        },
        Probe {
            feature: "forwarding",
            purpose: "routes between containers, hosts and the world",
            available: told(
                fs::write("/proc/sys/net/ipv4/ip_forward", "1"),
                "mount /proc writable, so that net.ipv4.ip_forward can be set",
            ),
        },
        Probe {
            feature: "nft",
            purpose: "isolates networks and publishes ports",
            available: nft::apply(RULES).await.map_err(|error| {
                match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => format!(
                        "{error}: load the modules nf_tables, nft_chain_nat and nft_fib_inet"
                    ),
                }
            }),
        },
    ]
}

async fn bridge() -> io::Result<()> {
    let mac = MacAddr::of_node("probe");
    Netlink::open()?.add_bridge("nb-probe", mac).await
}

async fn veth() -> io::Result<()> {
    let namespace = NetNs::current().map_err(io::Error::other)?;
    let pair = NewVeth {
        name: "nv-probe",
        peer: "nv-probe-peer",
        namespace: &namespace,
        mac: MacAddr::of_node("probe"),
        mtu: 1500,
    };
    Netlink::open()?.add_veth(&pair).await
}

async fn vxlan() -> io::Result<()> {
    let settings = VxlanSettings {
        vni: 1,
        local: None,
        port: 4789,
        learning: false,
    };
    let mac = MacAddr::of_node("probe");
    Netlink::open()?
        .add_vxlan("nx-probe", &settings, mac, 1450)
        .await
}

fn told(result: io::Result<()>, remedy: &str) -> Result<(), String> {
    result.map_err(|error| format!("{error}: {remedy}"))
}
