use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nix::sched::{CloneFlags, setns};
use nuncio_overlay::{
    AttachRequest, Carrier, HostAccess, HostState, Kernel, MacAddr, Member, Peer, Place, Reach,
    ReconcileError, Report, Segment, Vni, Vxlan, attach, bridge_name, gateway, inner_mtu,
    vxlan_name,
};
use tokio::runtime::Runtime;

use super::{Namespace, Pod, sh_in};

type Job = Box<dyn FnOnce(&Runtime, &mut Kernel) + Send>;

/// A host: its namespace, and a thread in it that has the kernel.
pub struct Host {
    pub namespace: Namespace,
    pub address: Ipv4Addr,
    pub state: HostState,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A network that all hosts of a test agree on: host `n` has block `10.<id>.<n>.0/24`, and of one that carries IPv6
/// `fd00:<id>:0:0:<n>::/80`.
#[derive(Clone)]
pub struct Network {
    pub number: u8,
    pub v6: bool,
    /// Hosts speak to each other over IPv6.
    pub over_v6: bool,
    pub internal: bool,
    pub icc: bool,
    pub reach: Reach,
    pub carrier: Carrier,
}

impl Network {
    pub fn new(number: u8) -> Self {
        Self {
            number,
            v6: false,
            over_v6: false,
            internal: false,
            icc: true,
            reach: Reach::Routed,
            carrier: Carrier::Vxlan,
        }
    }

    /// One that carries both families.
    pub fn dual(number: u8) -> Self {
        Self {
            v6: true,
            ..Self::new(number)
        }
    }

    pub fn id(&self) -> String {
        format!("{:08x}", self.number)
    }

    pub fn subnet(&self) -> Ipv4Network {
        Ipv4Network::new(Ipv4Addr::new(10, self.number, 0, 0), 16).expect("16 bits are a prefix")
    }

    pub fn block(&self, host: &Host) -> Ipv4Network {
        let [.., last] = host.address.octets();
        let start = Ipv4Addr::new(10, self.number, last, 0);
        Ipv4Network::new(start, 24).expect("24 bits are a prefix")
    }

    pub fn subnet_v6(&self) -> Ipv6Network {
        let start = Ipv6Addr::new(0xfd00, self.number.into(), 0, 0, 0, 0, 0, 0);
        Ipv6Network::new(start, 64).expect("64 bits are a prefix")
    }

    pub fn block_v6(&self, host: &Host) -> Ipv6Network {
        let [.., last] = host.address.octets();
        let start = Ipv6Addr::new(0xfd00, self.number.into(), 0, 0, last.into(), 0, 0, 0);
        Ipv6Network::new(start, 80).expect("80 bits are a prefix")
    }

    fn blocks(&self, host: &Host) -> Vec<IpNetwork> {
        let v6 = self.v6.then(|| self.block_v6(host).into());
        std::iter::once(self.block(host).into()).chain(v6).collect()
    }

    fn subnets(&self) -> Vec<IpNetwork> {
        let v6 = self.v6.then(|| self.subnet_v6().into());
        std::iter::once(self.subnet().into()).chain(v6).collect()
    }

    fn vtep(&self, host: &Host) -> IpAddr {
        match self.over_v6 {
            true => host.address_v6().into(),
            false => host.address.into(),
        }
    }

    /// What `host` shall make of it, knowing `peers`.
    pub fn segment(&self, host: &Host, peers: &[&Host]) -> Segment {
        let mac = |address: Ipv4Addr| MacAddr::of_node(&address.to_string());
        let peers = peers.iter().flat_map(|peer| {
            let blocks = self.blocks(peer).into_iter();
            blocks.map(|block| Peer {
                block,
                vtep: self.vtep(peer),
                mac: mac(peer.address),
                mtu: None,
            })
        });
        Segment {
            id: self.id(),
            bridge: bridge_name(&self.id()),
            adopted: false,
            subnets: self.subnets(),
            blocks: self.blocks(host),
            vxlan: Some(Vxlan {
                carrier: self.carrier,
                link: vxlan_name(&self.id()),
                vni: Vni::try_from(u32::from(self.number)).expect("8 bits fit 24"),
                local: self.vtep(host),
                port: 4789,
                mac: mac(host.address),
                fallback: None,
                offload: None,
            }),
            peers: peers.collect(),
            mtu: inner_mtu(1500, self.over_v6).expect("1500 is enough"),
            internal: self.internal,
            icc: self.icc,
            masquerade: true,
            linked: Vec::new(),
            reach: self.reach.clone(),
            local_addresses: Vec::new(),
            members: Vec::new(),
            host_access: HostAccess::Only(Vec::new()),
        }
    }
}

impl Network {
    fn address(&self, host: &Host, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.block(host).network().octets();
        Ipv4Addr::new(a, b, c, last)
    }

    fn address_v6(&self, host: &Host, last: u8) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.block_v6(host).network()) + u128::from(last))
    }
}

