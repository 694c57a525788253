//! The server name chooses the upstream, and what the client sent reaches it as it was.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Control, Datapath, Options, Resolver, spec};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

/// What a client that asks for `name` sends first, in records of at most `fragment` bytes.
fn hello(name: &str, fragment: Option<usize>) -> Result<Vec<u8>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.max_fragment_size = fragment;
    let mut connection = ClientConnection::new(Arc::new(config), name.to_owned().try_into()?)?;
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

struct Names {
    exact: TcpListener,
    below: TcpListener,
    other: TcpListener,
    ambassador: Arc<Ambassador>,
    control: Arc<Control>,
    local: SocketAddr,
}

impl Names {
    /// Names are resolved as those of `to` are.
    async fn new(others: bool) -> Result<Self> {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (exact, below, other) = (bind().await?, bind().await?, bind().await?);
        let hosts = tempfile::NamedTempFile::new()?;
        std::fs::write(hosts.path(), "127.0.0.1 exact.internal below.internal\n")?;
        let own = if others {
            format!("to = [\"tcp://{}\"]", other.local_addr()?)
        } else {
            String::new()
        };
        let config = format!(
            "[[forward]]\nname = \"names\"\nlisten = \"tcp://127.0.0.1:0\"\nmode = \"splice\"\n{own}\n\
             [forward.sni]\n\"db.example.org\" = [\"tcp://exact.internal:{}\"]\n\
             \"*.example.org\" = [\"below.internal:{}\"]\n",
            exact.local_addr()?.port(),
            below.local_addr()?.port(),
        );
        let ambassador = Arc::new(Ambassador::new(Options::default()));
        let resolver = Resolver::with_files(hosts.path(), "/absent".as_ref());
        let control = Arc::new(Control::new(ambassador.clone(), resolver));
        control.put(spec::from_toml("f".as_ref(), &config)?).await?;
        let local = local(&ambassador, 0);
        // Read before the file goes.
        for name in ["db.example.org", "a.example.org"] {
            let mut client = TcpStream::connect(local).await?;
            client.write_all(&hello(name, None)?).await?;
            let to = if name.starts_with("db") {
                &exact
            } else {
                &below
            };
            soon(to.accept()).await??;
        }
        until("these are over", || ambassador.flows().is_empty()).await?;
        Ok(Self {
            exact,
            below,
            other,
            ambassador,
            control,
            local,
        })
    }
}

