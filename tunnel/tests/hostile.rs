//! What strangers send is counted and does nothing, and what is no request is refused in words.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nuncio_tunnel::{
    AskError, FallbackDocument, FallbackStatus, IdentityKey, KeyRing, LinkDocument, PeerDocument,
    PrivateKey, Tunnel, TunnelDocument, ask,
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
    let address = "127.0.0.1:0".parse().expect("an address");
    Tunnel::open(address, address).expect("open a tunnel")
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
            fallback: None,
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
    for kind in [0, 1, 2, 3, 4, 7] {
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
    // A probe is answered with what it asks, and a longer one is none.
    stranger
        .set_read_timeout(Some(SOON))
        .expect("set a timeout");
    stranger
        .send_to(&[5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], address)
        .expect("send");
    stranger
        .send_to(&[5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], address)
        .expect("send");
    let mut answer = [0; 64];
    let length = stranger.recv(&mut answer).expect("an answer");
    assert_eq!(answer[..length], [6, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(unreadable(&tunnel), sent + 1);
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
    for line in ["", "{", "[]", "{\"configure\":{\"peers\":[]}}"] {
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
        sealed: true,
    });
    let refused = ask(&stream, Some(&document));
    assert!(
        matches!(&refused, Err(AskError::Refused(why)) if why.contains("nuncio-none: No such device")),
        "{refused:?}"
    );
}

/// Ports from which connections to `address` are open.
fn open_to(address: SocketAddr) -> BTreeSet<u16> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let port = |end: &str| u16::from_str_radix(end.split(':').nth(1)?, 16).ok();
    let open = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (from, to, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == "01" && port(to) == Some(address.port())).then(|| port(from))?
    });
    open.collect()
}

/// A host that takes connections of TLS.
struct TlsHost {
    tunnel: Tunnel,
    ring: KeyRing,
    listens: SocketAddr,
}

impl TlsHost {
    fn at(address: &str) -> Self {
        let address = format!("{address}:0").parse().expect("an address");
        let tunnel = Tunnel::open(address, address).expect("open a tunnel");
        let listens = || tunnel.status().expect("a status").fallback;
        wait_until("it listens", || listens().is_some());
        Self {
            listens: listens().expect("it listens"),
            tunnel,
            ring: KeyRing::generate(),
        }
    }

    fn key(&self) -> IdentityKey {
        self.ring.identity_keys()[0]
    }

    /// Knows `other` by `key` from now on, and sends to it if `wanted`.
    fn know(&self, other: &Self, key: IdentityKey, wanted: bool) {
        self.know_by(other, &[key], wanted);
    }

    /// The same by several keys, the newest first.
    fn know_by(&self, other: &Self, keys: &[IdentityKey], wanted: bool) {
        let peer = PeerDocument {
            id: "peer".to_owned(),
            endpoint: "127.0.0.1:9".parse().expect("an address"),
            keys: Vec::new(),
            blocks: Vec::new(),
            fallback: Some(FallbackDocument {
                endpoint: other.listens,
                key: keys[0],
                former: keys.get(1).copied(),
                wanted,
            }),
        };
        let document = TunnelDocument {
            peers: vec![peer],
            links: Vec::new(),
        };
        let configured = self.tunnel.configure(&document, &self.ring);
        configured.expect("configure");
    }

    fn peer(&self) -> FallbackStatus {
        let status = self.tunnel.status().expect("a status");
        status.peers[0].fallback.clone().expect("a way by TLS")
    }

    fn strangers(&self) -> u64 {
        self.tunnel.status().expect("a status").dropped["strangers"]
    }
}

#[test]
fn by_tls_nobody_comes_in_but_who_proves_to_be_a_peer() {
    let (a, b) = (TlsHost::at("127.0.0.1"), TlsHost::at("127.0.0.2"));
    b.know(&a, a.key(), false);
    a.know(&b, b.key(), true);
    wait_until("a peer is let in", || {
        a.peer().connected && b.peer().serving
    });
    assert!(!a.peer().serving && !b.peer().connected);
    assert_eq!(b.strangers(), 0);

    // Who has a peer's address, but not its key; and who takes another one for the peer.
    let impostor = TlsHost::at("127.0.0.1");
    impostor.know(&b, b.key(), true);
    wait_until("the impostor is refused, again and again", || {
        b.strangers() >= 3
    });
    assert!(!impostor.peer().connected);
    let before = b.strangers();
    a.know(&b, impostor.key(), true);
    wait_until("the wrong host is not sent to", || {
        b.strangers() >= before + 3
    });
    assert!(!a.peer().connected);
    drop(impostor);

    // What is no TLS is hung up on, and so is who connects without end.
    let before = b.strangers();
    let mut noise = TcpStream::connect(b.listens).expect("connect");
    noise.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    noise.set_read_timeout(Some(SOON)).expect("set a timeout");
    let mut alert = Vec::new();
    let _ = noise.read_to_end(&mut alert); // or it is reset
    wait_until("it is counted", || b.strangers() > before);
    let before = b.strangers();
    let silent = || TcpStream::connect(b.listens).expect("connect");
    let crowd: Vec<_> = std::iter::repeat_with(silent).take(40).collect();
    wait_until("most of them are refused", || b.strangers() >= before + 20);
    drop(crowd);

    a.know(&b, b.key(), true);
    wait_until("the peer is let in again", || a.peer().connected);
    // Who is known no more is hung up on.
    b.know(&a, KeyRing::generate().identity_keys()[0], false);
    wait_until("it is not let in any more", || !a.peer().connected);
}

#[test]
fn identities_change_and_there_is_always_a_connection() {
    let (mut a, mut b) = (TlsHost::at("127.0.0.1"), TlsHost::at("127.0.0.2"));
    b.know(&a, a.key(), false);
    a.know(&b, b.key(), true);
    wait_until("they are connected", || a.peer().connected);
    let first = open_to(b.listens);
    assert_eq!(first.len(), 1, "{first:?}");

    // A new key of the one that sends, which the other does not know: it goes on with the old one.
    let refused = b.strangers();
    a.ring = a.ring.rotated();
    a.know(&b, b.key(), true);
    wait_until("the new key is refused, again and again", || {
        assert!(a.peer().connected);
        b.strangers() >= refused + 2
    });
    assert!(open_to(b.listens).is_superset(&first));
    b.know_by(&a, &a.ring.identity_keys(), false);
    let mut now = BTreeSet::new();
    wait_until("there is another connection in its place", || {
        assert!(a.peer().connected);
        now = open_to(b.listens);
        now.len() == 1 && now.is_disjoint(&first)
    });
    // So nobody misses the old one.
    b.know(&a, a.key(), false);

    // One of the other, of which the sender has not heard: it is still shown the one that it asks for.
    let before = b.key();
    b.ring = b.ring.rotated();
    b.know(&a, a.key(), false);
    a.know(&b, before, false);
    wait_until("it lets go", || open_to(b.listens).is_empty());
    a.know(&b, before, true);
    wait_until("it is connected as before", || a.peer().connected);
    let last = open_to(b.listens);
    a.know_by(&b, &b.ring.identity_keys(), true);
    wait_until("and as the new one, once it has heard", || {
        assert!(a.peer().connected);
        now = open_to(b.listens);
        now.len() == 1 && now.is_disjoint(&last)
    });
    // The key before the last is worth nothing.
    b.ring = b.ring.rotated();
    b.know(&a, a.key(), false);
    let refused = b.strangers();
    a.know(&b, before, true);
    wait_until("it is refused, again and again", || {
        b.strangers() >= refused + 2
    });
    assert!(!a.peer().connected);
}
