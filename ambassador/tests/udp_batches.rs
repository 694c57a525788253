//! Datagrams that come many at a time, by GSO or fast after each other, stay what they were.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use nuncio_ambassador::{Ambassador, EndpointSet, Forward, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

mod support;
use support::*;

/// What a test's socket can hold unread, by the kernel's default.
const UNREAD: usize = 100_000;

/// An ambassador that runs beside blocking peers, and these.
struct Line {
    client: UdpSocket,
    /// Where the session's datagrams come from.
    session: SocketAddr,
    upstream: UdpSocket,
    ambassador: Ambassador,
    _runtime: Runtime,
}

fn patient(socket: UdpSocket) -> Result<UdpSocket> {
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn line(at: &str) -> Result<Line> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let upstream = patient(UdpSocket::bind(at)?)?;
    let fixed = EndpointSet::fixed(vec![upstream.local_addr()?]);
    let forward = Forward::new("line", listen(Protocol::Udp, at), fixed);
    let (ambassador, local) = runtime.block_on(running(forward))?;
    let client = patient(UdpSocket::bind(at)?)?;
    client.connect(local)?;
    client.send(b"first")?;
    let (_, session) = upstream.recv_from(&mut [0; 10])?;
    Ok(Line {
        client,
        session,
        upstream,
        ambassador,
        _runtime: runtime,
    })
}

/// Sends `bytes` as datagrams of `size`, the last of which is as long as is left, in one call.
fn send_train(socket: &UdpSocket, to: Option<SocketAddr>, bytes: &[u8], size: u16) -> Result<()> {
    let (parts, to) = ([IoSlice::new(bytes)], to.map(SockaddrStorage::from));
    let control = [ControlMessage::UdpGsoSegments(&size)];
    let several = bytes.len() > usize::from(size);
    let control = if several { &control[..] } else { &[] };
    let flags = MsgFlags::empty();
    let sent = sendmsg(socket.as_raw_fd(), &parts, control, flags, to.as_ref())?;
    ensure!(sent == bytes.len());
    Ok(())
}

/// Datagrams of `size` bytes, the last of which is as long as is left of `length`.
#[derive(Clone, Debug)]
struct Train {
    size: u16,
    length: usize,
    seed: u64,
}

impl Train {
    fn count(&self) -> usize {
        self.length.div_ceil(self.size.into()).max(1)
    }
}

fn trains() -> impl Strategy<Value = Vec<Train>> {
    let size = prop_oneof![Just(64), Just(1_200), Just(1_400), 1..3_000_u16];
    let train = (size, 0..40_usize, any::<u16>(), any::<u64>());
    let train = train.prop_map(|(size, whole, tail, seed)| {
        let length = usize::from(size) * whole + usize::from(tail % size);
        let length = length.min(65_000);
        Train { size, length, seed }
    });
    prop::collection::vec(train, 1..12).prop_map(|mut trains| {
        let mut room = UNREAD;
        trains.retain(|train| {
            // Each datagram takes more than its bytes.
            let cost = train.length + 800 * train.count();
            let fits = cost <= room;
            room -= if fits { cost } else { 0 };
            fits
        });
        trains
    })
}

fn datagrams(trains: &[(u16, Vec<u8>)]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    for (size, bytes) in trains {
        if bytes.is_empty() {
            all.push(&bytes[..]);
        }
        all.extend(bytes.chunks((*size).into()));
    }
    all
}

fn expect(socket: &UdpSocket, expected: &[&[u8]]) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    for (number, expected) in expected.iter().enumerate() {
        let bytes = socket
            .recv(&mut buffer)
            .with_context(|| format!("datagram {number}"))?;
        let wanted = expected.len();
        ensure!(
            bytes == wanted,
            "datagram {number} has {bytes} bytes, not {wanted}"
        );
        ensure!(
            buffer[..bytes] == **expected,
            "datagram {number} has other bytes"
        );
    }
    Ok(())
}

