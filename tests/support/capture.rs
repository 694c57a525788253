//! What passes a link of a host, from a packet socket of the test's own.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::host::Host;

/// Every packet that passes a host's underlay link while it is kept, headers and all.
pub(crate) struct Capture {
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    #[track_caller]
    pub(crate) fn of(host: &Host) -> Self {
        let namespace = std::fs::File::open(host.netns()).expect("open the host's namespace");
        let packets = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let over = Arc::<AtomicBool>::default();
        let (ready, begun) = std::sync::mpsc::channel();
        let (kept, ends) = (Arc::clone(&packets), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the host's namespace");
            let link = if_nametoindex("eth0").expect("the underlay link");
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::EthAll,
            );
            let socket = socket.expect("make a packet socket");
            ready.send(()).expect("the test waits");
            let mut buffer = vec![0; 1 << 17];
            let patience = TimeVal::milliseconds(50);
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience).expect("set a timeout");
            while !ends.load(Ordering::Relaxed) {
                match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                    Ok((length, from)) => {
                        if from.is_some_and(|from| from.ifindex() == link as usize) {
                            let packet = buffer[..length].to_vec();
                            kept.lock().expect("no test panics here").push(packet);
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(error) => panic!("receive packets: {error}"),
                }
            }
        });
        begun.recv().expect("the capture has begun");
        Self {
            packets,
            over,
            thread: Some(thread),
        }
    }

    /// Whether any packet holds `text`.
    pub(crate) fn shows(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.count(|packet| packet.windows(text.len()).any(|window| window == text)) > 0
    }

    /// How many packets of IPv4 are UDP to or from `port`.
    pub(crate) fn udp(&self, port: u16) -> usize {
        self.of_port(17, port)
    }

    /// How many are TCP to or from `port`.
    pub(crate) fn tcp(&self, port: u16) -> usize {
        self.of_port(6, port)
    }

    fn of_port(&self, protocol: u8, port: u16) -> usize {
        self.count(|packet| {
            let ports = packet.get(34..38).unwrap_or_default();
            is_ipv4(packet)
                && packet.get(23) == Some(&protocol)
                && ports.chunks(2).any(|bytes| bytes == port.to_be_bytes())
        })
    }

    /// How many packets of VXLAN (RFC 7348) bear the network identifier `vni`.
    pub(crate) fn vxlan(&self, vni: u32) -> usize {
        let [_, number @ ..] = vni.to_be_bytes();
        self.count(|packet| {
            is_ipv4(packet)
                && packet.get(23) == Some(&17)
                && packet.get(36..38) == Some(&4789_u16.to_be_bytes())
                && packet.get(46..49) == Some(&number)
        })
    }

    /// How many packets of IPv4 are to or from addresses that begin with `prefix`.
    pub(crate) fn addressed(&self, prefix: &[u8]) -> usize {
        self.count(|packet| {
            let addresses = packet.get(26..34).unwrap_or_default();
            is_ipv4(packet)
                && addresses
                    .chunks(4)
                    .any(|address| address.starts_with(prefix))
        })
    }

    fn count(&self, is_meant: impl Fn(&[u8]) -> bool) -> usize {
        let packets = self.packets.lock().expect("no test panics here");
        packets.iter().filter(|packet| is_meant(packet)).count()
    }
}

fn is_ipv4(packet: &[u8]) -> bool {
    packet.get(12..15) == Some(&[0x08, 0x00, 0x45])
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}
