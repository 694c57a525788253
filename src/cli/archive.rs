//! `save` and `load`: images as archives.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use nuncio_runtime::image::Writeback;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::output::write_out;
use super::pull::{Progress, show};
use crate::client::{Answer, Call, Client};

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;

/// Flags of `load`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio load -i redis.tar
  xz -dc redis.tar.xz | nuncio load")]
pub(super) struct LoadArgs {
    /// The archive (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Print nothing but the names of the images
    #[arg(short, long)]
    quiet: bool,

    /// OS and architecture, as linux/amd64, of those in the archive; only this host's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

/// Sends an archive to the daemon.
pub(super) async fn load(args: LoadArgs, client: &Client) -> anyhow::Result<u8> {
    let archive: Box<dyn AsyncRead + Send + Sync + Unpin> = match &args.input {
        Some(path) => {
            let open = || format!("open {}", path.display());
            Box::new(tokio::fs::File::open(path).await.with_context(open)?)
        }
        None if std::io::stdin().is_terminal() => {
            bail!(
                "requested load from stdin, but stdin is empty: name an archive with -i, or pipe one in"
            )
        }
        None => Box::new(tokio::io::stdin()),
    };
    let body = StreamBody::new(ReaderStream::with_capacity(archive, CHUNK).map_ok(Frame::data));
    // without a terminal nobody watches how far it has come
    let quiet = args.quiet || !std::io::stdout().is_terminal();
    let call = client
        .post("/images/load")
        .query("quiet", if quiet { "1" } else { "0" })
        .optional("platform", args.platform.as_deref())
        .body(body.boxed(), "application/x-tar");
    show(call.send().await?.lines(), Progress::Stdout).await?;
    Ok(0)
}

/// Flags of `save`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio save -o redis.tar redis:7
  nuncio save redis busybox | gzip > both.tar.gz")]
pub(super) struct SaveArgs {
    /// Where to write the archive (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// OS and architecture, as linux/amd64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Fetches an archive from the daemon.
pub(super) async fn save(args: SaveArgs, client: &Client) -> anyhow::Result<u8> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let mut call = client
        .get("/images/get")
        .optional("platform", args.platform.as_deref());
    for image in &args.images {
        call = call.query("names", image);
    }
    receive(call, args.output.as_deref()).await?;
    Ok(0)
}

/// Writes what a call answers to a file, whole or not at all, or to standard output.
pub(super) async fn receive(call: Call<'_>, output: Option<&Path>) -> anyhow::Result<()> {
    match output {
        None => {
            let mut answer = call.send().await?;
            while let Some(chunk) = answer.chunk().await? {
                write_out(&chunk)?;
            }
        }
        Some(path) => {
            check_place(path)?;
            let answer = call.send().await?;
            write_file(path, answer)
                .await
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

fn check_place(path: &Path) -> anyhow::Result<()> {
    let directory = directory_of(path);
    if !directory.is_dir() {
        bail!("invalid output path: directory {directory:?} does not exist");
    }
    let found = std::fs::metadata(path);
    if found.is_ok_and(|found| !found.is_file()) && !is_stream(path) {
        bail!("invalid output path: {path:?} must be a file");
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether it is something to write into as it stands, such as a pipe.
fn is_stream(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

/// Writes the whole file, or leaves what was there.
async fn write_file(path: &Path, mut answer: Answer) -> anyhow::Result<()> {
    if is_stream(path) {
        let mut stream = std::fs::File::options().write(true).open(path)?;
        while let Some(chunk) = answer.chunk().await? {
            stream.write_all(&chunk)?;
        }
        return Ok(());
    }
    let mut file = tempfile::Builder::new()
        .prefix(".nuncio-save-")
        .tempfile_in(directory_of(path))?;
    let (mut writeback, mut written) = (Writeback::default(), 0);
    while let Some(chunk) = answer.chunk().await? {
        file.write_all(&chunk)?;
        written += chunk.len() as u64;
        writeback.written(file.as_file(), written);
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}
