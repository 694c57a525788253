//! `images` and `tag`.

use std::collections::BTreeMap;

use bollard_stubs::models::ImageSummary;
use clap::Args;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, filters, row};
use super::parse::{Filter, Reference};
use super::ps::created_at;
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
    filter: Vec<Filter>,

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
    ("VirtualSize", "VIRTUAL SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];

pub(super) async fn list(args: ListArgs, client: &Client) -> anyhow::Result<u8> {
    let mut given = args.filter.clone();
    given.extend(
        args.reference
            .iter()
            .map(|reference| Filter::new("reference", reference)),
    );
    let call = client
        .get("/images/json")
        .flag("all", args.all)
        .flag("digests", args.digests);
    let images: Vec<ImageSummary> = call
        .optional("filters", filters(&given))
        .send()
        .await?
        .json()
        .await?;
    let mut columns = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    let format = args.format.as_deref();
    let digests = args.digests || format.is_some_and(|format| format.contains(".Digest"));
    if args.digests {
        columns.insert(2, "Digest");
    }
    let rows = images
        .iter()
        .flat_map(|image| fields(image, args.no_trunc, digests));
    let list = List {
        fields: FIELDS,
        columns,
        rows: rows.collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(format)?;
    }
    Ok(0)
}

/// A row for each tag of an image, or with `digests` for each tag and digest; and for each repository that knows it
/// only by digest.
pub(super) fn fields(image: &ImageSummary, whole: bool, digests: bool) -> Vec<Map<String, Value>> {
    let none = || "<none>".to_owned();
    let mut repositories: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for name in &image.repo_tags {
        if let Some((repository, tag)) = split(name, ':') {
            repositories.entry(repository).or_default().0.push(tag);
        }
    }
    for name in &image.repo_digests {
        if let Some((repository, digest)) = split(name, '@') {
            repositories.entry(repository).or_default().1.push(digest);
        }
    }
    let mut names = Vec::new();
    for (repository, (mut tags, mut known)) in repositories {
        if tags.is_empty() {
            tags.push(none());
        }
        if !digests || known.is_empty() {
            known = vec![none()];
        }
        let pairs = tags
            .iter()
            .flat_map(|tag| known.iter().map(move |digest| (tag, digest)));
        names.extend(pairs.map(|(tag, digest)| (repository, tag.clone(), digest.clone())));
    }
    if names.is_empty() {
        names.push(("<none>", none(), none()));
    }
    let id = if whole {
        &image.id
    } else {
        human::short_id(&image.id)
    };
    let since = match image.created {
        ..=0 => "N/A".to_owned(),
        created => human::ago(created),
    };
    let of_name = |(repository, tag, digest): (&str, String, String)| {
        row([
            ("Containers", "N/A".to_owned()),
            ("CreatedAt", created_at(image.created)),
            ("CreatedSince", since.clone()),
            ("Digest", digest),
            ("ID", id.to_owned()),
            ("Repository", repository.to_owned()),
            ("SharedSize", "N/A".to_owned()),
            ("Size", human::size(image.size)),
            ("Tag", tag),
            ("UniqueSize", "N/A".to_owned()),
            ("VirtualSize", human::size(image.size)),
        ])
    };
    names.into_iter().map(of_name).collect()
}

/// A name and what stands behind the mark, unless it is nobody's.
fn split(text: &str, mark: char) -> Option<(&str, String)> {
    let (name, rest) = text.rsplit_once(mark)?;
    (name != "<none>").then(|| (name, rest.to_owned()))
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
