//! Credentials from files: nothing starts without them, and changes are taken when they are whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Control, Options, PutError, Resolver, spec};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod support;
use support::tls::*;
use support::*;

const EAST: &str = "spiffe://mesh/prod/east";

struct Files(tempfile::TempDir);

impl Files {
    fn new(held: &Held, authority: &Authority) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        files.write("cert.pem", &held.certificate)?;
        files.write("key.pem", &held.key)?;
        files.write("bundle.pem", &authority.bundle)?;
        Ok(files)
    }

    /// Puts a new file in the place of an old one, as those who renew credentials do.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let fresh = self.0.path().join("fresh");
        std::fs::write(&fresh, text)?;
        Ok(std::fs::rename(fresh, self.0.path().join(name))?)
    }

    fn config(&self, to: std::net::SocketAddr) -> String {
        let path = self.0.path().display();
        format!(
            "[[forward]]\nname = \"files\"\nlisten = \"tcp://127.0.0.1:0\"\nto = [\"{to}\"]\n\
             tls = \"terminate\"\ntls_certificate = \"{path}/cert.pem\"\ntls_key = \"{path}/key.pem\"\n\
             tls_bundle = \"{path}/bundle.pem\"\nallow = [\"spiffe://mesh/prod/*\"]\n"
        )
    }
}

fn control() -> Control {
    Control::new(
        Arc::new(Ambassador::new(Options::default())),
        Resolver::new(),
    )
}

async fn put(control: &Control, config: &str) -> Result<(), PutError> {
    let specs = spec::from_toml(Path::new("f"), config).expect("right in form");
    control.put(specs).await
}

/// Why a configuration is not taken, which looking at it tells as trying it does.
async fn refused(control: &Control, config: &str) -> Result<String> {
    let specs = spec::from_toml(Path::new("f"), config)?;
    let looked = Resolver::new().check(&specs).await.err();
    let looked = chain(looked.context("looking finds nothing wrong")?);
    let tried = chain(put(control, config).await.err().context("it is taken")?);
    ensure!(looked == tried, "{looked}, but {tried}");
    Ok(tried)
}

fn chain(error: PutError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test]
async fn a_forward_that_lacks_its_files_does_not_start() -> Result<()> {
    let authority = Authority::new("authority")?;
    let (held, other) = (authority.issue(&[EAST])?, authority.issue(&[EAST])?);
    let upstream = naming_server(b'u').await?;
    let control = control();
    put(
        &control,
        &format!("[[forward]]\nlisten = \"tcp://127.0.0.1:0\"\nto = [\"{upstream}\"]"),
    )
    .await?;
    let expired = authority.issue_until(&[EAST], 2020)?;
    let nameless = authority.issue(&[])?;
    let huge = "x".repeat((1 << 20) + 1);
    let cases = [
        ("cert.pem", None, "No such file"),
        ("key.pem", None, "No such file"),
        ("bundle.pem", None, "No such file"),
        ("cert.pem", Some(""), "-----BEGIN CERTIFICATE-----"),
        ("key.pem", Some("nothing"), "-----BEGIN PRIVATE KEY-----"),
        (
            "bundle.pem",
            Some("-----BEGIN CERTIFICATE-----\n!"),
            "not PEM",
        ),
        ("key.pem", Some(&other.key), "not the certificate's"),
        (
            "cert.pem",
            Some(&nameless.certificate),
            "not the certificate's",
        ),
        ("cert.pem", Some(&huge), "larger than 1 MiB"),
    ];
    for (name, text, wrong) in cases {
        let files = Files::new(&held, &authority)?;
        match text {
            Some(text) => files.write(name, text)?,
            None => std::fs::remove_file(files.0.path().join(name))?,
        }
        let error = refused(&control, &files.config(upstream))
            .await
            .context(name)?;
        ensure!(
            error.contains("\"files\"") && error.contains(wrong),
            "{error}"
        );
        // Of a pair that does not match, either may be to blame.
        ensure!(
            error.contains(name) || wrong.contains("match") || wrong.contains("'s"),
            "{error}"
        );
    }
    for (held, wrong) in [(expired, "expired"), (nameless, "0 URI names")] {
        let files = Files::new(&held, &authority)?;
        let error = refused(&control, &files.config(upstream))
            .await
            .context(wrong)?;
        ensure!(
            error.contains("cert.pem") && error.contains(wrong),
            "{error}"
        );
    }
    let running = control.ambassador().listeners();
    ensure!(
        running.len() == 1 && running[0].name != "files",
        "what ran goes on"
    );
    ensure!(who(running[0].local).await?.0 == b'u', "and is served");
    Ok(())
}

