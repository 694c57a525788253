//! Speaking to one member of the registry at a time, and to another one when that does not answer.
//!
//! A member that is cut off from the others, or stands still, still accepts connections, and a watch on it says nothing
//! for ever. So whoever hears nothing in time, or hears that there is no leader, raises doubt: then the member is asked how
//! it is, and unless it answers that somebody leads, another one is chosen and all that was under way with it is cut.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::Client;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};
use tower::util::BoxCloneSyncService;
use tracing::{info, warn};

use crate::dial::{Cut, Dialer, Stream};

/// A member that does not say within this how it is is not spoken to, if another one does.
const ANSWERS: Duration = Duration::from_secs(1);

/// Where a member is, and how it is connected to.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    pub(crate) dialer: Option<Dialer>,
}

/// The members, and the one that is spoken to. Clones share it.
#[derive(Clone)]
pub(crate) struct Failover(Arc<Inner>);

struct Inner {
    members: Mutex<Arc<[Member]>>,
    current: Mutex<Current>,
    /// Held by who chooses.
    choosing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Current {
    place: usize,
    line: Line,
    /// How many were chosen before it.
    number: u64,
    doubted: bool,
}

/// A connection that is made when it is needed, until it is cut.
#[derive(Clone)]
struct Line {
    channel: Channel,
    cut: CancellationToken,
}

impl Failover {
    /// Begins with any of `members`, of which there is one at least, so that not all hosts are with the same one.
    pub(crate) fn new(members: Vec<Member>) -> Self {
        let place = rand::random_range(0..members.len());
        let line = Line::to(&members[place]);
        let current = Current {
            place,
            line,
            number: 0,
            doubted: members.len() > 1,
        };
        Self(Arc::new(Inner {
            members: Mutex::new(members.into()),
            current: Mutex::new(current),
            choosing: tokio::sync::Mutex::default(),
        }))
    }

    /// What a client sends its requests by.
    pub(crate) fn channel(&self) -> etcd_client::Channel {
        etcd_client::Channel::Custom(BoxCloneSyncService::new(Way(self.clone())))
    }

    /// Has the member that is spoken to now asked how it is, soon.
    pub(crate) fn doubt(&self) {
        let number = self.current().number;
        self.doubt_number(number);
    }

    fn doubt_number(&self, number: u64) {
        {
            let mut current = self.current();
            if current.number != number || current.doubted {
                return;
            }
            current.doubted = true;
        }
        let failover = self.clone();
        tokio::spawn(async move { failover.settled().await });
    }

    /// Speaks to one of `members` from now on, of which there is one at least.
    pub(crate) async fn move_to(&self, members: Vec<Member>) {
        let _turn = self.0.choosing.lock().await;
        let place = rand::random_range(0..members.len());
        let mut current = self.current();
        current.line.cut.cancel();
        *current = Current {
            place,
            line: Line::to(&members[place]),
            number: current.number + 1,
            doubted: members.len() > 1,
        };
        let known = self.0.members.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = members.into();
    }

    fn members(&self) -> Arc<[Member]> {
        let members = self.0.members.lock();
        Arc::clone(&members.unwrap_or_else(PoisonError::into_inner))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        let current = self.0.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a member that is not in doubt, if there is one.
    async fn settled(&self) -> (Channel, u64) {
        let known = |current: &Current| (current.line.channel.clone(), current.number);
        let before = self.current().clone();
        if !before.doubted {
            return known(&before);
        }
        let seen = before.number;
        let _turn = self.0.choosing.lock().await;
        let before = self.current().clone();
        if !before.doubted || before.number != seen {
            return known(&before); // somebody else has sought meanwhile, found or not
        }
        if leads_somewhere(&before.line).await {
            self.current().doubted = false;
            return known(&before);
        }
        let members = self.members();
        let chosen = choose(&members, before.place).await;
        let mut current = self.current();
        let (place, line, doubted) = match chosen {
            Some((place, line)) => (place, line, false),
            None => (before.place, Line::to(&members[before.place]), true),
        };
        if !doubted && place != before.place {
            let (from, to) = (&members[before.place], &members[place]);
            info!(from = %from.address, to = %to.address, "going on with another member of the registry");
        }
        before.line.cut.cancel();
        *current = Current {
            place,
            line,
            number: before.number + 1,
            doubted,
        };
        known(&current)
    }
}

impl Line {
    fn to(member: &Member) -> Self {
        let cut = CancellationToken::new();
        let connector = Connector {
            address: member.address,
            dialer: member.dialer.clone(),
            cut: cut.clone(),
        };
        let channel = member.endpoint.connect_with_connector_lazy(connector);
        Self { channel, cut }
    }
}

/// The first member to say that somebody leads; of those that do not, none.
async fn choose(members: &[Member], last: usize) -> Option<(usize, Line)> {
    let mut asked = JoinSet::new();
    for (place, member) in members.iter().enumerate() {
        let line = Line::to(member);
        // The one that has just not answered comes after the others.
        let wait = if place == last && members.len() > 1 {
            ANSWERS / 4
        } else {
            Duration::ZERO
        };
        asked.spawn(async move {
            tokio::time::sleep(wait).await;
            leads_somewhere(&line).await.then_some((place, line))
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(panic) => warn!(%panic, "ask a member of the registry"),
        }
    }
    None
}

/// Whether the member at the other end answers, and knows a leader.
async fn leads_somewhere(line: &Line) -> bool {
    let ask = async {
        let channel = etcd_client::Channel::Tonic(line.channel.clone());
        let status = Client::from_channel(channel, None).await?.status().await;
        status.map(|status| status.leader() != 0)
    };
    match tokio::time::timeout(ANSWERS, ask).await {
        Ok(Ok(led)) => led,
        // It answers, but not to anybody; this is not the place to find out who this is.
        Ok(Err(etcd_client::Error::GRpcStatus(status))) => {
            use tonic::Code::{InvalidArgument, PermissionDenied, Unauthenticated};
            [InvalidArgument, PermissionDenied, Unauthenticated].contains(&status.code())
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Sends each request to the member that is spoken to at the time.
#[derive(Clone)]
struct Way(Failover);

impl Service<Request<Body>> for Way {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<Response<Body>, tower::BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let failover = self.0.clone();
        Box::pin(async move {
            let (channel, number) = failover.settled().await;
            let sent = tower::ServiceExt::oneshot(channel, request).await;
            if sent.is_err() {
                failover.doubt_number(number);
            }
            Ok(sent?)
        })
    }
}

struct Connector {
    address: SocketAddr,
    dialer: Option<Dialer>,
    cut: CancellationToken,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Cut>;
    type Error = io::Error;
    type Future = BoxFuture<TokioIo<Cut>, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (dialer, address, cut) = (self.dialer.clone(), self.address, self.cut.clone());
        Box::pin(async move {
            let dialing = async {
                match dialer {
                    Some(dialer) => dialer.dial(address).await,
                    None => {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Ok(Box::new(stream) as Stream)
                    }
                }
            };
            match cut.run_until_cancelled(dialing).await {
                Some(stream) => Ok(TokioIo::new(Cut::new(stream?, cut))),
                None => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        })
    }
}