/// Sends these pieces, and finds them unchanged at `to`.
async fn reaches(
    local: SocketAddr,
    pieces: &[&[u8]],
    to: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let mut client = TcpStream::connect(local).await?;
    client.set_nodelay(true)?;
    for piece in pieces {
        client.write_all(piece).await?;
        until("the piece is delivered", || unsent(&client) == 0).await?;
    }
    let (mut server, _) = soon(to.accept()).await??;
    let sent = pieces.concat();
    let mut came = vec![0; sent.len()];
    soon(server.read_exact(&mut came)).await??;
    ensure!(came == sent, "the bytes have changed");
    Ok((client, server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_chooses_and_the_bytes_are_spliced() -> Result<()> {
    let names = Names::new(true).await?;
    let cases = [
        (hello("db.example.org", None)?, &names.exact),
        (hello("DB.Example.Org", None)?, &names.exact),
        (hello("www.db.example.org", None)?, &names.below),
        (hello("example.org", None)?, &names.other),
        (hello("192.0.2.1", None)?, &names.other),
        (b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), &names.other),
    ];
    for (bytes, to) in cases {
        let (client, mut server) = reaches(names.local, &[&bytes, b"more"], to).await?;
        let flow = only(&names.ambassador)?;
        ensure!(
            flow.datapath == Datapath::Splice && flow.upstream == to.local_addr()?,
            "{flow:?}"
        );
        drop(client);
        ensure!(
            soon(server.read(&mut [0])).await?? == 0,
            "nothing but what was sent"
        );
        drop(server);
        until("the flow has ended", || names.ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_may_come_in_pieces_cut_anywhere() -> Result<()> {
    let names = Names::new(false).await?;
    for fragment in [None, Some(64)] {
        let bytes = hello("db.example.org", fragment)?;
        for cut in (0..bytes.len()).step_by(7) {
            let pieces = [&bytes[..cut], &bytes[cut..]];
            reaches(names.local, &pieces, &names.exact).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_hello_reaches_those_who_take_the_others() -> Result<()> {
    let names = Names::new(true).await?;
    let bytes = hello("db.example.org", None)?;
    // One finishes, the other says nothing more.
    for finish in [true, false] {
        for length in [3, 40] {
            let mut client = TcpStream::connect(names.local).await?;
            client.write_all(&bytes[..length]).await?;
            if finish {
                client.shutdown().await?;
            }
            let (mut server, _) = soon(names.other.accept()).await??;
            let mut came = vec![0; length];
            soon(server.read_exact(&mut came)).await??;
            ensure!(came == bytes[..length], "the bytes have changed");
            drop(client);
            ensure!(soon(server.read(&mut [0])).await?? == 0);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_of_a_name_go_on_when_their_endpoint_leaves_another() -> Result<()> {
    let (shared, new) = (naming_server(b's').await?, naming_server(b'n').await?);
    let config = |first: SocketAddr| {
        format!(
            "[[forward]]\nname = \"names\"\nlisten = \"tcp://127.0.0.1:0\"\non_remove = \"reset\"\n\
             [forward.sni]\n\"a.example.org\" = [\"{first}\"]\n\"b.example.org\" = [\"{shared}\"]\n"
        )
    };
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let control = Arc::new(Control::new(ambassador.clone(), Resolver::new()));
    let put = |first| anyhow::Ok(spec::from_toml("f".as_ref(), &config(first))?);
    control.put(put(shared)?).await?;
    let local = local(&ambassador, 0);
    let ask = |name: &'static str| async move {
        let mut client = TcpStream::connect(local).await?;
        client.write_all(&hello(name, None)?).await?;
        let answer = soon(client.read_u8()).await??;
        anyhow::Ok((answer, client))
    };
    let (_, _held) = ask("a.example.org").await?;
    let (answer, mut stays) = ask("b.example.org").await?;
    ensure!(answer == b's');
    control.put(put(new)?).await?;
    ensure!(ask("a.example.org").await?.0 == b'n');
    let own = stays.local_addr()?;
    let flows = ambassador.flows();
    let flow = flows.into_iter().find(|flow| flow.client == own);
    let before = flow.context("it is open")?.bytes_in;
    stays.write_all(b"still there").await?;
    until("it goes on", || {
        ambassador
            .flows()
            .iter()
            .any(|flow| flow.client == own && flow.bytes_in == before + 11)
    })
    .await?;
    // When it leaves the last name, they end.
    let mut none = config(new);
    none = none.replace(&format!("[\"{shared}\"]"), &format!("[\"{new}\"]"));
    control.put(spec::from_toml("f".as_ref(), &none)?).await?;
    ensure!(soon(stays.read_u8()).await?.is_err(), "reset");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_serves_is_told_so() -> Result<()> {
    let names = Names::new(false).await?;
    for name in ["example.com", "192.0.2.1"] {
        let mut client = TcpStream::connect(names.local).await?;
        client.write_all(&hello(name, None)?).await?;
        let mut came = Vec::new();
        // Fatal, unrecognized_name, and FIN.
        soon(client.read_to_end(&mut came)).await??;
        ensure!(came == [21, 3, 3, 0, 2, 2, 112], "{came:?}");
    }
    let mut plain = TcpStream::connect(names.local).await?;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    ensure!(
        soon(plain.read_to_end(&mut Vec::new())).await?.is_err(),
        "no alert"
    );
    turned_away(&names.control, "names", "server-name", 3).await?;
    let specs = names.control.specs().await;
    let again = spec::from_json(spec::to_json(&specs).to_string().as_bytes())?;
    ensure!(again == specs, "what is shown can be put");
    let bytes = hello("db.example.org", None)?;
    let (mut client, mut server) = reaches(names.local, &[&bytes], &names.exact).await?;
    names.control.put(specs).await.context("the same again")?;
    server.write_all(b"still there").await?;
    soon(client.read_exact(&mut [0; 11])).await??;
    Ok(())
}
