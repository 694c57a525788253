//! A listener that is open: its sockets, and what serves them.

use std::io;
use std::net::SocketAddr;
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
    Tcp(Arc<Vec<std::net::TcpListener>>),
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
    task: AbortOnDropHandle<()>,
}

/// Sockets that nothing can keep any more from being served.
pub(crate) struct Prepared {
    sockets: Sockets,
    pub(crate) local: SocketAddr,
    /// Duplicates of TCP's, for the workers to own.
    owned: Vec<std::net::TcpListener>,
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
                let sockets = sys::listen(listen.address, options, port, workers)?;
                Self::Tcp(Arc::new(sockets))
            }
            Protocol::Udp => {
                let socket = udp::listen(listen.address)?;
                Self::Udp(Arc::new(UdpSocket::from_std(socket)?))
            }
        })
    }

    /// Takes all that can fail.
    pub(crate) fn prepare(self) -> io::Result<Prepared> {
        let (local, owned) = match &self {
            Self::Tcp(sockets) => (
                sockets[0].local_addr()?,
                sockets
                    .iter()
                    .map(std::net::TcpListener::try_clone)
                    .collect::<Result<_, _>>()?,
            ),
            Self::Udp(socket) => (socket.local_addr()?, Vec::new()),
        };
        Ok(Prepared {
            sockets: self,
            local,
            owned,
        })
    }
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
}
