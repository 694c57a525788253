//! What is carried between two ambassadors that speak TLS is what plain ones would carry.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Credentials, Datapath, Forward, Sni, TlsSide};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

mod support;
use support::tls::*;
use support::*;

const EAST: &str = "spiffe://mesh/prod/east";
const WEST: &str = "spiffe://mesh/prod/west";
const PROD: &[&str] = &["spiffe://mesh/prod/*"];

/// What the far one's upstream is asked for by.
const NAME: &str = "0123abcd.link.example";

/// Has an encrypted forward ask for `name`.
fn asking(mut forward: Forward, name: &'static str) -> Result<Forward> {
    let tls = forward.edge.tls.as_mut().context("it is encrypted")?;
    tls.server_name = Some(name.try_into()?);
    Ok(forward)
}

/// Two ambassadors and the peers at their far ends.
struct Chain {
    near: Ambassador,
    far: Ambassador,
    near_forward: Forward,
    far_forward: Forward,
    near_source: watch::Sender<Arc<Credentials>>,
    far_source: watch::Sender<Arc<Credentials>>,
    authority: Authority,
    upstream: TcpListener,
    local: SocketAddr,
}

impl Chain {
    async fn new() -> Result<Self> {
        let authority = Authority::new("authority")?;
        let upstream = TcpListener::bind("127.0.0.1:0").await?;
        let far_source = source(authority.credentials(EAST)?);
        let far_forward = tcp("far", &[upstream.local_addr()?]);
        let mut far_forward = encrypted(far_forward, TlsSide::Terminate, &far_source, PROD)?;
        far_forward.edge.sni = Some(Sni {
            routes: vec![(NAME.parse()?, far_forward.upstreams.clone())],
            refuse_others: true,
        });
        let (far, middle) = running(far_forward.clone()).await?;
        let near_source = source(authority.credentials(WEST)?);
        let near_forward = tcp("near", &[middle]);
        let near_forward = encrypted(near_forward, TlsSide::Originate, &near_source, PROD)?;
        let near_forward = asking(near_forward, NAME)?;
        let (near, local) = running(near_forward.clone()).await?;
        Ok(Self {
            near,
            far,
            near_forward,
            far_forward,
            near_source,
            far_source,
            authority,
            upstream,
            local,
        })
    }

    /// A client, and the server at the other end.
    async fn pair(&self) -> Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect(self.local).await?;
        let (server, _) = soon(self.upstream.accept()).await??;
        Ok((client, server))
    }

    async fn ended(&self) -> Result<()> {
        let none = || self.near.flows().is_empty() && self.far.flows().is_empty();
        until("the flows have ended", none).await
    }
}

async fn says(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) -> Result<()> {
    from.write_all(what).await?;
    let mut came = vec![0; what.len()];
    soon(to.read_exact(&mut came)).await??;
    ensure!(came == what, "{came:?}, not {what:?}");
    Ok(())
}

