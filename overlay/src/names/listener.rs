use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use super::{
    Subscriber,
    counts::Counts,
    forward::{forward, read_message, write_message},
    lookup::Table,
    reply::{Instead, Reply, Transport, reply, without_authority},
    server::ListenError,
    upstreams::Late,
};
use crate::netns::{NetNs, identity_at};

/// Where Docker's containers find their name server.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Queries of one container that may wait for an upstream at once; further ones fail at once.
const FORWARDS: usize = 64;

/// TCP connections of one container at once; further ones wait to be accepted.
const CONNECTIONS: usize = 32;

/// How long a TCP connection may be without a query.
const IDLE: Duration = Duration::from_secs(10);

/// After a failure such as EMFILE, which passes.
const BACKOFF: Duration = Duration::from_millis(200);

/// The table, replaced whole.
pub(super) type Shared = Arc<RwLock<Arc<Table>>>;

/// One container's sockets; they close soon after this is dropped.
pub(super) struct Listener {
    address: SocketAddr,
    namespace: (u64, u64),
    stop: CancellationToken,
    tasks: [AbortOnDropHandle<()>; 2],
}

impl Listener {
    /// Opens a subscriber's sockets, inside its namespace.
    pub(super) async fn open(asker: Asker, subscriber: &Subscriber) -> Result<Self, ListenError> {
        let (netns, address) = (&subscriber.netns, address_of(subscriber));
        let namespace = NetNs::open(netns)?;
        let (udp, tcp) =
            sockets(&namespace, address)
                .await
                .map_err(|source| ListenError::Bind {
                    address,
                    netns: netns.to_owned(),
                    source,
                })?;
        let identity = namespace.identity().map_err(|source| ListenError::Bind {
            address,
            netns: netns.to_owned(),
            source,
        })?;
        let stop = CancellationToken::new();
        let udp = tokio::spawn(serve_udp(udp, asker.clone(), stop.clone()));
        let tcp = tokio::spawn(serve_tcp(tcp, asker, stop.clone()));
        Ok(Self {
            address,
            namespace: identity,
            stop,
            tasks: [AbortOnDropHandle::new(udp), AbortOnDropHandle::new(tcp)],
        })
    }

    /// Closes the sockets, so that their address is free when this returns.
    pub(super) async fn close(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                warn!(%error, "a name server's task ended badly");
            }
        }
    }

    /// Whether these sockets are still where the subscriber is.
    pub(super) fn is_of(&self, subscriber: &Subscriber) -> bool {
        self.address == address_of(subscriber)
            && identity_at(&subscriber.netns) == Some(self.namespace)
    }
}

fn address_of(subscriber: &Subscriber) -> SocketAddr {
    subscriber.listen.unwrap_or(SocketAddr::V4(ADDRESS))
}

async fn sockets(namespace: &NetNs, address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let bound = namespace.run(move || {
        let udp = std::net::UdpSocket::bind(address)?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        io::Result::Ok((udp, tcp))
    });
    let (udp, tcp) = bound.await??;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

/// One container, as its sockets see it.
#[derive(Clone)]
pub(super) struct Asker {
    id: Arc<str>,
    table: Shared,
    late: Late,
    counts: Counts,
    forwards: Arc<Semaphore>,
}

impl Asker {
    pub(super) fn new(id: &str, table: Shared, late: Late, counts: Counts) -> Self {
        Self {
            id: id.into(),
            table,
            late,
            counts,
            forwards: Arc::new(Semaphore::new(FORWARDS)),
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn reply(&self, query: &[u8], transport: Transport) -> Reply {
        reply(&self.table(), &self.id, query, transport)
    }

    /// What upstreams say to a query that came at `began`.
    async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        instead: Instead,
        began: Instant,
    ) -> Vec<u8> {
        let answer = self.ask(query, transport, instead).await;
        self.counts.note(&answer, true, began);
        answer
    }

    async fn ask(&self, query: &[u8], transport: Transport, instead: Instead) -> Vec<u8> {
        let Instead {
            otherwise,
            may_be_ours,
        } = instead;
        let Ok(_permit) = self.forwards.try_acquire() else {
            debug!(container = %self.id, "too many name queries at once");
            return otherwise;
        };
        let upstreams = self.table().upstreams_of(&self.id).to_vec();
        match forward(&upstreams, &self.late, query, transport).await {
            Some(answer) if may_be_ours => without_authority(answer),
            Some(answer) => answer,
            None => otherwise,
        }
    }
}

async fn serve_udp(socket: UdpSocket, asker: Asker, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = waiting.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (query, client) = match received {
            Ok((length, client)) => (&buffer[..length], client),
            Err(error) => {
                warn!(container = %asker.id, %error, "receive a name query");
                sleep(BACKOFF).await;
                continue;
            }
        };
        let began = Instant::now();
        match asker.reply(query, Transport::Udp) {
            Reply::Silence => {}
            Reply::Now(answer) => {
                asker.counts.note(&answer, false, began);
                send(&socket, &answer, client).await;
            }
            Reply::Forward(instead) => {
                let (asker, socket, query) = (asker.clone(), socket.clone(), query.to_vec());
                waiting.spawn(async move {
                    let answer = asker.forward(&query, Transport::Udp, instead, began).await;
                    send(&socket, &answer, client).await;
                });
            }
        }
    }
    waiting.shutdown().await; // they hold the socket too
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        debug!(%client, %error, "send an answer"); // the client asks again
    }
}

async fn serve_tcp(listener: TcpListener, asker: Asker, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, asker.clone()));
                }
                Err(error) => {
                    warn!(container = %asker.id, %error, "accept a name query");
                    sleep(BACKOFF).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Answers one query after the other, until the client closes or sends none for a while.
async fn serve_connection(mut stream: TcpStream, asker: Asker) {
    while let Ok(Ok(query)) = timeout(IDLE, read_message(&mut stream)).await {
        let began = Instant::now();
        let answer = match asker.reply(&query, Transport::Tcp) {
            Reply::Silence => return,
            Reply::Now(answer) => {
                asker.counts.note(&answer, false, began);
                answer
            }
            Reply::Forward(instead) => asker.forward(&query, Transport::Tcp, instead, began).await,
        };
        if !matches!(
            timeout(IDLE, write_message(&mut stream, &answer)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}