/// Of the host that has `address`.
pub(super) fn underlay_v6(address: Ipv4Addr) -> Ipv6Addr {
    let [.., last] = address.octets();
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into())
}

/// Joins all hosts in the network.
pub fn join(network: &Network, hosts: &mut [Host]) -> Result<()> {
    for index in 0..hosts.len() {
        let others = hosts
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let others: Vec<_> = others.map(|(_, host)| host).collect();
        let segment = network.segment(&hosts[index], &others);
        hosts[index].state.segments.push(segment);
        hosts[index].reconcile()?;
    }
    Ok(())
}

impl Host {
    pub fn start(namespace: Namespace, address: Ipv4Addr) -> Result<Self> {
        let file = std::fs::File::open(&namespace.path)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter the host's namespace");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("build a runtime");
            let mut kernel = runtime.block_on(Kernel::open()).expect("open the kernel");
            for job in queue {
                job(&runtime, &mut kernel);
            }
        });
        Ok(Self {
            namespace,
            address,
            state: HostState {
                shortcut: true,
                ..HostState::default()
            },
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Its address on the underlay's other family.
    pub fn address_v6(&self) -> Ipv6Addr {
        underlay_v6(self.address)
    }

    /// Runs `work` in the host's namespace.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Runtime, &mut Kernel) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move |runtime, kernel| {
            let _ = sender.send(work(runtime, kernel));
        });
        let jobs = self.jobs.as_ref().context("the host has stopped")?;
        jobs.send(job).ok().context("the host's thread is gone")?;
        receiver.recv().context("the host's thread panicked")
    }

    pub fn reconcile(&self) -> Result<Report> {
        Ok(self.try_reconcile()??)
    }

    pub fn try_reconcile(&self) -> Result<Result<Report, ReconcileError>> {
        let state = self.state.clone();
        self.run(move |runtime, kernel| runtime.block_on(kernel.reconcile(&state)))
    }

    pub fn settle(&self) -> Result<()> {
        Ok(self.run(|runtime, kernel| runtime.block_on(kernel.settle()))??)
    }

    pub fn clear(&self) -> Result<Report> {
        Ok(self.run(|runtime, kernel| runtime.block_on(kernel.clear()))??)
    }

    pub fn attach(&self, request: AttachRequest) -> Result<()> {
        Ok(self.run(move |runtime, _| runtime.block_on(attach(&request)))??)
    }

    /// As [`Host::container`], in the state of its network, so that it can only be who it is.
    pub fn member(&mut self, network: &Network, last: u8) -> Result<Container> {
        let pod = Pod::new()?;
        let request = self.request(network, last, &pod.path);
        let id = network.id();
        let segments = &mut self.state.segments;
        let segment = segments.iter_mut().find(|segment| segment.id == id);
        segment.context("join first")?.members.push(Member {
            link: request.host_link.clone(),
            mac: request.mac,
            addresses: request.places.iter().map(|at| at.address.ip()).collect(),
        });
        self.reconcile()?;
        self.attach(request)?;
        Ok(self.in_place(network, last, pod))
    }

    /// Starts a container with the address that ends in `last`.
    pub fn container(&self, network: &Network, last: u8) -> Result<Container> {
        let pod = Pod::new()?;
        self.attach(self.request(network, last, &pod.path))?;
        Ok(self.in_place(network, last, pod))
    }

    fn in_place(&self, network: &Network, last: u8, pod: Pod) -> Container {
        Container {
            pod,
            address: network.address(self, last),
            address_v6: network.address_v6(self, last),
        }
    }

    pub fn request(&self, network: &Network, last: u8, netns: &Path) -> AttachRequest {
        let address = network.address(self, last);
        let place = |address: IpAddr, block: IpNetwork, subnet| Place {
            address: IpNetwork::new(address, block.prefix()).expect("a block's prefix"),
            gateway: (!network.internal).then(|| gateway(block)),
            subnet,
        };
        let addresses = [address.into(), network.address_v6(self, last).into()];
        let blocks = network.blocks(self).into_iter().zip(network.subnets());
        let places = addresses.into_iter().zip(blocks);
        AttachRequest {
            netns: netns.to_owned(),
            container_link: "eth0".to_owned(),
            host_link: format!("nv-{}-{last}", network.number),
            bridge: bridge_name(&network.id()),
            places: places
                .map(|(address, (block, subnet))| place(address, block, subnet))
                .collect(),
            mac: MacAddr::of_address(address),
            mtu: inner_mtu(1500, network.over_v6).expect("1500 is enough"),
            isolated: !network.icc,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been reported where it was waited for
        }
    }
}

/// A container: its namespace and address.
pub struct Container {
    pub pod: Pod,
    pub address: Ipv4Addr,
    /// Which it has if its network carries IPv6.
    pub address_v6: Ipv6Addr,
}

impl Container {
    pub fn path(&self) -> &Path {
        &self.pod.path
    }

    pub fn sh(&self, command: &str) -> Result<String> {
        sh_in(self.path(), command)
    }
}
