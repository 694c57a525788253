//! QUIC over the UDP relay: a handshake, and a mebibyte each way at once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

mod support;
use support::program::Identity;
use support::*;

const BYTES: usize = 1 << 20;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(identity: &Identity) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(&identity.certificate).context("the certificate")
}

fn server(identity: &Identity) -> Result<Endpoint> {
    let key = PrivateKeyDer::from_pem_file(&identity.key).context("the key")?;
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate(identity)?], key)?;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok(Endpoint::server(config, "127.0.0.1:0".parse()?)?)
}

fn client(identity: &Identity) -> Result<Endpoint> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(identity)?)?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        tls,
    )?)));
    Ok(endpoint)
}

/// Sends `ours` while `theirs` comes.
async fn exchange(
    (mut send, mut receive): (quinn::SendStream, quinn::RecvStream),
    ours: &[u8],
    theirs: &[u8],
) -> Result<()> {
    let sent = async {
        send.write_all(ours).await?;
        send.finish()?;
        // Until the other one has all of it, since who closes a connection gives up the rest. It
        // may close before it says so; if bytes were missing, it would fail.
        let _ = send.stopped().await;
        anyhow::Ok(())
    };
    let (sent, received) = tokio::join!(sent, receive.read_to_end(2 * BYTES));
    sent?;
    ensure!(received? == theirs, "the bytes have changed");
    Ok(())
}

async fn talk(directory: &Path, streams: usize) -> Result<()> {
    let identity = Identity::make(directory).await?;
    let (server, client) = (server(&identity)?, client(&identity)?);
    let (ambassador, local) = running(udp("quic", &[server.local_addr()?])).await?;
    let (question, answer) = (Arc::new(noise(13, BYTES)), Arc::new(noise(17, BYTES)));
    let serving = tokio::spawn({
        let (question, answer) = (question.clone(), answer.clone());
        async move {
            let connection = server.accept().await.context("a connection")?.await?;
            let mut each = tokio::task::JoinSet::new();
            for _ in 0..streams {
                let stream = connection.accept_bi().await?;
                let (question, answer) = (question.clone(), answer.clone());
                each.spawn(async move { exchange(stream, &answer, &question).await });
            }
            while let Some(done) = each.join_next().await {
                done??;
            }
            // The client closes once it has all.
            connection.closed().await;
            anyhow::Ok(connection.remote_address())
        }
    });
    let connection = soon(client.connect(local, "server.test")?).await??;
    let mut each = tokio::task::JoinSet::new();
    for _ in 0..streams {
        let stream = connection.open_bi().await?;
        let (question, answer) = (question.clone(), answer.clone());
        each.spawn(async move { exchange(stream, &question, &answer).await });
    }
    while let Some(done) = soon(each.join_next()).await? {
        done??;
    }
    let flow = only(&ambassador)?;
    let least = (streams * BYTES) as u64;
    ensure!(flow.bytes_in > least && flow.bytes_out > least, "{flow:?}");
    connection.close(0_u32.into(), b"done");
    soon(client.wait_idle()).await?;
    let seen: SocketAddr = soon(serving).await???;
    ensure!(seen != client.local_addr()?, "it came by way of the relay");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mebibyte_goes_both_ways() -> Result<()> {
    let directory = tempfile::tempdir()?;
    talk(directory.path(), 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_share_a_connection() -> Result<()> {
    let directory = tempfile::tempdir()?;
    talk(directory.path(), 4).await
}
