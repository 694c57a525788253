use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{reply::Transport, upstreams::Late};

/// Clients ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// After which the next upstream is asked as well.
const TURN: Duration = Duration::from_secs(1);

/// Asks the upstreams one after the other, and returns the first answer as it came. Who refuses or fails to answer is
/// believed only if nobody else answers.
///
/// The query is passed on as it is, whatever it asks for; only its id is drawn anew, so that who does
/// not see it cannot forge the answer.
pub(super) async fn forward(
    upstreams: &[SocketAddr],
    late: &Late,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let id = RandomState::new().hash_one(query).to_be_bytes();
    let mut own = query.to_vec();
    own.get_mut(..2)?.copy_from_slice(&id[..2]);
    let upstreams = late.last(upstreams);
    let mut poor = None;
    let asked = timeout(PATIENCE, ask(&upstreams, late, &own, transport, &mut poor)).await;
    let mut answer = asked.ok().flatten().or(poor)?;
    answer.get_mut(..2)?.copy_from_slice(&query[..2]);
    Some(answer)
}

/// The first answer that says something; one that does not is left in `poor`.
async fn ask(
    upstreams: &[SocketAddr],
    late: &Late,
    query: &[u8],
    transport: Transport,
    poor: &mut Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut waiting = FuturesUnordered::new();
    let mut upstreams = upstreams.iter().copied();
    let mut newest = None;
    loop {
        if let Some(upstream) = upstreams.next() {
            newest = Some(upstream);
            waiting.push(async move { (upstream, ask_one(upstream, query, transport).await) });
        } else if waiting.is_empty() {
            return None;
        }
        let answered = match upstreams.len() {
            0 => waiting.next().await,
            _ => match timeout(TURN, waiting.next()).await {
                Ok(answered) => answered,
                Err(_) => {
                    newest.inspect(|upstream| late.note(*upstream, false));
                    continue;
                }
            },
        };
        match answered {
            Some((upstream, Ok(answer))) => {
                late.note(upstream, true);
                if !is_refusal(&answer) {
                    return Some(answer);
                }
                poor.get_or_insert(answer);
            }
            Some((upstream, Err(error))) => {
                late.note(upstream, false);
                tracing::debug!(%upstream, %error, "ask an upstream name server");
            }
            None => return None,
        }
    }
}

async fn ask_one(upstream: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    match transport {
        Transport::Udp => over_udp(upstream, query).await,
        Transport::Tcp => over_tcp(upstream, query).await,
    }
}

async fn over_udp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer_to(&answer[..length], query) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_message(&mut stream, query).await?;
    let answer = read_message(&mut stream).await?;
    if is_answer_to(&answer, query) {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is to another query",
        ))
    }
}

/// Same id, and marked as an answer.
fn is_answer_to(answer: &[u8], query: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == query[..2] && answer[2] & 0x80 != 0
}

/// It says that the server cannot or will not tell (RFC 1035 §4.1.1: SERVFAIL, REFUSED), which says nothing of the name.
fn is_refusal(answer: &[u8]) -> bool {
    answer
        .get(3)
        .is_some_and(|flags| matches!(flags & 0xf, 2 | 5))
}

/// Over TCP a message follows its length (RFC 1035 §4.2.2).
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
