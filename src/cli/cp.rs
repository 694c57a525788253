//! `cp`: files between a container and this machine, by Docker's rules for what the copy is called.

mod place;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use nuncio_runtime::files::{ContainerPath, Extraction, Look, extract_untrusted};
use tokio_util::io::ReaderStream;

use place::{PathStat, Target, archive, look, place, url};

use super::human;
use super::output::{warn, write_out};
use crate::client::{Client, ClientError};
use crate::pipe;

/// Bytes read at a time from standard input.
const CHUNK: usize = 64 << 10;

/// Flags of `cp`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio cp web:/etc/nginx/nginx.conf .
  nuncio cp site/. web:/srv/www
  nuncio cp web:/var/log - | tar t")]
pub(super) struct CpArgs {
    /// What is copied into the container is to be its user's
    #[arg(short, long)]
    archive: bool,

    /// Copy what a link leads to, if the source is one
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// Do not tell how much was copied
    #[arg(short, long)]
    quiet: bool,

    /// What to copy; - is an archive from standard input
    #[arg(value_name = "[CONTAINER:]SOURCE")]
    source: String,

    /// Where to; - is an archive to standard output
    #[arg(value_name = "[CONTAINER:]TARGET")]
    target: String,
}

pub(super) async fn run(args: CpArgs, client: &Client) -> anyhow::Result<u8> {
    let (from, source) = split(&args.source);
    let (to, target) = split(&args.target);
    if source.is_empty() {
        bail!("source can not be empty");
    }
    if target.is_empty() {
        bail!("destination can not be empty");
    }
    match (from, to) {
        (Some(container), None) => fetch(&args, client, container, source, target).await?,
        (None, Some(container)) => send(&args, client, container, source, target).await?,
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source"),
    }
    Ok(0)
}

/// The container and the path; what begins with a dot or a slash is a path of this machine.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((container, path)) if !container.starts_with(['.', '/']) && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, text),
    }
}

/// From a container to this machine.
async fn fetch(
    args: &CpArgs,
    client: &Client,
    container: &str,
    source: &str,
    target: &str,
) -> anyhow::Result<()> {
    let asked = ContainerPath::parse(source)?;
    let mut path = asked.clone();
    if args.follow_link
        && let Some(stat) = look(client, container, source).await?
        && stat.is_link()
    {
        path = ContainerPath::parse(&stat.link_target)?;
    }
    let output = match target {
        "-" => None,
        target => Some(local_target(target)?),
    };
    let mut answer = archive(client.get(&url(container)), path.as_str())
        .send()
        .await?;
    let Some(output) = output else {
        while let Some(chunk) = answer.chunk().await? {
            write_out(&chunk)?;
        }
        return Ok(());
    };
    let stat = PathStat::of(&answer)?;
    let found = std::fs::metadata(&output);
    let text = output
        .to_str()
        .context("the target's path is not in UTF-8")?;
    let placed = place(
        stat.is_dir(),
        &Target {
            path: text,
            exists: found.is_ok(),
            is_dir: found.is_ok_and(|found| found.is_dir()),
        },
    )?;
    let base = path.base().to_owned();
    let name = placed.name.or_else(|| {
        // what was found by a link keeps the link's name
        (path.base() != asked.base()).then(|| asked.base().to_owned())
    });
    let how = Extraction {
        keep_kinds: true,
        rename: name.map(|name| (base, name)),
        ..Extraction::default()
    };
    let (chunks, reader) = pipe::incoming();
    let directory = PathBuf::from(placed.directory);
    let extracting =
        tokio::task::spawn_blocking(move || extract_untrusted(&directory, reader, &how));
    let mut size = 0;
    let mut broken = None;
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                size += chunk.len();
                if chunks.send(Ok(chunk)).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let cut = std::io::ErrorKind::UnexpectedEof;
                let _ = chunks.send(Err(cut.into())).await; // it may have given up already
                broken = Some(error);
                break;
            }
        }
    }
    drop(chunks);
    let extracted = extracting.await?;
    if let Some(error) = broken {
        return Err(error.into());
    }
    extracted?;
    tell(args, size, text);
    Ok(())
}

