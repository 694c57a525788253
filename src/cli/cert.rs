//! `cert`: certificates of operators, by which they use the API of a mesh's hosts over TCP.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use nuncio_mesh::Key;
use serde::{Deserialize, Serialize};

use super::mesh::span;
use super::output::line;
use super::parse::Span;
use super::tls::TlsFiles;
use crate::client::Client;

/// `nuncio cert`.
#[derive(Args, Debug)]
pub(super) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make a certificate for an operator, who may then do by TCP on each host of the mesh what root may do there
    Create(CreateArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example, on the mesh's manager:
  nuncio cert create --client ann --expiry 8h
and where ann works, with what that wrote to the directory ann:
  export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD/ann
  docker -H tcp://10.0.0.1:2376 ps
where the daemon of 10.0.0.1 is run with -H tcp://10.0.0.1:2376")]
struct CreateArgs {
    /// Who it is for, as the audit logs of hosts will have it
    #[arg(long, value_name = "NAME")]
    client: String,

    /// How long it is good; there is no way to end it before that but another authority
    #[arg(long, value_name = "DURATION", default_value = "168h")]
    expiry: Span,

    /// Where to put ca.pem, cert.pem and key.pem (default: a directory of that name, here)
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    name: String,
    key: String,
    expiry: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    certificate: String,
    authority: String,
    expires: i64,
}

pub(super) async fn run(args: CertArgs, client: &Client) -> anyhow::Result<u8> {
    let CertCommand::Create(args) = args.command;
    let directory = args.output.unwrap_or_else(|| PathBuf::from(&args.client));
    let files = TlsFiles::within(&directory);
    for path in [&files.ca, &files.cert, &files.key] {
        if path.exists() {
            bail!(
                "{} is there already: choose another --output",
                path.display()
            );
        }
    }
    let key = Key::generate(); // which stays here
    let wanted = Wanted {
        name: args.client,
        key: key.to_public(),
        expiry: span(args.expiry).as_secs(),
    };
    let made = client.post("/nuncio/v1/certificates").json(&wanted);
    let made: Made = made.send().await?.json().await?;
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    for (path, text) in [
        (&files.ca, &made.authority),
        (&files.cert, &made.certificate),
        (&files.key, &key.to_pem()),
    ] {
        write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    line(&format!(
        "{} has ca.pem, cert.pem and key.pem, good until {}",
        directory.display(),
        Timestamp::from_second(made.expires)?
    ))?;
    Ok(0)
}

/// A new file that is its owner's alone.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
