use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::reply::Transport;

/// Clients ask again after five seconds; by then two upstreams have had their turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the upstreams one after the other, and returns the first answer as it came.
///
/// The query is passed on as it is, whatever it asks for; only its id is drawn anew, so that who does
/// not see it cannot forge the answer.
pub(super) async fn forward(
    upstreams: &[SocketAddr],
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let id = RandomState::new().hash_one(query).to_be_bytes();
    let mut own = query.to_vec();
    own.get_mut(..2)?.copy_from_slice(&id[..2]);
    for upstream in upstreams {
        let asked = match transport {
            Transport::Udp => timeout(PATIENCE, over_udp(*upstream, &own)).await,
            Transport::Tcp => timeout(PATIENCE, over_tcp(*upstream, &own)).await,
        };
        match asked {
            Ok(Ok(mut answer)) => {
                answer.get_mut(..2)?.copy_from_slice(&query[..2]);
                return Some(answer);
            }
            Ok(Err(error)) => tracing::debug!(%upstream, %error, "ask an upstream name server"),
            Err(_) => tracing::debug!(%upstream, "an upstream name server did not answer in time"),
        }
    }
    None
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

/// Over TCP a message follows its length (RFC 1035 §4.2.2).
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
