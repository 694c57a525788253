//! `context ls` and `context inspect`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::choose::{Target, current, overriding};
use super::find;
use super::store::{DEFAULT, Meta, Store};
use crate::cli::failure::complain;
use crate::cli::human;
use crate::cli::inspect::show;
use crate::cli::list::{List, row};
use crate::cli::output::{line, warn};
use crate::cli::template::Template;

/// Flags of `context ls`.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// Show only names
    #[arg(short, long)]
    quiet: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Shown", "NAME"),
    ("Name", "NAME"),
    ("Current", "CURRENT"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
];

pub(super) fn list(args: &LsArgs, target: &Target, store: &Store) -> anyhow::Result<u8> {
    let current = current(target)?;
    let mut all = store.list()?;
    all.push(find(DEFAULT, target, store)?);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rows: Vec<_> = all
        .iter()
        .map(|meta| shown(meta, &current, String::new()))
        .collect();
    if !all.iter().any(|meta| meta.name == current) {
        let error = store.find(&current).expect_err("it is not among them");
        let gone = Meta::new(&current, "", "");
        rows.push(shown(&gone, &current, error.to_string()));
    }
    if args.quiet {
        for row in &rows {
            line(row["Name"].as_str().unwrap_or_default())?;
        }
        return Ok(0);
    }
    if args.format.is_none() {
        for row in &mut rows {
            let error = human::ellipsis(row["Error"].as_str().unwrap_or_default(), 45);
            row.insert("Error".to_owned(), error.into());
        }
    } else if args.format.as_deref() != Some("table") {
        for row in &mut rows {
            row.remove("Shown");
        }
    }
    let list = List {
        fields: FIELDS,
        columns: vec!["Shown", "Description", "DockerEndpoint", "Error"],
        rows,
    };
    list.print(args.format.as_deref())?;
    if args.format.is_none()
        && let Some(variable) = overriding()
    {
        warn(&format!(
            "Warning: {variable} environment variable overrides the active context. To use a context, either set the global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(0)
}

fn shown(meta: &Meta, current: &str, error: String) -> Map<String, Value> {
    let is_current = meta.name == current;
    let mark = if is_current { " *" } else { "" };
    let mut shown = Map::new();
    shown.insert("Current".to_owned(), is_current.into());
    shown.extend(row([
        ("Description", meta.description().to_owned()),
        ("DockerEndpoint", meta.host().to_owned()),
        ("Error", error),
        ("Name", meta.name.clone()),
        ("Shown", format!("{}{mark}", meta.name)),
    ]));
    shown
}

/// Flags of `context inspect`.
#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// The one in use, if none is named
    #[arg(value_name = "CONTEXT")]
    names: Vec<String>,
}

pub(super) fn inspect(args: InspectArgs, target: &Target, store: &Store) -> anyhow::Result<u8> {
    let template = Template::of_json(args.format.as_deref())?;
    let names = match args.names.is_empty() {
        true => vec![current(target)?],
        false => args.names,
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &names {
        match whole(name, target, store) {
            Ok(whole) => found.push(whole),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    show(found, template.as_ref(), args.format.is_some())?;
    Ok(code)
}

/// All there is to know of a context.
fn whole(name: &str, target: &Target, store: &Store) -> anyhow::Result<Value> {
    let mut meta = find(name, target, store)?;
    let place = |directory: PathBuf| match name {
        DEFAULT => "<IN MEMORY>".to_owned(),
        _ => directory.display().to_string(),
    };
    if name == DEFAULT {
        meta.describe("");
    }
    let tls: Map<String, Value> = store
        .tls(name)
        .into_iter()
        .map(|(endpoint, files)| (endpoint, files.into()))
        .collect();
    Ok(json!({
        "Name": meta.name,
        "Metadata": meta.metadata,
        "Endpoints": meta.endpoints,
        "TLSMaterial": tls,
        "Storage": {
            "MetadataPath": place(store.meta_directory(name)),
            "TLSPath": place(store.tls_directory(name)),
        },
    }))
}
