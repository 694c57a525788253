//! TLS passes through unchanged: OpenSSL at both ends, which verify each byte.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

mod support;
use support::program::*;
use support::*;

const FILE: &str = "large";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_arrives_over_tls() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let identity = Identity::make(directory.path()).await?;
    let content = noise(11, 1 << 20);
    std::fs::write(directory.path().join(FILE), &content)?;
    let mut server = program("openssl")
        // Port 0: it chooses one, and says which.
        .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert"])
        .arg(&identity.certificate)
        .arg("-key")
        .arg(&identity.key)
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start openssl (Debian package openssl)")?;
    let mut printed = lines(server.stdout.take().context("its output")?);
    let line = line_with(&mut printed, "ACCEPT ").await?;
    let line = line.context("openssl says where it listens")?;
    let address = line.trim_start_matches("ACCEPT ").parse();
    let address = address.with_context(|| format!("an address in {line:?}"))?;
    tokio::spawn(async move { while let Ok(Some(_)) = printed.next_line().await {} });

    for mode in MODES {
        let forward = limited(tcp("tls", &[address]), |limits| limits.mode = mode);
        let (ambassador, local) = running(forward).await?;
        for version in ["-tls1_2", "-tls1_3"] {
            let got = ask(&identity, &local.to_string(), version).await?;
            let body = got.windows(4).position(|end| end == b"\r\n\r\n");
            let body = &got[body.context("a head")? + 4..];
            ensure!(
                body == content,
                "{mode:?} {version}: {} bytes came",
                body.len()
            );
        }
        until("the flows have ended", || ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

/// What the server answers to one who trusts only `identity`.
async fn ask(identity: &Identity, to: &str, version: &str) -> Result<Vec<u8>> {
    let request = identity.certificate.with_file_name("request");
    std::fs::write(&request, format!("GET /{FILE} HTTP/1.0\r\n\r\n"))?;
    let mut client = program("openssl");
    client
        .args(["s_client", "-quiet", "-ign_eof", version, "-connect", to])
        .args([
            "-servername",
            "server.test",
            "-verify_hostname",
            "server.test",
        ])
        .args(["-verify_return_error", "-CAfile"])
        .arg(&identity.certificate)
        .stdin(std::fs::File::open(&request)?);
    output(client).await
}
