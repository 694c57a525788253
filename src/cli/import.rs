//! `import`.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::parse::Reference;
use super::pull::{Progress, show};
use crate::client::Client;

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;

/// Flags of `import`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio import root.tar.gz team/root:1
  nuncio export web | nuncio import -c 'CMD [\"sh\"]' - web:flat")]
pub(super) struct ImportArgs {
    /// A Dockerfile's instruction to apply (may be repeated)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,

    /// What to say of it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// OS and architecture, as linux/amd64 (default: this host's)
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    /// The archive of a root file system; - is standard input
    #[arg(value_name = "FILE|-")]
    source: String,

    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

/// Makes an image of an archive and prints its id.
pub(super) async fn run(args: ImportArgs, client: &Client) -> anyhow::Result<u8> {
    let is_url = ["http://", "https://", "ftp://"]
        .iter()
        .any(|scheme| args.source.starts_with(scheme));
    let source = if is_url { args.source.as_str() } else { "-" };
    let mut call = client
        .post("/images/create")
        .query("fromSrc", source)
        .optional("repo", args.name.as_ref().map(Reference::familiar_name))
        .optional("tag", args.name.as_ref().map(Reference::tag_or_digest))
        .optional("message", args.message)
        .optional("platform", args.platform);
    for change in &args.change {
        call = call.query("changes", change);
    }
    if !is_url {
        let archive = open(&args.source).await?;
        let stream = ReaderStream::with_capacity(archive, CHUNK).map_ok(Frame::data);
        call = call.body(StreamBody::new(stream).boxed(), "application/x-tar");
    }
    show(call.send().await?.lines(), Progress::Stdout).await?;
    Ok(0)
}

async fn open(source: &str) -> anyhow::Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
    if source == "-" {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let open = || format!("open {}", Path::new(source).display());
    let file = tokio::fs::File::open(source).await.with_context(open)?;
    Ok(Box::new(file))
}
