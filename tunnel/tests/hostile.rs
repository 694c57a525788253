//! What strangers send is counted and does nothing, and what is no request is refused in words.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nuncio_tunnel::{
    AskError, KeyRing, LinkDocument, PeerDocument, PrivateKey, Tunnel, TunnelDocument, ask,
};

/// Far above what anything here takes.
const SOON: Duration = Duration::from_secs(60);

fn unreadable(tunnel: &Tunnel) -> u64 {
    tunnel.status().expect("a status").dropped["unreadable"]
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not so after {SOON:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn tunnel() -> Tunnel {
    Tunnel::open("127.0.0.1:0".parse().expect("an address")).expect("open a tunnel")
}

#[test]
fn whatever_a_stranger_sends_is_counted() {
    let (tunnel, stranger) = (tunnel(), UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let address = tunnel.status().expect("a status").listen;
    let document = TunnelDocument {
        peers: vec![PeerDocument {
            id: "peer".to_owned(),
            endpoint: "127.0.0.1:9".parse().expect("an address"),
            keys: vec![PrivateKey::generate().public()],
            blocks: vec!["10.1.2.0/24".parse().expect("a block")],
        }],
        links: Vec::new(),
    };
    tunnel
        .configure(&document, &KeyRing::generate())
        .expect("configure");
    let mut state = 1u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    // Of each kind of message, of each length up to beyond the longest that is fixed, with an index that is taken.
    let mut sent = 0;
    for kind in 0..=5 {
        for length in 1..=200 {
            let mut message: Vec<u8> = std::iter::repeat_with(&mut byte).take(length).collect();
            let head = [kind, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0];
            let known = head.len().min(length);
            message[..known].copy_from_slice(&head[..known]);
            stranger.send_to(&message, address).expect("send");
            sent += 1;
            wait_until("it is counted", || unreadable(&tunnel) == sent);
        }
    }
    let status = tunnel.status().expect("a status");
    assert_eq!((status.peers[0].using, status.peers[0].received), (None, 0));
}

#[test]
fn what_is_no_request_is_refused_and_the_next_is_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, keys) = (directory.path().join("c"), directory.path().join("keys"));
    let listener = UnixListener::bind(&path).expect("listen");
    let tunnel = Arc::new(tunnel());
    let (obeying, read) = (Arc::clone(&tunnel), keys.clone());
    thread::spawn(move || obeying.obey(&listener, &read));

    let mut stream = UnixStream::connect(&path).expect("connect");
    for line in [
        "",
        "{",
        "[]",
        "{\"configure\":{\"peers\":[],\"links\":[],\"more\":1}}",
    ] {
        writeln!(stream, "{line}").expect("write");
        let mut answer = String::new();
        BufReader::new(&stream)
            .read_line(&mut answer)
            .expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{line}: {answer}");
    }
    let listens = tunnel.status().expect("a status").listen;
    assert_eq!(ask(&stream, None).expect("a status").listen, listens);

    // Without keys, or without the device, it says which.
    let mut document = TunnelDocument::default();
    let refused = ask(&stream, Some(&document));
    assert!(
        matches!(&refused, Err(AskError::Refused(why)) if why.contains("keys")),
        "{refused:?}"
    );
    let ring = serde_json::to_vec(&KeyRing::generate()).expect("serialise");
    std::fs::write(&keys, ring).expect("write");
    ask(&stream, Some(&document)).expect("nothing to carry");
    document.links.push(LinkDocument {
        name: "nuncio-none".to_owned(),
        subnets: Vec::new(),
        mtu: 1440,
    });
    let refused = ask(&stream, Some(&document));
    assert!(
        matches!(&refused, Err(AskError::Refused(why)) if why.contains("nuncio-none: No such device")),
        "{refused:?}"
    );
}
