//! Datagrams, as many as the sender can make.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt,
};

use super::PATIENCE;
use super::sink::Arrived;

/// Datagrams in one call.
const BATCH: usize = 32;
/// Sent before the first look, so that sessions exist.
const WARM_UP: Duration = Duration::from_millis(300);
/// What the kernel takes in one piece, headers included (RFC 768 and RFC 791).
const LARGEST: usize = 65_507;
/// `UDP_MAX_SEGMENTS` of older kernels.
const SEGMENTS: usize = 64;

/// What is sent where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) flows: usize,
    pub(crate) size: u16,
    pub(crate) gso: bool,
}

impl Load {
    pub(crate) fn run(self, control: SocketAddr, length: Duration) -> Result<()> {
        ensure!(self.flows > 0, "no flows to send on");
        ensure!(
            (1..=LARGEST).contains(&usize::from(self.size)),
            "a datagram has 1 to {LARGEST} bytes, not {}",
            self.size
        );
        let mut counter = Counter::connect(control)?;
        let sockets = (0..self.flows)
            .map(|_| self.socket())
            .collect::<Result<Vec<_>>>()?;
        let mut sender = Sender::new(self);
        // One after the other first: a forwarder that starts a process for each flow needs it.
        for socket in &sockets {
            socket.send(&sender.payload[..usize::from(self.size)])?;
            std::thread::sleep(Duration::from_millis(1));
        }
        sender.send_for(&sockets, WARM_UP)?;
        let before = counter.ask()?;
        sender.send_for(&sockets, length)?;
        let after = counter.ask()?;
        let seconds = after.seconds - before.seconds;
        let rate = |count: u64| count as f64 / seconds;
        println!(
            "{:.0} {:.0}",
            rate(after.datagrams - before.datagrams),
            rate((after.bytes - before.bytes) * 8)
        );
        Ok(())
    }

    fn socket(self) -> Result<UdpSocket> {
        let any: SocketAddr = if self.to.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(self.to)?;
        if self.gso {
            let size = i32::from(self.size);
            setsockopt(&socket, sockopt::UdpGsoSegment, &size).context("UDP_SEGMENT")?;
        }
        Ok(socket)
    }
}

struct Sender {
    payload: Vec<u8>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Sender {
    fn new(load: Load) -> Self {
        let size = usize::from(load.size);
        let pieces = if load.gso {
            (LARGEST / size).min(SEGMENTS)
        } else {
            1
        };
        Self {
            payload: vec![7; size * pieces],
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    fn send_for(&mut self, sockets: &[UdpSocket], length: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < length {
            for socket in sockets {
                self.send_batch(socket)?;
            }
        }
        Ok(())
    }

    fn send_batch(&mut self, socket: &UdpSocket) -> Result<()> {
        let slices = [[IoSlice::new(&self.payload)]; BATCH];
        let controls: [ControlMessage<'_>; 0] = [];
        let (file, addresses) = (socket.as_raw_fd(), [None; BATCH]);
        let flags = MsgFlags::empty();
        match sendmmsg(file, &mut self.headers, &slices, addresses, controls, flags) {
            // Refused while a forwarder opens the session, or a queue is full: others go on.
            Ok(_) | Err(Errno::ECONNREFUSED | Errno::ENOBUFS | Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("sendmmsg"),
        }
    }
}

/// Asks the server what has arrived.
struct Counter(BufReader<TcpStream>);

impl Counter {
    fn connect(control: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(control).with_context(|| format!("connect to {control}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self) -> Result<Arrived> {
        self.0.get_mut().write_all(b"\n")?;
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .context("ask what has arrived")?;
        line.parse()
    }
}
