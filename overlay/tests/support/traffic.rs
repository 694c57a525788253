use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::within;

/// How long to wait for what shall arrive.
const ARRIVES: Duration = Duration::from_secs(5);

/// How long to wait for what shall not: packets take microseconds here, but a first one that is lost on a busy machine is
/// sent again after a second.
const DROPPED: Duration = Duration::from_millis(1500);

/// A TCP server inside a namespace that tells each client where it comes from.
pub struct Server {
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(netns: &Path) -> Result<Self> {
        Self::start_at(netns, Ipv6Addr::UNSPECIFIED.into())
    }

    pub fn start_at(netns: &Path, address: IpAddr) -> Result<Self> {
        let listener = within(netns, || Ok(TcpListener::bind((address, 0))?))?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let file = std::fs::File::open(netns)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("build a runtime")
                .block_on(serve(listener, stopped));
        });
        Ok(Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

async fn serve(listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("register the listener");
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => {
                let Ok((stream, client)) = accepted else { continue };
                let greeting = client.ip().to_canonical().to_string();
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write_all(greeting.as_bytes()); // the client tells if it fails
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects from inside a namespace. Returns the source address the server saw, or `None` if the
/// packets were dropped.
pub fn reach(netns: &Path, target: Ipv4Addr, port: u16) -> Result<Option<String>> {
    reach_at(netns, (target, port).into())
}

/// [`reach`] of either family.
pub fn reach_at(netns: &Path, target: SocketAddr) -> Result<Option<String>> {
    within(netns, || {
        let mut stream = match TcpStream::connect_timeout(&target, DROPPED) {
            Ok(stream) => stream,
            Err(error) if is_dropped(error.kind()) => return Ok(None),
            Err(error) => return Err(error).context(target),
        };
        stream.set_read_timeout(Some(ARRIVES))?;
        let mut seen = String::new();
        stream.read_to_string(&mut seen)?;
        Ok(Some(seen))
    })
}

fn is_dropped(kind: ErrorKind) -> bool {
    use ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock};
    [TimedOut, WouldBlock, HostUnreachable, NetworkUnreachable].contains(&kind)
}

/// A UDP socket inside a namespace.
pub struct UdpServer {
    socket: UdpSocket,
    pub port: u16,
}

impl UdpServer {
    pub fn start(netns: &Path) -> Result<Self> {
        let socket = within(netns, || Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?))?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port })
    }

    /// In a multicast group, by the link of that index.
    pub fn start_in(netns: &Path, group: Ipv6Addr, link: u32) -> Result<Self> {
        let server = Self::start(netns)?;
        server.socket.join_multicast_v6(&group, link)?;
        Ok(server)
    }

    /// The next datagram's text and source, or `None` if none comes.
    pub fn receive(&self) -> Result<Option<(String, SocketAddr)>> {
        self.socket.set_read_timeout(Some(DROPPED))?;
        let mut buffer = [0; 2048];
        let (length, from) = loop {
            match self.socket.recv_from(&mut buffer) {
                Ok(received) => break received,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_dropped(error.kind()) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Ok(Some((String::from_utf8(buffer[..length].to_vec())?, from)))
    }
}

/// Sends a datagram from inside a namespace, with the source address given.
pub fn send_udp(
    netns: &Path,
    source: impl Into<IpAddr>,
    target: impl Into<SocketAddr>,
    text: &str,
) -> Result<()> {
    let (source, target) = (source.into(), target.into());
    within(netns, || {
        let socket = UdpSocket::bind((source, 0)).with_context(|| format!("bind {source}"))?;
        socket.send_to(text.as_bytes(), target)?;
        Ok(())
    })
}
