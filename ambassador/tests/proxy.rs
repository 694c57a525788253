//! The PROXY protocol, in and out: no byte of payload is lost or looked at.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{
    AcceptProxy, Ambassador, Control, Datapath, Forward, Options, ProxyVersion, RelayMode,
    Resolver, spec,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

const VERSIONS: [ProxyVersion; 2] = [ProxyVersion::V1, ProxyVersion::V2];

fn accepting(mut forward: Forward) -> Forward {
    forward.edge.accept_proxy = Some(AcceptProxy::from_everybody());
    forward
}

fn sending(mut forward: Forward, version: ProxyVersion) -> Forward {
    forward.edge.send_proxy = Some(version);
    forward
}

/// What a version 2 header for these IPv4 addresses is.
fn binary(source: SocketAddr, destination: SocketAddr, extensions: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        panic!("IPv4");
    };
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let length = u16::try_from(12 + extensions.len()).expect("short");
    bytes.extend(length.to_be_bytes());
    bytes.extend(source.ip().octets());
    bytes.extend(destination.ip().octets());
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(extensions);
    bytes
}

fn text(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = (source.ip(), destination.ip());
    let (source, destination) = (source.port(), destination.port());
    format!("PROXY TCP4 {from} {to} {source} {destination}\r\n").into_bytes()
}

fn header(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => text(source, destination),
        ProxyVersion::V2 => binary(source, destination, &[]),
    }
}

