//! Takes datagrams and counts them.

use std::fmt;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt,
};

use super::UDP;

const BATCH: usize = 32;
const LARGEST: usize = 64 << 10;
/// Enough for a thread that does not get a core for some milliseconds.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket, and what has arrived at it.
#[derive(Debug)]
pub(crate) struct Sink {
    socket: UdpSocket,
    begun: Instant,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

/// What has arrived up to a moment of the server's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrived {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Sink {
    pub(crate) fn bind(address: IpAddr) -> Result<Self> {
        let local = SocketAddr::new(address, UDP);
        let socket = UdpSocket::bind(local).with_context(|| format!("bind udp://{local}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
        // The sink must not be what is measured: datagrams of one flow may come in one piece.
        setsockopt(&socket, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
        Ok(Self {
            socket,
            begun: Instant::now(),
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Takes datagrams for ever.
    pub(crate) fn run(&self) -> Result<()> {
        let mut buffers = vec![vec![0; LARGEST]; BATCH];
        loop {
            // Anew each time: nix leaves the room for control messages as small as the last one.
            let space = Some(nix::cmsg_space!(i32));
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, space);
            let mut slices: Vec<_> = (buffers.iter_mut())
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            let (file, slices) = (self.socket.as_raw_fd(), slices.iter_mut());
            let received = match recvmmsg(file, &mut headers, slices, flags, None) {
                Err(nix::errno::Errno::EINTR) => continue,
                received => received.context("recvmmsg")?,
            };
            let (mut datagrams, mut bytes) = (0, 0);
            for message in received {
                let piece = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                });
                datagrams += message
                    .bytes
                    .div_ceil(piece.unwrap_or(LARGEST).max(1))
                    .max(1);
                bytes += message.bytes;
            }
            self.datagrams
                .fetch_add(datagrams as u64, Ordering::Relaxed);
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn arrived(&self) -> Arrived {
        Arrived {
            datagrams: self.datagrams.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            seconds: self.begun.elapsed().as_secs_f64(),
        }
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.datagrams, self.bytes, self.seconds)
    }
}

impl FromStr for Arrived {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let wrong = || format!("{line:?} is not what a server tells: datagrams, bytes, seconds");
        let mut words = line.split_whitespace();
        Ok(Self {
            datagrams: words
                .next()
                .with_context(wrong)?
                .parse()
                .with_context(wrong)?,
            bytes: words
                .next()
                .with_context(wrong)?
                .parse()
                .with_context(wrong)?,
            seconds: words
                .next()
                .with_context(wrong)?
                .parse()
                .with_context(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_is_understood() -> Result<()> {
        let arrived = Arrived {
            datagrams: 3,
            bytes: 4_200,
            seconds: 0.25,
        };
        assert_eq!(arrived.to_string().parse::<Arrived>()?, arrived);
        assert!("3 4200".parse::<Arrived>().is_err());
        Ok(())
    }
}