/// What comes before the end, and how it ends.
async fn rest(stream: &mut TcpStream) -> Result<(Vec<u8>, Option<ErrorKind>)> {
    let mut bytes = Vec::new();
    let end = soon(stream.read_to_end(&mut bytes)).await?;
    Ok((bytes, end.err().map(|error| error.kind())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mebibyte_both_ways_at_once() -> Result<()> {
    let chain = Chain::new().await?;
    let (mut client, mut server) = chain.pair().await?;
    let (question, answer) = (noise(11, 1 << 20), noise(13, (1 << 20) + 1));
    let (mut from_client, mut from_server) = (vec![], vec![]);
    {
        let (mut client_reads, mut client_writes) = client.split();
        let (mut server_reads, mut server_writes) = server.split();
        let ask = async {
            for piece in question.chunks(10_007) {
                client_writes.write_all(piece).await?;
            }
            client_writes.shutdown().await
        };
        let reply = async {
            for piece in answer.chunks(70_001) {
                server_writes.write_all(piece).await?;
            }
            server_writes.shutdown().await
        };
        soon(async {
            tokio::try_join!(
                ask,
                reply,
                server_reads.read_to_end(&mut from_client),
                client_reads.read_to_end(&mut from_server),
            )
        })
        .await??;
    }
    ensure!(from_client == question && from_server == answer);
    chain.ended().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_datapath_is_told_and_the_wire_is_encrypted() -> Result<()> {
    let authority = Authority::new("authority")?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let own = source(authority.credentials(WEST)?);
    let forward = tcp("originates", &[upstream.local_addr()?]);
    let forward = encrypted(forward, TlsSide::Originate, &own, PROD)?;
    let (ambassador, local) = running(forward).await?;
    let mut client = TcpStream::connect(local).await?;
    let (server, _) = soon(upstream.accept()).await??;
    let mut server = answer(server, &authority.issue(&[EAST])?).await?;
    client.write_all(b"secret").await?;
    let mut came = [0; 6];
    soon(server.read_exact(&mut came)).await??;
    ensure!(&came == b"secret");
    until("it is counted", || {
        only(&ambassador).is_ok_and(|flow| flow.bytes_in == 6)
    })
    .await?;
    let flow = only(&ambassador)?;
    ensure!(
        (flow.datapath, flow.reason) == (Datapath::Tls, "encrypted"),
        "{flow:?}"
    );
    ensure!(server.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_follows_a_half_close() -> Result<()> {
    let chain = Chain::new().await?;
    for turned in [false, true] {
        let (client, server) = chain.pair().await?;
        let (mut first, mut second) = if turned {
            (server, client)
        } else {
            (client, server)
        };
        first.write_all(b"question").await?;
        first.shutdown().await?;
        ensure!(rest(&mut second).await? == (b"question".to_vec(), None));
        ensure!(chain.far.flows().len() == 1, "half a flow is a flow");
        let answer = noise(1, 300_000);
        let send = async {
            second.write_all(&answer).await?;
            second.shutdown().await
        };
        let mut received = Vec::new();
        soon(async { tokio::try_join!(send, first.read_to_end(&mut received)) }).await??;
        ensure!(received == answer);
        chain.ended().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_goes_over_after_the_data_before_it() -> Result<()> {
    let chain = Chain::new().await?;
    for (turned, finished) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut client, mut server) = chain.pair().await?;
        says(&mut client, &mut server, b"hello").await?;
        says(&mut server, &mut client, b"hello").await?;
        let (mut first, mut second) = if turned {
            (server, client)
        } else {
            (client, server)
        };
        if finished {
            // Even when the one who is reset has nothing more to say.
            second.shutdown().await?;
            ensure!(rest(&mut first).await? == (Vec::new(), None));
        }
        first.write_all(b"last words").await?;
        until("the last words are delivered", || unsent(&first) == 0).await?;
        reset(first)?;
        let (bytes, end) = rest(&mut second).await?;
        ensure!(bytes == b"last words", "{turned} {finished}: {bytes:?}");
        ensure!(
            end == Some(ErrorKind::ConnectionReset),
            "{turned} {finished}: {end:?}"
        );
        chain.ended().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_stream_is_no_whole_one() -> Result<()> {
    let authority = Authority::new("authority")?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let own = source(authority.credentials(EAST)?);
    let forward = tcp("terminates", &[upstream.local_addr()?]);
    let (_far, local) = running(encrypted(forward, TlsSide::Terminate, &own, PROD)?).await?;
    let mut client = dial(local, Some(&authority.issue(&[WEST])?), &[&TLS13]).await?;
    client.write_all(b"half a").await?;
    let (mut server, _) = soon(upstream.accept()).await??;
    let mut came = [0; 6];
    soon(server.read_exact(&mut came)).await??;
    // FIN, and no close_notify before it.
    client.get_mut().0.shutdown().await?;
    ensure!(rest(&mut server).await?.1 == Some(ErrorKind::ConnectionReset));

    let forward = tcp("originates", &[upstream.local_addr()?]);
    let (_near, local) = running(encrypted(forward, TlsSide::Originate, &own, PROD)?).await?;
    let mut client = TcpStream::connect(local).await?;
    let (server, _) = soon(upstream.accept()).await??;
    let mut server = answer(server, &authority.issue(&[WEST])?).await?;
    server.write_all(b"half a").await?;
    server.flush().await?;
    soon(client.read_exact(&mut came)).await??;
    server.get_mut().0.shutdown().await?;
    ensure!(rest(&mut client).await?.1 == Some(ErrorKind::ConnectionReset));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_holds_the_writer_back_and_is_reset_at_last() -> Result<()> {
    let chain = Chain::new().await?;
    let (client, mut server) = chain.pair().await?;
    let (pause, chunk) = (std::time::Duration::from_millis(300), vec![1; 64 << 10]);
    let mut taken = 0_usize;
    while tokio::time::timeout(pause, client.writable()).await.is_ok() {
        taken += client.try_write(&chunk).unwrap_or(0);
        ensure!(
            taken < 64 << 20,
            "{taken} bytes taken for a reader that stalls"
        );
    }
    let mut received = vec![0; taken];
    soon(server.read_exact(&mut received)).await??;
    reset(client)?;
    ensure!(rest(&mut server).await? == (Vec::new(), Some(ErrorKind::ConnectionReset)));
    chain.ended().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_renewed_under_open_flows() -> Result<()> {
    let chain = Chain::new().await?;
    let (mut client, mut server) = chain.pair().await?;
    says(&mut client, &mut server, b"before").await?;
    // As an authority is replaced: trust both, show the new one, trust only that.
    let (old, new) = (&chain.authority, Authority::new("successor")?);
    let (east, west) = (new.issue(&[EAST])?, new.issue(&[WEST])?);
    chain.near_source.send(credentials(&west, &[old, &new])?)?;
    chain.far_source.send(credentials(&east, &[old, &new])?)?;
    let (mut late_client, mut late_server) = chain.pair().await?;
    says(&mut late_client, &mut late_server, b"between").await?;
    says(&mut server, &mut client, b"still there").await?;
    ensure!(chain.near.flows().len() == 2 && chain.far.flows().len() == 2);

    // Those who showed what the new bundle does not vouch for may not go on.
    chain.far_source.send(credentials(&east, &[&new])?)?;
    ensure!(rest(&mut server).await?.1 == Some(ErrorKind::ConnectionReset));
    ensure!(rest(&mut client).await?.1 == Some(ErrorKind::ConnectionReset));
    says(&mut late_client, &mut late_server, b"after").await?;
    says(&mut late_server, &mut late_client, b"after").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_list_holds_for_live_flows() -> Result<()> {
    let chain = Chain::new().await?;
    let (mut client, mut server) = chain.pair().await?;
    says(&mut client, &mut server, b"before").await?;
    let allow = |forward: &Forward, allow: &str| {
        let mut forward = forward.clone();
        let tls = forward.edge.tls.as_mut().context("TLS")?;
        tls.allow = vec![allow.parse()?].into();
        anyhow::Ok(vec![forward])
    };
    // One who is still on the list is not touched.
    chain.far.apply(allow(&chain.far_forward, WEST)?).await?;
    chain.near.apply(allow(&chain.near_forward, EAST)?).await?;
    says(&mut server, &mut client, b"still there").await?;
    chain
        .far
        .apply(allow(&chain.far_forward, "spiffe://mesh/test/*")?)
        .await?;
    ensure!(rest(&mut server).await?.1 == Some(ErrorKind::ConnectionReset));
    ensure!(rest(&mut client).await?.1 == Some(ErrorKind::ConnectionReset));
    chain.ended().await?;

    chain.far.apply(vec![chain.far_forward.clone()]).await?;
    let (mut client, mut server) = chain.pair().await?;
    says(&mut client, &mut server, b"again").await?;
    // The client of TLS judges its server too.
    chain.near.apply(allow(&chain.near_forward, WEST)?).await?;
    ensure!(rest(&mut client).await?.1 == Some(ErrorKind::ConnectionReset));
    ensure!(rest(&mut server).await?.1 == Some(ErrorKind::ConnectionReset));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_client_is_told_through_both() -> Result<()> {
    let authority = Authority::new("authority")?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let (east, west) = (
        source(authority.credentials(EAST)?),
        source(authority.credentials(WEST)?),
    );
    let mut far = tcp("far", &[upstream.local_addr()?]);
    far.edge.accept_proxy = Some(nuncio_ambassador::AcceptProxy::from_everybody());
    far.edge.send_proxy = Some(nuncio_ambassador::ProxyVersion::V1);
    let far = encrypted(far, TlsSide::Terminate, &east, PROD)?;
    let (far, middle) = running(far).await?;
    let mut near = tcp("near", &[middle]);
    near.edge.send_proxy = Some(nuncio_ambassador::ProxyVersion::V2);
    let (_near, local) = running(encrypted(near, TlsSide::Originate, &west, PROD)?).await?;
    let mut client = TcpStream::connect(local).await?;
    client.write_all(b"payload").await?;
    let (mut server, _) = soon(upstream.accept()).await??;
    let own = client.local_addr()?;
    let expected = format!(
        "PROXY TCP4 {} {} {} {}\r\npayload",
        own.ip(),
        local.ip(),
        own.port(),
        local.port()
    );
    let mut came = vec![0; expected.len()];
    soon(server.read_exact(&mut came)).await??;
    ensure!(
        came == expected.as_bytes(),
        "{:?}",
        String::from_utf8_lossy(&came)
    );
    ensure!(far.flows()[0].client == own);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_nowhere_is_refused() -> Result<()> {
    let chain = Chain::new().await?;
    let forward = asking(chain.near_forward.clone(), "4567.link.example")?;
    chain.near.apply(vec![forward]).await?;
    let mut client = TcpStream::connect(chain.local).await?;
    let (bytes, _) = rest(&mut client).await?;
    ensure!(bytes.is_empty(), "{bytes:?}");
    chain.near.apply(vec![chain.near_forward.clone()]).await?;
    let (mut client, mut server) = chain.pair().await?;
    says(&mut client, &mut server, b"hello").await?;
    Ok(())
}

/// Who shows no certificate is told the same of a name that leads somewhere and of one that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_does_not_learn_which_names_there_are() -> Result<()> {
    let chain = Chain::new().await?;
    let far = chain.far.listeners()[0].local;
    let mut told = Vec::new();
    for name in [NAME, "4567.link.example"] {
        let mut stranger = TcpStream::connect(far).await?;
        stranger.write_all(&hello(name)?).await?;
        stranger.shutdown().await?;
        told.push(rest(&mut stranger).await?);
    }
    let alerts = |(bytes, end): &(Vec<u8>, _)| (bytes.is_empty(), *end);
    ensure!(alerts(&told[0]) == alerts(&told[1]), "{told:?}");
    ensure!(
        told.iter().all(|(bytes, _)| bytes.first() != Some(&21)),
        "it is told of a name by an alert: {told:?}"
    );
    Ok(())
}

/// How a client begins that asks for `name`.
fn hello(name: &'static str) -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into()?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}
