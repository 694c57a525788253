//! What was measured: as a table, as JSON, as a figure, and in the documentation.

mod document;
mod figures;
mod json;
mod machine;
mod overlay;
mod runtime;
mod samples;
mod suite;
mod svg;
mod table;
mod targets;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use machine::Machine;
use samples::Samples;
use suite::Suite;

/// What `report` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Lines of round, path, figure and value, separated by tabs
    samples: PathBuf,
    /// What of: the ambassador, the runtime or the overlay
    #[arg(long, default_value = "ambassador", value_parser = Suite::named)]
    suite: &'static Suite,
    /// What was measured, as git describes it
    #[arg(long)]
    revision: String,
    /// Where the JSON goes
    #[arg(long)]
    results: PathBuf,
    /// A Markdown file whose part between two markers is written anew; the figure goes with it
    #[arg(long)]
    document: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let text = fs::read_to_string(&arguments.samples)
        .with_context(|| format!("read {}", arguments.samples.display()))?;
    let suite = arguments.suite;
    let samples = Samples::parse(&text, suite)?;
    let machine = Machine::here(&arguments.revision);
    print!("{}", table::text(&samples));

    let results = &arguments.results;
    fs::create_dir_all(results).with_context(|| format!("make {}", results.display()))?;
    let file = results.join(suite.results(&machine.stamp()));
    write(&file, &json::text(&samples, &machine))?;
    println!("\nwritten to {}", file.display());
    if let Some(document) = &arguments.document {
        let figure = results.join(suite.drawing);
        write(&figure, &svg::text(&samples, &machine))?;
        document::refresh(document, suite, &document::section(&samples, &machine))?;
        println!(
            "drawn in {}, shown by {}",
            figure.display(),
            document.display()
        );
    }
    Ok(())
}

fn write(file: &std::path::Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
