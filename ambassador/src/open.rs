//! A listener that is open: its sockets, and what serves them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::running::Running;
use crate::sys::{self, Port};
use crate::tcp::{Closed, Engine};
use crate::{Forward, Listen, Options, Protocol, udp};

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) running: Arc<Running>,
    pub(crate) sockets: Sockets,
    serving: Serving,
}

/// What was bound for a listener.
#[derive(Clone, Debug)]
pub(crate) enum Sockets {
    /// One for each worker, or as many as a predecessor had; they share the port.
    Tcp(Vec<Arc<TcpListener>>),
    Udp(Arc<UdpSocket>),
}

#[derive(Debug)]
enum Serving {
    Tcp(Closed),
    Udp(AbortOnDropHandle<()>),
}

/// A UDP forward that was removed while sessions went on, which need the socket.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) listen: Listen,
    pub(crate) socket: Weak<UdpSocket>,
    running: Weak<Running>,
    task: AbortOnDropHandle<()>,
}

/// Sockets that nothing can keep any more from being served.
pub(crate) struct Prepared {
    sockets: Sockets,
    pub(crate) local: SocketAddr,
    /// Duplicates of TCP's, for the workers to own.
    owned: Vec<TcpListener>,
}

impl Sockets {
    pub(crate) fn bind(
        listen: Listen,
        options: &Options,
        port: Port,
        workers: usize,
    ) -> io::Result<Self> {
        Ok(match listen.protocol {
            Protocol::Tcp => {
                let sockets = sys::listen(listen, options, port, workers)?;
                Self::Tcp(sockets.into_iter().map(Arc::new).collect())
            }
            Protocol::Udp => {
                let socket = udp::listen(listen, port)?;
                Self::Udp(Arc::new(UdpSocket::from_std(socket)?))
            }
        })
    }

    /// Takes over what another process has bound; at least one socket.
    pub(crate) fn adopt(protocol: Protocol, mut passed: Vec<OwnedFd>) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(listeners(passed).collect()),
            Protocol::Udp => {
                let socket = std::net::UdpSocket::from(passed.remove(0));
                socket.set_nonblocking(true)?;
                Self::Udp(Arc::new(UdpSocket::from_std(socket)?))
            }
        })
    }

    /// More of the same listener. UDP has but one.
    pub(crate) fn add(&mut self, passed: Vec<OwnedFd>) {
        if let Self::Tcp(sockets) = self {
            sockets.extend(listeners(passed));
        }
    }

    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Tcp(sockets) => sockets.iter().map(AsFd::as_fd).collect(),
            Self::Udp(socket) => vec![socket.as_fd()],
        }
    }

    /// Takes all that can fail.
    pub(crate) fn prepare(self, workers: usize) -> io::Result<Prepared> {
        let mut owned = Vec::new();
        let local = match &self {
            Self::Tcp(sockets) => {
                // Each has a worker, and each worker has one, though a predecessor may have had
                // fewer workers: of a socket that is added nobody could say who waits at it, if
                // this process were to end before its predecessor.
                let most = sockets.len().max(workers);
                for socket in sockets.iter().cycle().take(most) {
                    owned.push(socket.try_clone()?);
                }
                sockets[0].local_addr()?
            }
            Self::Udp(socket) => socket.local_addr()?,
        };
        Ok(Prepared {
            sockets: self,
            local,
            owned,
        })
    }
}

fn listeners(passed: Vec<OwnedFd>) -> impl Iterator<Item = Arc<TcpListener>> {
    passed.into_iter().map(TcpListener::from).map(Arc::new)
}

impl Prepared {
    pub(crate) fn serve(self, engine: &Engine, running: Arc<Running>) -> Listener {
        let serving = match &self.sockets {
            Sockets::Tcp(_) => Serving::Tcp(engine.serve(self.owned, &running)),
            Sockets::Udp(socket) => {
                let serving = tokio::spawn(udp::serve(socket.clone(), running.clone()));
                Serving::Udp(AbortOnDropHandle::new(serving))
            }
        };
        Listener {
            running,
            sockets: self.sockets,
            serving,
        }
    }
}

impl Listener {
    pub(crate) fn serves(&self, forward: &Forward) -> bool {
        self.running.listen == forward.listen && *self.running.name == *forward.name
    }

    /// Whether a socket for `listen` would compete with this one.
    pub(crate) fn overlaps(&self, listen: Listen) -> bool {
        let (own, other) = (self.running.local, listen.address);
        self.running.listen.protocol == listen.protocol
            && own.port() == other.port()
            && (own.ip().is_unspecified()
                || other.ip().is_unspecified()
                || own.ip().to_canonical() == other.ip().to_canonical())
    }

    /// Takes no more newcomers. Flows and sessions go on.
    pub(crate) fn retire(self) -> Retired {
        self.running.closed.cancel();
        match (self.serving, self.sockets) {
            (Serving::Udp(task), Sockets::Udp(socket)) => Retired::Udp(Draining {
                listen: self.running.listen,
                socket: Arc::downgrade(&socket),
                running: Arc::downgrade(&self.running),
                task,
            }),
            (Serving::Tcp(closed), _) => Retired::Tcp(self.running, closed),
            (Serving::Udp(_), Sockets::Tcp(_)) => unreachable!("UDP is served from one socket"),
        }
    }
}

/// What is left of a listener that takes no newcomers.
pub(crate) enum Retired {
    /// Closed as soon as that resolves.
    Tcp(Arc<Running>, Closed),
    Udp(Draining),
}

impl Draining {
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Nothing keeps it open any more, but it is not closed yet.
    pub(crate) fn is_ending(&self) -> bool {
        let running = self.running.upgrade();
        !self.is_over() && running.is_none_or(|running| running.open.now() == 0)
    }
}
