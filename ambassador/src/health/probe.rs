//! One check of one endpoint.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Check, CheckKind};

/// Bytes of a reply that are looked at.
const LARGEST_REPLY: usize = 4 << 10;
/// Bytes of a reply that are shown.
const SHOWN: usize = 48;

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no result within {0:?}")]
    Late(Duration),
    #[error("connect to {address}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("ask {address}")]
    Ask {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the reply is not HTTP/1: \"{got}\"")]
    NotHttp {
        got: String,
        source: httparse::Error,
    },
    #[error("the reply ends before its status: \"{0}\"")]
    NoStatus(String),
    #[error("HTTP status {got} is not within {low} to {high}")]
    Status { got: u16, low: u16, high: u16 },
    #[error("no \"{expected}\" has come within {LARGEST_REPLY} bytes, but \"{got}\"")]
    Unexpected { expected: String, got: String },
}

impl Fault {
    /// With its causes, in one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// What the system said, if anything.
    pub(super) fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Connect { source, .. } | Self::Ask { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Asks once. The connection is reset at the end, which leaves nothing behind on this host.
pub(super) async fn probe(check: &Check, endpoint: SocketAddr) -> Result<(), Fault> {
    let port = check.port.map_or(endpoint.port(), NonZeroU16::get);
    let address = SocketAddr::new(endpoint.ip(), port);
    let mut reply = Vec::new();
    let asking = async {
        let connected = connect(address).await;
        let mut stream = connected.map_err(|source| Fault::Connect { address, source })?;
        ask(&check.kind, &mut stream, address, &mut reply).await
    };
    let asked = timeout(check.timeout, asking).await;
    asked.unwrap_or_else(|_| Err(late(check, &reply)))
}

/// What has come until then says more than that it was not enough.
fn late(check: &Check, reply: &[u8]) -> Fault {
    match judge(&check.kind, reply) {
        Answer::More(fault) if !reply.is_empty() => fault,
        _ => Fault::Late(check.timeout),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A connect to a free port of the ephemeral range can meet itself.
    if address.ip().is_loopback() && stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

async fn ask(
    kind: &CheckKind,
    stream: &mut TcpStream,
    address: SocketAddr,
    reply: &mut Vec<u8>,
) -> Result<(), Fault> {
    if matches!(kind, CheckKind::Tcp) {
        return Ok(());
    }
    let failed = |source| Fault::Ask { address, source };
    let question = question(kind, address);
    stream.write_all(&question).await.map_err(failed)?;
    loop {
        let fault = match judge(kind, reply) {
            Answer::Well => return Ok(()),
            Answer::Fault(fault) => return Err(fault),
            Answer::More(fault) => fault,
        };
        let mut rest = (&mut *stream).take((LARGEST_REPLY - reply.len()) as u64);
        if rest.read_buf(reply).await.map_err(failed)? == 0 {
            return Err(fault);
        }
    }
}

fn question(kind: &CheckKind, address: SocketAddr) -> Vec<u8> {
    match kind {
        CheckKind::Tcp => Vec::new(),
        CheckKind::Http { path, host, .. } => {
            let host = host.clone().unwrap_or_else(|| address.to_string());
            let get = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
            format!("{get}User-Agent: nuncio\r\nConnection: close\r\n\r\n").into()
        }
        CheckKind::SendExpect { send, .. } => send.clone(),
    }
}

fn judge(kind: &CheckKind, reply: &[u8]) -> Answer {
    match kind {
        CheckKind::Tcp => Answer::Well,
        CheckKind::Http { status, .. } => http(reply, *status.start(), *status.end()),
        CheckKind::SendExpect { expect, .. } => contains(reply, expect),
    }
}

/// What a reply says so far.
enum Answer {
    Well,
    Fault(Fault),
    /// Nothing yet; that is what is wrong if no more comes.
    More(Fault),
}

fn http(reply: &[u8], low: u16, high: u16) -> Answer {
    // The status is all that is wanted: without room for headers, parsing ends at the first.
    let mut headers = [];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(reply);
    match (response.code, parsed) {
        (Some(got), _) if (low..=high).contains(&got) => Answer::Well,
        (Some(got), _) => Answer::Fault(Fault::Status { got, low, high }),
        (None, Err(source)) => Answer::Fault(Fault::NotHttp {
            got: shown(reply),
            source,
        }),
        (None, Ok(_)) => Answer::More(Fault::NoStatus(shown(reply))),
    }
}

fn contains(reply: &[u8], expect: &[u8]) -> Answer {
    if reply
        .windows(expect.len().max(1))
        .any(|part| part == expect)
    {
        return Answer::Well;
    }
    Answer::More(Fault::Unexpected {
        expected: shown(expect),
        got: shown(reply),
    })
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let rest = if bytes.len() > SHOWN { ".." } else { "" };
    format!("{text}{rest}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn status(reply: &[u8]) -> Result<(), String> {
        match http(reply, 200, 399) {
            Answer::Well => Ok(()),
            Answer::Fault(fault) => Err(fault.chain()),
            Answer::More(fault) => Err(format!("more: {fault}")),
        }
    }

    #[test]
    fn a_status_is_judged_as_soon_as_it_is_known() {
        let reply = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n";
        for end in 0..=reply.len() {
            let judged = status(&reply[..end]);
            assert!(judged.is_ok() || judged.unwrap_err().starts_with("more"));
        }
        assert_eq!(status(reply), Ok(()));
        assert_eq!(status(b"HTTP/1.0 302 Found\r\n"), Ok(()));
        let fault = status(b"HTTP/1.1 500 Oops\r\nA: b\r\n\r\n").unwrap_err();
        assert_eq!(fault, "HTTP status 500 is not within 200 to 399");
        let fault = status(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap_err();
        assert!(
            fault.contains("not HTTP/1: \"SSH-2.0-OpenSSH_9.2\\r\\n\""),
            "{fault}"
        );
    }

    #[test]
    fn what_is_expected_may_come_anywhere() {
        assert!(matches!(
            contains(b"*\r\n+PONG\r\n", b"+PONG"),
            Answer::Well
        ));
        let Answer::More(fault) = contains(b"-NOAUTH \xff", b"+PONG") else {
            panic!("nothing yet");
        };
        let fault = fault.to_string();
        assert!(
            fault.contains("no \"+PONG\"") && fault.contains("\"-NOAUTH \\xff\""),
            "{fault}"
        );
    }

    proptest! {
        #[test]
        fn no_reply_panics(reply in prop::collection::vec(any::<u8>(), 0..200), begin: bool) {
            let mut whole = if begin { b"HTTP/1.1 2".to_vec() } else { Vec::new() };
            whole.extend(reply);
            let _ = status(&whole);
            let _ = contains(&whole, b"ab");
        }
    }
}