async fn expect(stream: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut came = vec![0; expected.len()];
    soon(stream.read_exact(&mut came)).await??;
    ensure!(
        came == expected,
        "{:?} came, not {:?}",
        String::from_utf8_lossy(&came),
        String::from_utf8_lossy(expected)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_are_told_who_the_client_is_before_its_first_byte() -> Result<()> {
    for version in VERSIONS {
        for mode in MODES {
            let upstream = TcpListener::bind("127.0.0.1:0").await?;
            let forward = limited(tcp("tells", &[upstream.local_addr()?]), |limits| {
                limits.mode = mode;
            });
            let (ambassador, local) = running(sending(forward, version)).await?;
            let mut client = TcpStream::connect(local).await?;
            let (mut server, _) = soon(upstream.accept()).await??;
            // Before the client says anything, for the server may speak first.
            expect(&mut server, &header(version, client.local_addr()?, local)).await?;
            server.write_all(b"220 hello").await?;
            expect(&mut client, b"220 hello").await?;
            let payload = noise(3, 300_000);
            let mut came = vec![0; payload.len()];
            let (sent, read) =
                tokio::join!(client.write_all(&payload), server.read_exact(&mut came));
            sent?;
            read?;
            ensure!(came == payload, "{version:?} {mode:?}");
            // The header is not the client's.
            let carried = || only(&ambassador).is_ok_and(|f| f.bytes_in == payload.len() as u64);
            until("the payload is counted, and nothing else", carried).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_is_taken_off_and_what_it_says_goes_on() -> Result<()> {
    let (real, asked) = ("192.0.2.7:4711".parse()?, "198.51.100.1:443".parse()?);
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let forward = sending(tcp("both", &[upstream.local_addr()?]), ProxyVersion::V2);
    let (ambassador, local) = running(accepting(forward)).await?;
    let (unique, checksum) = (b"\x05\0\x02id", b"\x03\0\x04abcd");
    let extensions = [&checksum[..], &unique[..]].concat();
    for came in [text(real, asked), binary(real, asked, &extensions)] {
        let mut client = TcpStream::connect(local).await?;
        client.write_all(&[&came[..], b"payload"].concat()).await?;
        let (mut server, _) = soon(upstream.accept()).await??;
        let extensions = if came[0] == b'P' {
            &[][..]
        } else {
            &unique[..]
        };
        expect(&mut server, &binary(real, asked, extensions)).await?;
        expect(&mut server, b"payload").await?;
        ensure!(
            only(&ambassador)?.client == real,
            "{:?}",
            ambassador.flows()
        );
        drop((client, server));
        until("the flow has ended", || ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_for_itself_is_the_client() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let forward = sending(tcp("local", &[upstream.local_addr()?]), ProxyVersion::V1);
    let (_ambassador, local) = running(accepting(forward)).await?;
    let headers: [&[u8]; 2] = [
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x05extra",
    ];
    for header in headers {
        let mut client = TcpStream::connect(local).await?;
        client.write_all(&[header, b"payload"].concat()).await?;
        let (mut server, _) = soon(upstream.accept()).await??;
        expect(&mut server, &text(client.local_addr()?, local)).await?;
        expect(&mut server, b"payload").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_may_come_in_two_pieces_cut_anywhere() -> Result<()> {
    let (real, asked) = ("192.0.2.7:4711".parse()?, "198.51.100.1:443".parse()?);
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let mut forward = accepting(tcp("pieces", &[upstream.local_addr()?]));
    forward.limits.mode = RelayMode::Splice;
    let (ambassador, local) = running(forward).await?;
    for version in VERSIONS {
        let mut sent = header(version, real, asked);
        sent.extend(b"payload");
        for cut in 0..=sent.len() {
            let mut client = TcpStream::connect(local).await?;
            client.set_nodelay(true)?;
            client.write_all(&sent[..cut]).await?;
            // The second piece must find the ambassador with the first one, if there is one.
            until("the first piece is delivered", || unsent(&client) == 0).await?;
            client.write_all(&sent[cut..]).await?;
            let (mut server, _) = soon(upstream.accept()).await??;
            expect(&mut server, b"payload").await?;
            let flow = only(&ambassador)?;
            ensure!(
                flow.datapath == Datapath::Splice && flow.client == real,
                "{flow:?}"
            );
            client.shutdown().await?;
            ensure!(
                soon(server.read(&mut [0])).await?? == 0,
                "nothing but the payload"
            );
            drop((client, server));
            until("the flow has ended", || ambassador.flows().is_empty()).await?;
        }
    }
    Ok(())
}

/// How a connection that says this ends; the reset may come at any step.
async fn end_of(address: SocketAddr, bytes: &[u8], finish: bool) -> Result<ErrorKind> {
    let said = async {
        let mut client = TcpStream::connect(address).await?;
        client.write_all(bytes).await?;
        if finish {
            client.shutdown().await?;
        }
        client.read_to_end(&mut Vec::new()).await
    };
    let error = soon(said).await?.err().context("it ended well")?;
    Ok(error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_header_ends_that_connection_and_no_other() -> Result<()> {
    let upstream = naming_server(b'u').await?;
    let forward = |name: &str, more: &str| {
        format!(
            "[[forward]]\nname = \"{name}\"\nlisten = \"tcp://127.0.0.1:0\"\nto = [\"{upstream}\"]\n\
             accept_proxy = true\n{more}\n"
        )
    };
    let config = forward("strict", "accept_proxy_timeout = \"1h\"")
        + &forward("hasty", "accept_proxy_timeout = \"100ms\"")
        + &forward("elsewhere", "accept_proxy_from = [\"10.0.0.0/8\"]");
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let control = Arc::new(Control::new(ambassador.clone(), Resolver::new()));
    control.put(spec::from_toml("f".as_ref(), &config)?).await?;
    let at = |index| local(&ambassador, index);
    let good = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let wrong: [(SocketAddr, &[u8], bool); 7] = [
        (at(0), b"GET / HTTP/1.1\r\n\r\n", false),
        (at(0), b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", false),
        (at(0), &good[..20], true),
        (at(0), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c123", true),
        (at(0), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", false),
        (at(1), &good[..20], false),
        (at(2), good, false),
    ];
    for (address, bytes, finish) in wrong {
        let end = end_of(address, bytes, finish).await?;
        let lost = [
            ErrorKind::ConnectionReset,
            ErrorKind::BrokenPipe,
            ErrorKind::NotConnected,
        ];
        ensure!(lost.contains(&end), "{bytes:?}: {end:?}");
        ensure!(ambassador.flows().is_empty());
    }
    let mut client = TcpStream::connect(at(0)).await?;
    client.write_all(good).await?;
    ensure!(soon(client.read_u8()).await?? == b'u', "it goes on serving");
    for (forward, count) in [("strict", 5), ("hasty", 1), ("elsewhere", 1)] {
        turned_away(&control, forward, "proxy-header", count).await?;
    }
    for (forward, cause, count) in [
        ("strict", "forbidden", 5),
        ("hasty", "timeout", 1),
        ("elsewhere", "forbidden", 1),
    ] {
        let labels = format!(
            "{{forward=\"{forward}\",endpoint=\"none\",cause=\"{cause}\",side=\"client\"}}"
        );
        counts(&control, &format!("ends_total{labels}"), count).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_concerns_newcomers() -> Result<()> {
    let upstream = naming_server(b'u').await?;
    let plain = tcp("changes", &[upstream]);
    let (ambassador, local) = running(plain.clone()).await?;
    let (_, mut before) = who(local).await?;
    ambassador.apply(vec![accepting(plain)]).await?;
    let mut client = TcpStream::connect(local).await?;
    client.write_all(b"PROXY UNKNOWN\r\n").await?;
    ensure!(soon(client.read_u8()).await?? == b'u');
    before.write_all(b"still there").await?;
    until("it goes on", || {
        ambassador.flows().iter().any(|flow| flow.bytes_in == 11)
    })
    .await
}
