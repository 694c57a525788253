//! Joins two network namespaces to one segment and lets one ping the other.
//!
//! Run as root: `cargo run -p nuncio-overlay --example segment`. All happens in a network namespace of
//! its own, which ends with the program.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use ipnetwork::Ipv4Network;
use nuncio_overlay::{
    AttachRequest, HostAccess, HostState, Kernel, MacAddr, NetNs, Place, Reach, Segment, attach,
    bridge_name, gateway, veth_name,
};

/// In a program of one thread, as here, the whole program moves to the new namespace.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let segment = segment("0123456789abcdef", "10.42.0.0/24".parse()?);
    let state = HostState {
        segments: vec![segment.clone()],
        shortcut: true,
        ..HostState::default()
    };
    let report = Kernel::open().await?.reconcile(&state).await?;
    println!("{} things made in the kernel", report.created);

    let directory = tempfile::tempdir()?;
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    for (netns, address) in [(&one, "10.42.0.2/24"), (&two, "10.42.0.3/24")] {
        NetNs::create(netns).await?;
        attach(&request(&segment, netns, address.parse()?)).await?;
    }
    let net = format!("--net={}", one.display());
    let ping = ["busybox", "ping", "-c", "1", "10.42.0.3"];
    let pinged = Command::new("nsenter").arg(net).args(ping).status();
    NetNs::remove(&one)?;
    NetNs::remove(&two)?;
    ensure!(pinged?.success(), "no answer");
    Ok(())
}

fn segment(id: &str, subnet: Ipv4Network) -> Segment {
    Segment {
        id: id.to_owned(),
        bridge: bridge_name(id),
        adopted: false,
        subnets: vec![subnet.into()],
        blocks: vec![subnet.into()],
        vxlan: None,
        peers: Vec::new(),
        mtu: 1500,
        internal: true,
        icc: true,
        masquerade: true,
        linked: Vec::new(),
        reach: Reach::Routed,
        local_addresses: Vec::new(),
        members: Vec::new(),
        host_access: HostAccess::Only(Vec::new()),
    }
}

fn request(segment: &Segment, netns: &Path, address: Ipv4Network) -> AttachRequest {
    AttachRequest {
        netns: netns.to_owned(),
        container_link: "eth0".to_owned(),
        host_link: veth_name("c0ffee00", address.ip().octets()[3]),
        bridge: segment.bridge.clone(),
        places: vec![Place {
            address: address.into(),
            gateway: Some(gateway(address.into())),
            subnet: segment.subnets[0],
        }],
        mac: MacAddr::of_address(address.ip()),
        mtu: segment.mtu,
        isolated: !segment.icc,
    }
}
