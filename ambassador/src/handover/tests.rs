#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsFd, OwnedFd};

use super::channel::Door;
use super::*;

/// What a successor makes of a predecessor that says this, and then goes.
async fn claim(said: Vec<(Message, Vec<OwnedFd>)>) -> Result<Heritage, HandoverError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let door = Door::bind(&path).unwrap();
    let predecessor = async {
        let channel = door.accept().await.unwrap();
        for (message, sockets) in said {
            let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            channel.send(&message, &sockets).await.unwrap();
        }
    };
    tokio::join!(predecessor, Heritage::claim(&path)).1
}

fn hello(listeners: usize) -> (Message, Vec<OwnedFd>) {
    let version = VERSION;
    (Message::Hello { version, listeners }, Vec::new())
}

fn listener(protocol: Transport, sockets: Vec<OwnedFd>) -> (Message, Vec<OwnedFd>) {
    let named = Named {
        name: "a".into(),
        protocol,
        address: "127.0.0.1:0".parse().unwrap(),
        only_v6: false,
    };
    (Message::Listener(named), sockets)
}

fn tcp() -> OwnedFd {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()
}

fn udp() -> OwnedFd {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

#[tokio::test]
async fn a_listener_may_come_in_pieces() {
    let said = vec![
        hello(3),
        listener(Transport::Tcp, vec![tcp(), tcp()]),
        listener(Transport::Tcp, vec![tcp()]),
        listener(Transport::Udp, vec![udp()]),
    ];
    let heritage = claim(said).await.unwrap();
    let sockets: Vec<_> = (heritage.listeners.iter())
        .map(|listener| listener.sockets.descriptors().len())
        .collect();
    assert_eq!(sockets, [3, 1]);
}

#[tokio::test]
async fn another_version_is_named() {
    let (version, listeners) = (VERSION + 1, 0);
    let said = vec![(Message::Hello { version, listeners }, Vec::new())];
    let error = claim(said).await.unwrap_err();
    assert!(
        matches!(error, HandoverError::Version { theirs } if theirs == version),
        "{error}"
    );
}

#[tokio::test]
async fn sockets_of_another_kind_are_refused() {
    for sockets in [
        listener(Transport::Tcp, vec![]),
        listener(Transport::Tcp, vec![tcp(), udp()]),
        listener(Transport::Udp, vec![tcp()]),
    ] {
        let error = claim(vec![hello(1), sockets]).await.unwrap_err();
        assert!(matches!(error, HandoverError::Unexpected { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_predecessor_that_breaks_off_is_an_error() {
    for said in [
        vec![],
        vec![hello(2), listener(Transport::Udp, vec![udp()])],
    ] {
        let error = claim(said).await.unwrap_err();
        assert!(matches!(error, HandoverError::Broken { .. }), "{error}");
    }
    for wrong in [Message::Accepting, hello(MOST_LISTENERS + 1).0] {
        let error = claim(vec![(wrong, Vec::new())]).await.unwrap_err();
        assert!(matches!(error, HandoverError::Unexpected { .. }), "{error}");
    }
    let nowhere = Heritage::claim(Path::new("/nonexistent/door")).await;
    let error = nowhere.unwrap_err();
    assert!(
        matches!(error, HandoverError::Unreachable { .. }),
        "{error}"
    );
}
