//! Hosts and an authority on loopback: who is let in, who is not, and what that tells them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nuncio_mesh::{Authority, Draft, Home, JoinError, JoinToken, Key, NodeId, Welcome, join};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A mesh with its authority listening.
struct Mesh {
    root: tempfile::TempDir,
    authority: Arc<Authority>,
    address: SocketAddr,
    token: JoinToken,
}

fn node(digit: char) -> anyhow::Result<NodeId> {
    Ok(digit.to_string().repeat(32).parse()?)
}

async fn mesh() -> anyhow::Result<Mesh> {
    let root = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let draft = Draft::open(root.path())?;
    let host = (&node('0')?, "first");
    let home = draft.found(host, (address, address), None, DAY)?;
    let authority = Arc::new(home.authority()?.context("it was founded here")?);
    let token = authority.create_token(Some(DAY), None)?;
    let serving = authority.clone();
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            let authority = serving.clone();
            tokio::spawn(async move {
                let acceptor = TlsAcceptor::from(authority.server_config()?);
                let stream = acceptor.accept(stream).await?;
                authority.answer(stream, from.ip()).await?;
                anyhow::Ok(())
            });
        }
    });
    Ok(Mesh {
        root,
        authority,
        address,
        token,
    })
}

impl Mesh {
    async fn join(&self, token: &JoinToken, digit: char, key: &Key) -> Result<Welcome, JoinError> {
        let node = node(digit).expect("a digit");
        join(token, self.address, (&node, "host"), key).await
    }

    async fn refusal(&self, token: &JoinToken) -> String {
        let refused = self.join(token, '9', &Key::generate()).await;
        refused.expect_err("nobody is let in").to_string()
    }
}

#[tokio::test]
async fn a_host_joins_and_its_certificate_is_renewed() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let root = tempfile::tempdir()?;
    let draft = Draft::open(root.path())?;
    let key = draft.key()?;
    let welcome = mesh.join(&mesh.token, '1', &key).await?;
    // As if the answer had been lost: the same host asks again, and is the same member.
    let draft = Draft::open(root.path())?;
    let key_again = draft.key()?;
    assert_eq!(key_again.to_pem(), key.to_pem());
    mesh.join(&mesh.token, '1', &key_again).await?;
    assert_eq!(mesh.authority.members().len(), 2);
    let id = node('1')?;
    let mut home = draft.accept(
        (mesh.token.mesh(), &id),
        mesh.address,
        None,
        (&welcome, &key),
    )?;
    let before = home.credentials()?;
    assert!(home.renewal() > DAY / 3 && home.renewal() <= DAY / 2);
    home.renew(None).await?;
    home.renew(None).await?;
    let after = home.credentials()?;
    assert_ne!(before.0, after.0);
    assert_eq!(before.1, after.1);
    let reopened = Home::open(root.path())?.context("it is a member")?;
    assert_eq!(reopened.credentials()?, after);
    assert!(reopened.authority()?.is_none());
    let again = Draft::open(root.path())
        .expect_err("it is a member")
        .to_string();
    assert!(again.contains("already part of a mesh"), "{again}");
    assert_private(root.path())?;
    assert_private(mesh.root.path())?;

    mesh.authority.remove_member("host")?;
    let error = home
        .renew(None)
        .await
        .expect_err("it is no member")
        .to_string();
    assert!(error.contains("was removed"), "{error}");
    Ok(())
}

/// All that is there is root's alone.
fn assert_private(root: &Path) -> anyhow::Result<()> {
    let directory = root.join("mesh");
    let mode = |path: &Path| Ok::<_, std::io::Error>(path.metadata()?.permissions().mode() & 0o777);
    assert_eq!(mode(&directory)?, 0o700);
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        assert_eq!(mode(&path)?, 0o600, "{}", path.display());
        assert!(
            !path.ends_with("next-key.pem"),
            "a key that is no longer wanted"
        );
    }
    Ok(())
}

#[tokio::test]
async fn tokens_that_let_nobody_in() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let expired = mesh.authority.create_token(Some(Duration::ZERO), None)?;
    assert!(mesh.refusal(&expired).await.contains("has expired"));
    let once = mesh.authority.create_token(None, Some(1))?;
    mesh.join(&once, '1', &Key::generate()).await?;
    assert!(mesh.refusal(&once).await.contains("is used up"));
    let removed = mesh.authority.create_token(None, None)?;
    mesh.authority.remove_token(&removed.id())?;
    assert!(mesh.refusal(&removed).await.contains("is not valid"));
    let rotated = mesh.authority.rotate_tokens(None, None)?;
    assert!(mesh.refusal(&mesh.token).await.contains("is not valid"));
    let taken = mesh.join(&rotated, '1', &Key::generate()).await;
    let taken = taken.expect_err("another host has this id").to_string();
    assert!(taken.contains("member already"), "{taken}");
    mesh.join(&rotated, '2', &Key::generate()).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_told_to_who_did_not_make_the_token() -> anyhow::Result<()> {
    let (mesh, other) = (mesh().await?, mesh().await?);
    let error = other.refusal(&mesh.token).await;
    assert!(error.contains("is not who made the token"), "{error}");
    // One that speaks no TLS: all it hears is the start of a handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut heard = vec![0; 4096];
        let bytes = stream.read(&mut heard).await?;
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await?;
        anyhow::Ok(heard[..bytes].to_vec())
    });
    let key = Key::generate();
    let joined = join(&mesh.token, address, (&node('1')?, "host"), &key).await;
    let error = joined.expect_err("that is no authority").to_string();
    assert!(error.contains("does not admit hosts"), "{error}");
    let heard = heard.await??;
    let secret = mesh.token.reveal();
    let secret = secret.rsplit('-').next().context("it ends in a secret")?;
    assert!(!String::from_utf8_lossy(&heard).contains(secret));
    Ok(())
}

#[tokio::test]
async fn noise_ends_its_own_connection_only() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    for noise in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
    ] {
        let mut stream = TcpStream::connect(mesh.address).await?;
        stream.write_all(noise).await?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // an alert, or a reset
        assert!(answer.len() < 64, "{answer:?}");
    }
    mesh.join(&mesh.token, '1', &Key::generate()).await?;
    Ok(())
}