fn bounds_are_kept(at: &str) -> Result<()> {
    let line = line(at)?;
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&trains(), |trains| {
        let bytes = |train: &Train| (train.size, noise(train.seed, train.length));
        let trains: Vec<_> = trains.iter().map(bytes).collect();
        let expected = datagrams(&trains);
        let both_ways = || {
            for (size, bytes) in &trains {
                send_train(&line.client, None, bytes, *size)?;
            }
            expect(&line.upstream, &expected).context("there")?;
            for (size, bytes) in &trains {
                send_train(&line.upstream, Some(line.session), bytes, *size)?;
            }
            expect(&line.client, &expected).context("back")
        };
        both_ways().map_err(|error: anyhow::Error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(line.ambassador.flows().len() == 1);
    Ok(())
}

#[test]
fn a_datagram_keeps_its_bounds_over_ipv4() -> Result<()> {
    bounds_are_kept("127.0.0.1:0")
}

#[test]
fn a_datagram_keeps_its_bounds_over_ipv6() -> Result<()> {
    bounds_are_kept("[::1]:0")
}

/// The bytes of the largest piece that is read, and of the datagrams in it.
fn read_piece(socket: &UdpSocket) -> Result<(usize, Option<i32>)> {
    let mut buffer = vec![0; 65_536];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(i32);
    let flags = MsgFlags::empty();
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
    let size = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => Some(size),
        _ => None,
    });
    Ok((message.bytes, size))
}

#[test]
fn bulk_passes_in_large_pieces() -> Result<()> {
    let line = line("127.0.0.1:0")?;
    setsockopt(&line.upstream, sockopt::UdpGroSegment, &true)?;
    setsockopt(&line.client, sockopt::UdpGroSegment, &true)?;
    let bytes = noise(7, 45 * 1_400 + 500);
    for _ in 0..100 {
        send_train(&line.client, None, &bytes, 1_400)?;
        ensure!(
            read_piece(&line.upstream)? == (bytes.len(), Some(1_400)),
            "there"
        );
        send_train(&line.upstream, Some(line.session), &bytes, 1_400)?;
        ensure!(
            read_piece(&line.client)? == (bytes.len(), Some(1_400)),
            "back"
        );
    }
    until_counted(&line, 100 * bytes.len() as u64)
}

fn until_counted(line: &Line, bytes: u64) -> Result<()> {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let flow = only(&line.ambassador)?;
        if (flow.bytes_in, flow.bytes_out) == (bytes + 5, bytes) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "{flow:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The datagrams of many clients come mixed in a batch, and each client's own stay in order.
#[test]
fn clients_that_send_at_once_are_not_confused() -> Result<()> {
    let line = line("127.0.0.1:0")?;
    let to = line.client.peer_addr()?;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let client = patient(UdpSocket::bind("127.0.0.1:0")?)?;
            client.connect(to)?;
            anyhow::Ok(client)
        })
        .collect::<Result<_>>()?;
    for round in 0..20_u8 {
        for number in 0..5_u8 {
            for (name, client) in clients.iter().enumerate() {
                // Now and then others of another size, so that a message cannot take them all.
                let mut datagram = vec![u8::try_from(name)?, round, number];
                datagram.resize(3 + usize::from(number % 2) * 50, 0);
                client.send(&datagram)?;
            }
        }
        let mut next = vec![0; clients.len()];
        let mut buffer = [0; 100];
        for _ in 0..5 * clients.len() {
            let (bytes, session) = line.upstream.recv_from(&mut buffer)?;
            let [name, of, number] = buffer[..3].try_into()?;
            ensure!(
                of == round && number == next[usize::from(name)],
                "{name}: {number}"
            );
            next[usize::from(name)] += 1;
            line.upstream.send_to(&buffer[..bytes], session)?;
        }
        for (name, client) in clients.iter().enumerate() {
            for number in 0..5 {
                client.recv(&mut buffer)?;
                ensure!(
                    buffer[..3] == [u8::try_from(name)?, round, number],
                    "{name}: {number}"
                );
            }
        }
    }
    ensure!(line.ambassador.flows().len() == clients.len() + 1);
    Ok(())
}

#[test]
fn replies_in_batches_come_from_the_address_that_was_asked() -> Result<()> {
    let upstream = patient(UdpSocket::bind("127.0.0.1:0")?)?;
    for any in ["0.0.0.0:0", "[::]:0"] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let fixed = EndpointSet::fixed(vec![upstream.local_addr()?]);
        let forward = Forward::new("any", listen(Protocol::Udp, any), fixed);
        let (_ambassador, local) = runtime.block_on(running(forward))?;
        let client = patient(UdpSocket::bind("127.0.0.1:0")?)?;
        let to = SocketAddr::new("127.0.0.9".parse()?, local.port());
        client.send_to(b"?", to)?;
        let (_, session) = upstream.recv_from(&mut [0; 10])?;
        let bytes = noise(9, 20 * 1_000 + 1);
        send_train(&upstream, Some(session), &bytes, 1_000)?;
        let mut buffer = [0; 2_000];
        for expected in bytes.chunks(1_000) {
            let (count, from) = client.recv_from(&mut buffer)?;
            ensure!(from == to, "{from}, not {to}");
            ensure!(buffer[..count] == *expected);
        }
    }
    Ok(())
}
