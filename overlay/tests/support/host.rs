use std::{
    net::Ipv4Addr,
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use ipnetwork::Ipv4Network;
use nix::sched::{CloneFlags, setns};
use nuncio_overlay::{
    AttachRequest, Carrier, HostAccess, HostState, Kernel, MacAddr, Member, Peer, Reach,
    ReconcileError, Report, Segment, Vni, Vxlan, attach, bridge_name, gateway_of, inner_mtu,
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

/// A network that all hosts of a test agree on: host `n` has block `10.<id>.<n>.0/24`.
#[derive(Clone)]
pub struct Network {
    pub number: u8,
    pub internal: bool,
    pub icc: bool,
    pub reach: Reach,
    pub carrier: Carrier,
}

impl Network {
    pub fn new(number: u8) -> Self {
        Self {
            number,
            internal: false,
            icc: true,
            reach: Reach::Routed,
            carrier: Carrier::Vxlan,
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

    /// What `host` shall make of it, knowing `peers`.
    pub fn segment(&self, host: &Host, peers: &[&Host]) -> Segment {
        let mac = |address: Ipv4Addr| MacAddr::of_node(&address.to_string());
        let peer = |peer: &&Host| Peer {
            block: self.block(peer),
            vtep: peer.address.into(),
            mac: mac(peer.address),
            mtu: None,
        };
        Segment {
            id: self.id(),
            bridge: bridge_name(&self.id()),
            adopted: false,
            subnet: self.subnet(),
            blocks: vec![self.block(host)],
            vxlan: Some(Vxlan {
                carrier: self.carrier,
                link: vxlan_name(&self.id()),
                vni: Vni::try_from(u32::from(self.number)).expect("8 bits fit 24"),
                local: host.address.into(),
                port: 4789,
                mac: mac(host.address),
            }),
            peers: peers.iter().map(peer).collect(),
            mtu: inner_mtu(1500, false).expect("1500 is enough"),
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
            addresses: vec![request.address.ip().into()],
        });
        self.reconcile()?;
        let address = request.address.ip();
        self.attach(request)?;
        Ok(Container { pod, address })
    }

    /// Starts a container with the address that ends in `last`.
    pub fn container(&self, network: &Network, last: u8) -> Result<Container> {
        let pod = Pod::new()?;
        let request = self.request(network, last, &pod.path);
        let address = request.address.ip();
        self.attach(request)?;
        Ok(Container { pod, address })
    }

    pub fn request(&self, network: &Network, last: u8, netns: &Path) -> AttachRequest {
        let block = network.block(self);
        let [a, b, c, _] = block.network().octets();
        let address = Ipv4Addr::new(a, b, c, last);
        AttachRequest {
            netns: netns.to_owned(),
            container_link: "eth0".to_owned(),
            host_link: format!("nv-{}-{last}", network.number),
            bridge: bridge_name(&network.id()),
            address: Ipv4Network::new(address, 24).expect("24 bits are a prefix"),
            gateway: (!network.internal).then(|| gateway_of(block)),
            subnet: network.subnet(),
            mac: MacAddr::of_address(address),
            mtu: 1450,
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
}

impl Container {
    pub fn path(&self) -> &Path {
        &self.pod.path
    }

    pub fn sh(&self, command: &str) -> Result<String> {
        sh_in(self.path(), command)
    }
}