#[tokio::test]
async fn files_are_read_again_when_they_change() -> Result<()> {
    let log = log::capture();
    let (authority, successor) = (Authority::new("authority")?, Authority::new("successor")?);
    let files = Files::new(&authority.issue(&[EAST])?, &authority)?;
    let upstream = naming_server(b'u').await?;
    let control = control();
    put(&control, &files.config(upstream)).await?;
    let local = local(control.ambassador(), 0);
    let west = authority.issue(&["spiffe://mesh/prod/west"])?;
    let mut open = dial(local, Some(&west), &[&TLS13]).await?;
    ensure!(soon(open.read_u8()).await?? == b'u');

    // Half of a renewal, and then half a file.
    let renewed = authority.issue(&["spiffe://mesh/prod/renewed"])?;
    files.write("cert.pem", &renewed.certificate)?;
    log.says(&["not taken", "key.pem", "not the certificate's"])
        .await?;
    files.write("bundle.pem", &authority.bundle[..100])?;
    files.write("key.pem", &renewed.key)?;
    log.says(&["not taken", "bundle.pem", "not PEM"]).await?;
    let mut meanwhile = dial(local, Some(&west), &[&TLS13]).await?;
    ensure!(
        soon(meanwhile.read_u8()).await?? == b'u',
        "what was valid goes on"
    );
    // The same configuration again does not read what is broken.
    put(&control, &files.config(upstream)).await?;

    files.write("bundle.pem", &authority.bundle)?;
    log.says(&["credentials renewed", "spiffe://mesh/prod/renewed"])
        .await?;
    let shown = dial(local, Some(&west), &[&TLS13]).await?;
    let certificates = shown.get_ref().1.peer_certificates();
    let certificates = certificates.context("a certificate")?;
    let name = b"spiffe://mesh/prod/renewed";
    ensure!(certificates[0].windows(name.len()).any(|part| part == name));
    open.write_all(b"still there").await?;
    let carried = || {
        control
            .ambassador()
            .flows()
            .iter()
            .any(|flow| flow.bytes_in == 11)
    };
    until("the open flow goes on", carried).await?;

    // Trust in those it was opened by ends.
    files.write("bundle.pem", &successor.bundle)?;
    ensure!(soon(open.read_u8()).await?.is_err(), "reset");
    let told = ["may not speak any more", "forward=files", "Client"];
    ensure!(log.line(&told).is_some(), "{}", log.text());
    let late = async {
        let mut late = dial(local, Some(&west), &[&TLS13]).await?;
        anyhow::Ok(soon(late.read_u8()).await??)
    };
    ensure!(late.await.is_err(), "newcomers of theirs are refused");
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_expires_is_told_and_others_are_served() -> Result<()> {
    let log = log::capture();
    let authority = Authority::new("authority")?;
    let brief = "spiffe://mesh/prod/brief";
    let held = authority.issue_briefly(&[brief], Duration::from_secs(3))?;
    let files = Files::new(&held, &authority)?;
    let upstream = naming_server(b'u').await?;
    let control = control();
    let plain = format!(
        "[[forward]]\nname = \"plain\"\nlisten = \"tcp://127.0.0.1:0\"\nto = [\"{upstream}\"]\n"
    );
    put(&control, &(files.config(upstream) + &plain)).await?;
    let listeners = control.ambassador().listeners();
    let at = |name: &str| listeners.iter().find(|bound| bound.name == name);
    let (own, plain) = (at("files").context("it")?, at("plain").context("other")?);
    let west = authority.issue(&["spiffe://mesh/prod/west"])?;
    let mut open = dial(own.local, Some(&west), &[&TLS13]).await?;
    ensure!(soon(open.read_u8()).await?? == b'u');

    log.says(&["out of date", brief, "cert.pem", "expired"])
        .await?;
    ensure!(who(plain.local).await?.0 == b'u', "the other is served");
    open.write_all(b"still there").await?;
    let flows = || control.ambassador().flows();
    until("the open flow goes on", || {
        flows().iter().any(|flow| flow.bytes_in == 11)
    })
    .await?;

    let renewed = authority.issue(&[brief])?;
    files.write("cert.pem", &renewed.certificate)?;
    files.write("key.pem", &renewed.key)?;
    log.says(&["credentials renewed", brief]).await?;
    let mut late = dial(own.local, Some(&west), &[&TLS13]).await?;
    ensure!(soon(late.read_u8()).await?? == b'u');
    Ok(())
}
