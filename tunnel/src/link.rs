//! A TUN device that somebody else makes, and that may go and come.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustix::{
    event::PollFlags,
    net::{AddressFamily, SocketType, netdevice::name_to_index},
};
use tun_rs::{DeviceBuilder, SyncDevice, VIRTIO_NET_HDR_LEN};

use crate::{LinkDocument, socket::wait};

/// How long a reader waits for a packet before it looks whether it is still wanted, or the device there again.
const LOOK: Duration = Duration::from_millis(200);
/// Segments of one large packet that a device may hand over.
const SEGMENTS: usize = 512;

pub(crate) struct Link {
    pub(crate) document: LinkDocument,
    /// `None` while it is not attached to.
    device: ArcSwapOption<SyncDevice>,
    retired: AtomicBool,
}

/// What came of reading.
pub(crate) enum Read {
    /// So many packets, and there may be more.
    Packets(usize),
    /// There is nothing now.
    Empty,
    /// The device is not wanted any more.
    Over,
}

/// Room for what is read from a device at once.
pub(crate) struct Reader {
    whole: Vec<u8>,
    packets: Vec<Vec<u8>>,
    lengths: Vec<usize>,
}

impl Link {
    /// Attaches to the device.
    pub(crate) fn attach(document: &LinkDocument) -> io::Result<Self> {
        let device = attach(&document.name)?;
        Ok(Self {
            document: document.clone(),
            device: ArcSwapOption::from_pointee(device),
            retired: AtomicBool::new(false),
        })
    }

    /// Has its reader end.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Reads what the device has.
    ///
    /// A device that is gone is attached to again once it is back: it is made anew by who watches over it.
    pub(crate) fn read(&self, reader: &mut Reader) -> Read {
        if self.retired.load(Ordering::Relaxed) {
            self.device.store(None);
            return Read::Over;
        }
        let Some(device) = self.device.load_full() else {
            if let Ok(device) = attach(&self.document.name) {
                tracing::info!(link = self.document.name, "attached again");
                self.device.store(Some(Arc::new(device)));
            }
            return Read::Empty;
        };
        match reader.read(&device) {
            Ok(count) => return Read::Packets(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EBADFD of a device that is gone, EIO of one that is down.
            Err(error) if error.raw_os_error().is_some() => {
                tracing::warn!(link = self.document.name, %error, "read packets");
                self.device.store(None);
            }
            // One packet that is not as the kernel's are.
            Err(error) => {
                tracing::debug!(link = self.document.name, %error, "a packet");
                return Read::Packets(0);
            }
        }
        Read::Empty
    }

    /// Waits a while for packets, or for the device.
    pub(crate) fn wait(&self) {
        match self.device.load_full() {
            None => std::thread::park_timeout(LOOK),
            Some(device) => {
                if let Err(error) = wait(&*device, PollFlags::IN, LOOK) {
                    tracing::warn!(link = self.document.name, %error, "wait for packets");
                }
            }
        }
    }

    /// Whether several packets of UDP may be written as one.
    pub(crate) fn joins_udp(&self) -> bool {
        let device = self.device.load();
        device.as_ref().is_some_and(|device| device.udp_gso())
    }

    /// Writes a packet, behind what the kernel is told of it. If it does not take it, it is lost, as on any link.
    pub(crate) fn write(&self, packet: &[u8]) {
        let Some(device) = &*self.device.load() else {
            return;
        };
        if let Err(error) = device.send(packet) {
            tracing::debug!(link = self.document.name, %error, "write a packet");
        }
    }
}

impl Reader {
    pub(crate) fn new(mtu: u16) -> Self {
        Self {
            whole: vec![0; VIRTIO_NET_HDR_LEN + usize::from(u16::MAX) + 1],
            packets: vec![vec![0; mtu.into()]; SEGMENTS],
            lengths: vec![0; SEGMENTS],
        }
    }

    fn read(&mut self, device: &SyncDevice) -> io::Result<usize> {
        device.recv_multiple(&mut self.whole, &mut self.packets, &mut self.lengths, 0)
    }

    /// The first packets of those last read.
    pub(crate) fn packets(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let all = self.packets.iter().zip(&self.lengths);
        all.take(count).map(|(packet, length)| &packet[..*length])
    }
}

/// To ask for a device that is not there would make one, which is for others to do.
fn attach(name: &str) -> io::Result<SyncDevice> {
    let any = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    name_to_index(&any, name)?;
    let device = DeviceBuilder::new()
        .name(name)
        .with(|device| {
            device.offload(true);
        })
        .inherit_enable_state()
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}
