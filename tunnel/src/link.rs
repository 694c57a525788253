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
use rustix::event::PollFlags;
use tun_rs::{DeviceBuilder, GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

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

    /// Waits a while for packets, and gives each to `take`. Tells whether to go on.
    ///
    /// A device that is gone is attached to again once it is back: it is made anew by who watches over it.
    pub(crate) fn read(&self, reader: &mut Reader, take: impl FnMut(&[u8])) -> bool {
        if self.retired.load(Ordering::Relaxed) {
            self.device.store(None);
            return false;
        }
        let Some(device) = self.device.load_full() else {
            match attach(&self.document.name) {
                Ok(device) => {
                    tracing::info!(link = self.document.name, "attached again");
                    self.device.store(Some(Arc::new(device)));
                }
                Err(_) => std::thread::park_timeout(LOOK),
            }
            return true;
        };
        match reader.read(&device) {
            Ok(count) => reader.give(count, take),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Err(error) = wait(&*device, PollFlags::IN, LOOK) {
                    tracing::warn!(link = self.document.name, %error, "wait for packets");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EBADFD of a device that is gone, EIO of one that is down.
            Err(error) if error.raw_os_error().is_some() => {
                tracing::warn!(link = self.document.name, %error, "read packets");
                self.device.store(None);
                std::thread::park_timeout(LOOK);
            }
            // One packet that is not as the kernel's are.
            Err(error) => tracing::debug!(link = self.document.name, %error, "a packet"),
        }
        true
    }

    /// Writes packets, which have room in front. What the kernel does not take is lost, as on any link.
    pub(crate) fn write(&self, joined: &mut GROTable, packets: &mut [Vec<u8>]) {
        let Some(device) = self.device.load_full() else {
            return;
        };
        if let Err(error) = device.send_multiple(joined, packets, VIRTIO_NET_HDR_LEN) {
            tracing::debug!(link = self.document.name, %error, "write packets");
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

    fn give(&self, count: usize, mut take: impl FnMut(&[u8])) {
        for (packet, length) in self.packets.iter().zip(&self.lengths).take(count) {
            take(&packet[..*length]);
        }
    }
}

fn attach(name: &str) -> io::Result<SyncDevice> {
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
