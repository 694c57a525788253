//! Who is not who it should be is refused, counted and named.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Control, Options, Resolver, TlsSide};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::tls::*;
use support::*;

const PROD: &[&str] = &["spiffe://mesh/prod/*"];
const EAST: &str = "spiffe://mesh/prod/east";

/// Speaks TLS as a client of its own making, and ends badly.
async fn is_refused(
    address: SocketAddr,
    held: Option<&Held>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Result<()> {
    // A client may think all is well until it reads.
    let spoken = async {
        let mut stream = dial(address, held, &[version]).await?;
        stream.write_all(b"let me in").await?;
        anyhow::Ok(soon(stream.read_u8()).await??)
    };
    let error = spoken.await.err().context("it was let in")?;
    ensure!(error.is::<std::io::Error>(), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn clients_that_may_not_speak_do_not_reach_the_upstream() -> Result<()> {
    let log = log::capture();
    let (authority, stranger) = (Authority::new("authority")?, Authority::new("stranger")?);
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let own = source(authority.credentials(EAST)?);
    let forward = tcp("guarded", &[upstream.local_addr()?]);
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    ambassador
        .apply(vec![encrypted(forward, TlsSide::Terminate, &own, PROD)?])
        .await?;
    let local = local(&ambassador, 0);
    let west = "spiffe://mesh/prod/west";
    let cases = [
        (
            authority.issue(&["spiffe://mesh/test/west"])?,
            "spiffe://mesh/test/west is not allowed here",
        ),
        (authority.issue_until(&[west], 2020)?, "expired"),
        (stranger.issue(&[west])?, "invalid peer certificate"),
        (authority.issue(&[])?, "0 URI names"),
        (authority.issue(&[west, EAST])?, "2 URI names"),
        (
            authority.issue(&["https://example.org/west"])?,
            "is not an identity; write spiffe://",
        ),
    ];
    for (held, reason) in &cases {
        is_refused(local, Some(held), &TLS13).await?;
        let said = ["refused", "forward=guarded", "client=127.0.0.1", reason];
        log.says(&said).await?;
    }
    is_refused(local, None, &TLS13).await?;
    is_refused(local, Some(&authority.issue(&[west])?), &TLS12).await?;
    let mut plain = TcpStream::connect(local).await?;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    let mut came = Vec::new();
    // An alert, perhaps, and a reset.
    ensure!(soon(plain.read_to_end(&mut came)).await?.is_err());
    ensure!(came.len() <= 7, "{came:?}");
    for reason in ["sent no certificates", "corrupt message"] {
        log.says(&["refused", reason]).await?;
    }

    let mut welcome = dial(local, Some(&authority.issue(&[west])?), &[&TLS13]).await?;
    welcome.write_all(b"welcome").await?;
    let (mut server, _) = soon(upstream.accept()).await??;
    let mut came = [0; 7];
    soon(server.read_exact(&mut came)).await??;
    ensure!(&came == b"welcome", "only who may speak gets through");
    let control = Arc::new(Control::new(ambassador, Resolver::new()));
    let counted = turned_away(&control, "guarded", "tls-handshake", 9).await;
    counted.with_context(|| log.text())?;
    Ok(())
}

#[tokio::test]
async fn upstreams_that_may_not_speak_get_no_byte() -> Result<()> {
    let log = log::capture();
    let (authority, stranger) = (Authority::new("authority")?, Authority::new("stranger")?);
    let cases = [
        (
            authority.issue(&["spiffe://mesh/test/east"])?,
            "spiffe://mesh/test/east is not allowed here",
        ),
        (authority.issue_until(&[EAST], 2020)?, "expired"),
        (stranger.issue(&[EAST])?, "invalid peer certificate"),
        (authority.issue(&[])?, "0 URI names"),
    ];
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let own = source(authority.credentials("spiffe://mesh/prod/west")?);
    let forward = tcp("careful", &[upstream.local_addr()?]);
    let forward = encrypted(forward, TlsSide::Originate, &own, PROD)?;
    let (ambassador, local) = running(forward).await?;
    for (held, reason) in &cases {
        let mut client = TcpStream::connect(local).await?;
        client.write_all(b"secret").await?;
        let (server, _) = soon(upstream.accept()).await??;
        ensure!(answer(server, held).await.is_err(), "{reason}");
        ensure!(soon(client.read_to_end(&mut Vec::new())).await?.is_err());
        let said = ["refused", "forward=careful", "upstream 127.0.0.1", reason];
        log.says(&said).await?;
    }
    // One that speaks no TLS at all.
    let mut client = TcpStream::connect(local).await?;
    client.write_all(b"secret").await?;
    let (mut server, _) = soon(upstream.accept()).await??;
    server.write_all(b"220 plain and simple\r\n").await?;
    let mut came = Vec::new();
    let _ = soon(server.read_to_end(&mut came)).await?;
    ensure!(!came.windows(6).any(|six| six == b"secret"), "{came:?}");
    ensure!(soon(client.read_to_end(&mut Vec::new())).await?.is_err());
    ensure!(ambassador.flows().is_empty());
    Ok(())
}

#[tokio::test]
async fn another_endpoint_is_taken_when_one_is_not_who_it_should_be() -> Result<()> {
    let authority = Authority::new("authority")?;
    let (wrong, right) = (
        TcpListener::bind("127.0.0.1:0").await?,
        TcpListener::bind("127.0.0.1:0").await?,
    );
    let own = source(authority.credentials("spiffe://mesh/prod/west")?);
    let forward = tcp("picky", &[wrong.local_addr()?, right.local_addr()?]);
    let forward = encrypted(forward, TlsSide::Originate, &own, PROD)?;
    let (_ambassador, local) = running(forward).await?;
    let impostor = authority.issue(&["spiffe://mesh/test/east"])?;
    let genuine = authority.issue(&[EAST])?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = wrong.accept().await {
            let _ = answer(stream, &impostor).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = right.accept().await {
            let genuine = genuine.clone();
            tokio::spawn(async move {
                let mut stream = answer(stream, &genuine).await?;
                stream.write_all(b"r").await?;
                stream.flush().await?;
                stream.read_to_end(&mut Vec::new()).await?;
                anyhow::Ok(())
            });
        }
    });
    // The impostor is ejected once it was met, at first for a second.
    let (mut failures, mut held) = (0, Vec::new());
    while held.len() < 4 {
        match who(local).await {
            Ok((name, stream)) => {
                ensure!(name == b'r');
                held.push(stream);
            }
            Err(_) => failures += 1,
        }
        ensure!(failures < 20, "the impostor is asked again and again");
    }
    Ok(())
}
