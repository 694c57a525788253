//! A device that does not know VXLAN: it computes the checksums of all packets that are left to it, but of those within.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::sys;

/// `struct virtio_net_hdr`, before each frame.
const VIRTIO: usize = 10;
const ETHERNET: usize = 14;
/// In a frame of IPv4 without options: where UDP has its port and its checksum.
const UDP_PORT: usize = ETHERNET + 20 + 2;
const UDP_CHECKSUM: usize = ETHERNET + 20 + 6;

/// Carries frames between two links of a namespace for as long as it is kept.
pub(crate) struct Relay {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    #[track_caller]
    pub(super) fn between(netns: &Path, links: [&str; 2]) -> Self {
        let over = Arc::<AtomicBool>::default();
        let sockets = links.map(|link| {
            let (netns, link) = (netns.to_owned(), link.to_owned());
            let opened = std::thread::spawn(move || open(&netns, &link));
            Arc::new(opened.join().expect("open a packet socket"))
        });
        let [one, other] = sockets;
        let ways = [(Arc::clone(&one), Arc::clone(&other)), (other, one)];
        let threads = ways.map(|(from, to)| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || carry(&from, &to, &over))
        });
        Self {
            over,
            threads: threads.into(),
        }
    }
}

fn open(netns: &Path, link: &str) -> OwnedFd {
    let namespace = std::fs::File::open(netns).expect("open the namespace");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
    let kind = SockType::Raw;
    let socket = socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.expect("make a packet socket");
    sys::set_up_for_relaying(socket.as_fd()).expect("ask for headers");
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50)).expect("a timeout");
    let link = if_nametoindex(link).expect("the link");
    sys::bind_to_link(socket.as_fd(), link).expect("bind to the link");
    socket
}

fn carry(from: &OwnedFd, to: &OwnedFd, over: &AtomicBool) {
    let mut buffer = vec![0; 1 << 17];
    while !over.load(Ordering::Relaxed) {
        match recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let frame = &mut buffer[..length];
                mangle(frame);
                let _ = send(to.as_raw_fd(), frame, MsgFlags::empty()); // a full queue loses frames
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENETDOWN | Errno::ENXIO) => return, // the link goes with its namespace
            Err(error) => panic!("receive frames: {error}"),
        }
    }
}

/// Takes VXLAN's packets for ready, but for their own checksum, which need not be there.
fn mangle(packet: &mut [u8]) {
    let (virtio, frame) = packet.split_at_mut(VIRTIO);
    let is_udp = frame.get(12..15) == Some(&[0x08, 0x00, 0x45]) && frame.get(23) == Some(&17);
    if is_udp && frame.get(UDP_PORT..UDP_PORT + 2) == Some(&4789_u16.to_be_bytes()) {
        virtio.fill(0);
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panic has been printed
        }
    }
}