/// An absolute path whose directory is there, links at its end followed.
fn local_target(text: &str) -> anyhow::Result<PathBuf> {
    let mut path = absolute(text)?;
    for _ in 0..40 {
        let Ok(link) = std::fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    let bare = path.to_string_lossy();
    let bare = Path::new(bare.trim_end_matches("/.").trim_end_matches('/'));
    let parent = bare.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        bail!("invalid output path: directory {parent:?} does not exist");
    }
    Ok(path)
}

/// `text` from the root on; a slash or a dot at its end is kept, as it says that a directory is meant.
fn absolute(text: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("find the working directory")?;
    let whole = here.join(text);
    let whole = whole
        .to_str()
        .context("the working directory's path is not in UTF-8")?;
    Ok(PathBuf::from(ContainerPath::parse(whole)?.as_str()))
}

/// From this machine to a container.
async fn send(
    args: &CpArgs,
    client: &Client,
    container: &str,
    source: &str,
    target: &str,
) -> anyhow::Result<()> {
    let mut path = target.to_owned();
    let mut stat = look(client, container, target).await?;
    if let Some(link) = stat.as_ref().filter(|stat| stat.is_link()) {
        path.clone_from(&link.link_target);
        stat = look(client, container, &path).await?;
    }
    if stat.as_ref().is_some_and(PathStat::is_special) {
        bail!("destination \"{container}:{target}\" must be a directory or a regular file");
    }
    let is_dir = stat.as_ref().is_some_and(PathStat::is_dir);
    let put = client
        .put(&url(container))
        .query("noOverwriteDirNonDir", "true");
    let put = match args.archive {
        true => put.query("copyUIDGID", "true"),
        false => put,
    };
    if source == "-" {
        if !is_dir {
            bail!("destination \"{container}:{target}\" must be a directory");
        }
        let stdin = ReaderStream::with_capacity(tokio::io::stdin(), CHUNK);
        let body = BodyExt::boxed(StreamBody::new(stdin.map_ok(Frame::data)));
        archive(put, &path)
            .body(body, "application/x-tar")
            .send()
            .await?;
        return Ok(());
    }
    let local = absolute(source)?;
    let look = || format!("look at {source}");
    let found = Look::at(&local, args.follow_link).with_context(look)?;
    let named = ContainerPath::parse(
        local
            .to_str()
            .context("the source's path is not in UTF-8")?,
    )?;
    let known = Target {
        path: &path,
        exists: stat.is_some(),
        is_dir,
    };
    let placed = place(found.is_dir(), &known)?;
    let found = found.called(placed.name.as_deref().unwrap_or(named.base()));
    let (mut writer, chunks) = pipe::outgoing();
    let packing = tokio::task::spawn_blocking(move || match found.pack(&mut writer) {
        Ok(()) => Ok(()),
        Err(error) => {
            writer.fail(std::io::ErrorKind::UnexpectedEof.into());
            Err(error)
        }
    });
    let size = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&size);
    let stream = chunks.map(move |chunk| {
        let length = chunk.as_ref().map_or(0, bytes::Bytes::len);
        counted.fetch_add(length, Ordering::Relaxed);
        chunk.map(Frame::data)
    });
    let body = BodyExt::boxed(StreamBody::new(stream));
    let sent = archive(put, &placed.directory)
        .body(body, "application/x-tar")
        .send()
        .await;
    match (packing.await?, sent) {
        // The daemon's word counts for more than that it hung up.
        (_, Err(error @ ClientError::Refused { .. })) => return Err(error.into()),
        (Err(error), _) => return Err(error).with_context(|| format!("read {source}")),
        (Ok(()), sent) => drop(sent?),
    }
    let size = size.load(Ordering::Relaxed);
    tell(args, size, &format!("{container}:{path}"));
    Ok(())
}

fn tell(args: &CpArgs, size: usize, target: &str) {
    // without a terminal nobody watches
    if !args.quiet && std::io::stdout().is_terminal() {
        let size = human::size(i64::try_from(size).unwrap_or(i64::MAX));
        warn(&format!("Successfully copied {size} to {target}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_tells_containers_from_paths() {
        assert_eq!(split("web:/etc"), (Some("web"), "/etc"));
        assert_eq!(split("web:etc:x"), (Some("web"), "etc:x"));
        for local in ["/a:b", "./a:b", "../a:b", "file", "-", ":x"] {
            assert_eq!(split(local), (None, local));
        }
    }
}
