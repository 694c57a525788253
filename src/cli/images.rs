//! `images`, `load` and `tag`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bollard_stubs::models::ImageSummary;
use clap::Args;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::human;
use super::list::{List, filters, row};
use super::parse::Reference;
use super::ps::created_at;
use super::pull::{Progress, show};
use crate::client::Client;

/// Flags of `images`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio images
  nuncio images --format '{{.Repository}}:{{.Tag}} {{.Size}}'")]
pub(super) struct ListArgs {
    /// Show also those that only others are made of
    #[arg(short, long)]
    all: bool,

    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show digests
    #[arg(long)]
    digests: bool,

    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,

    /// Show those for which this holds
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// table, json, or a template as {{.Repository}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show only those of this name
    #[arg(value_name = "NAME[:TAG]")]
    reference: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

pub(super) async fn list(args: ListArgs, client: &Client) -> anyhow::Result<u8> {
    let mut given = args.filter.clone();
    given.extend(
        args.reference
            .iter()
            .map(|reference| format!("reference={reference}")),
    );
    let call = client
        .get("/images/json")
        .flag("all", args.all)
        .flag("digests", args.digests);
    let images: Vec<ImageSummary> = call
        .optional("filters", filters(&given)?)
        .send()
        .await?
        .json()
        .await?;
    let mut columns = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if args.digests {
        columns.insert(2, "Digest");
    }
    let mut rows: Vec<Map<String, Value>> = images
        .iter()
        .flat_map(|image| fields(image, args.no_trunc, args.digests))
        .collect();
    if args.quiet {
        // one line for an image of several names
        rows.dedup_by(|a, b| a.get("ID") == b.get("ID"));
    }
    let list = List {
        fields: FIELDS,
        columns,
        rows,
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

/// A row for each name of an image.
fn fields(image: &ImageSummary, whole: bool, digests: bool) -> Vec<Map<String, Value>> {
    let none = || "<none>".to_owned();
    let split = |text: &str, mark| {
        let (name, rest): (&str, &str) = text.rsplit_once(mark)?;
        (name != "<none>").then(|| (name.to_owned(), rest.to_owned()))
    };
    let by_digest: Vec<_> = image
        .repo_digests
        .iter()
        .filter_map(|digest| split(digest, '@'))
        .collect();
    let digest_of = |name: &str| {
        let found = by_digest.iter().find(|(repository, _)| repository == name);
        found.map_or_else(none, |(_, digest)| digest.clone())
    };
    let mut names: Vec<(String, String, String)> = image
        .repo_tags
        .iter()
        .filter_map(|tag| split(tag, ':'))
        .map(|(name, tag)| (digest_of(&name), name, tag))
        .map(|(digest, name, tag)| (name, tag, digest))
        .collect();
    if names.is_empty() {
        names.extend(
            by_digest
                .iter()
                .map(|(name, digest)| (name.clone(), none(), digest.clone())),
        );
        names.truncate(if digests { usize::MAX } else { 1 });
    }
    if names.is_empty() {
        names.push((none(), none(), none()));
    }
    let id = if whole {
        &image.id
    } else {
        human::short_id(&image.id)
    };
    let of_name = |(repository, tag, digest)| {
        row([
            ("Repository", repository),
            ("Tag", tag),
            ("Digest", digest),
            ("ID", id.to_owned()),
            ("CreatedSince", human::ago(image.created)),
            ("CreatedAt", created_at(image.created)),
            ("Size", human::size(image.size)),
        ])
    };
    names.into_iter().map(of_name).collect()
}

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
}

/// Sends an archive to the daemon.
pub(super) async fn load(args: LoadArgs, client: &Client) -> anyhow::Result<u8> {
    let archive: Box<dyn AsyncRead + Send + Sync + Unpin> = match &args.input {
        Some(path) => {
            let open = || format!("open {}", path.display());
            Box::new(tokio::fs::File::open(path).await.with_context(open)?)
        }
        None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
            bail!(
                "requested load from stdin, but stdin is a terminal: name an archive with -i, or pipe one in"
            )
        }
        None => Box::new(tokio::io::stdin()),
    };
    let body = StreamBody::new(ReaderStream::with_capacity(archive, 256 << 10).map_ok(Frame::data))
        .boxed();
    let call = client
        .post("/images/load")
        .query("quiet", "1")
        .body(body, "application/x-tar");
    let progress = if args.quiet {
        Progress::None
    } else {
        Progress::Stdout
    };
    show(call.send().await?.lines(), progress).await?;
    Ok(0)
}

/// Flags of `tag`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio tag redis:7 localhost:5000/team/redis:7")]
pub(super) struct TagArgs {
    #[arg(value_name = "IMAGE")]
    image: String,

    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
}

/// Gives an image another name.
pub(super) async fn tag(args: TagArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client.post(&format!("/images/{}/tag", args.image));
    let tag = args.name.tag().unwrap_or("latest");
    call.query("repo", args.name.familiar_name())
        .query("tag", tag)
        .send()
        .await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = ImageSummary {
            id: "sha256:0123456789abcdef".to_owned(),
            repo_tags: vec!["a:1".to_owned(), "localhost:5000/b:2".to_owned()],
            repo_digests: vec!["a@sha256:ff".to_owned()],
            ..ImageSummary::default()
        };
        let rows = fields(&image, false, true);
        let cells = |field: &str| {
            rows.iter()
                .map(|row| row[field].as_str().unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert_eq!(cells("Repository"), ["a", "localhost:5000/b"]);
        assert_eq!(cells("Tag"), ["1", "2"]);
        assert_eq!(cells("Digest"), ["sha256:ff", "<none>"]);
        assert_eq!(cells("ID"), ["0123456789ab", "0123456789ab"]);
        let unnamed = fields(&ImageSummary::default(), false, false);
        assert_eq!(unnamed[0]["Repository"], "<none>");
    }
}
