//! A strict reader of the OpenMetrics text format, as far as it has counters, gauges, histograms
//! and infos.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};

/// The samples of a text that is valid, by name and sorted labels as `name{a="1",b="2"}`.
#[derive(Debug)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Those whose name begins so, added up.
    pub fn sum(&self, prefix: &str) -> f64 {
        let found = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        found.map(|(_, value)| value).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[derive(Default)]
struct Family {
    name: String,
    kind: Option<String>,
    unit: Option<String>,
    help: Option<String>,
    /// Labels of the samples before, without `le`, in the order of their first appearance.
    points: Vec<String>,
    samples: usize,
    /// Of the histogram that is being read: the last bound and count, and what came with it.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
}

type Labels = Vec<(String, String)>;

/// Reads a whole exposition.
pub fn parse(text: &str) -> Result<Samples> {
    let body = text
        .strip_suffix("# EOF\n")
        .context("no # EOF at the end")?;
    let mut names = HashSet::new();
    let mut samples = BTreeMap::new();
    let mut family = Family::default();
    for line in body.split_terminator('\n') {
        let result = match line.strip_prefix("# ") {
            Some(metadata) => describe(metadata, &mut family, &mut names),
            None => sample(line, &mut family, &mut samples),
        };
        result.with_context(|| format!("in {line:?}"))?;
    }
    family.finish()?;
    Ok(Samples(samples))
}

fn describe(metadata: &str, family: &mut Family, names: &mut HashSet<String>) -> Result<()> {
    let mut words = metadata.splitn(3, ' ');
    let mut word = || words.next().context("cut short");
    let (keyword, name, value) = (word()?, word()?, word()?);
    if family.name != name {
        family.finish()?;
        ensure!(is_name(name), "not a name");
        ensure!(names.insert(name.to_owned()), "{name} comes twice");
        *family = Family {
            name: name.to_owned(),
            ..Family::default()
        };
    }
    ensure!(family.samples == 0, "metadata after samples");
    let slot = match keyword {
        "TYPE" => &mut family.kind,
        "UNIT" => &mut family.unit,
        "HELP" => &mut family.help,
        other => bail!("unknown {other}"),
    };
    ensure!(slot.replace(value.to_owned()).is_none(), "comes twice");
    let known = ["counter", "gauge", "histogram", "info"];
    ensure!(keyword != "TYPE" || known.contains(&value), "unknown type");
    let suffix = format!("_{value}");
    ensure!(
        keyword != "UNIT" || name.ends_with(&suffix),
        "not the unit of the name"
    );
    Ok(())
}

impl Family {
    fn finish(&mut self) -> Result<()> {
        self.finish_histogram()
            .with_context(|| format!("in family {}", self.name))
    }

    fn finish_histogram(&mut self) -> Result<()> {
        let buckets = std::mem::take(&mut self.buckets);
        let Some((bound, all)) = buckets.last().copied() else {
            return Ok(());
        };
        ensure!(bound == f64::INFINITY, "no bucket +Inf");
        ensure!(self.count.take() == Some(all), "+Inf is not the count");
        Ok(())
    }
}

fn sample(line: &str, family: &mut Family, samples: &mut BTreeMap<String, f64>) -> Result<()> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name), "not a name");
    let (mut labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value: f64 = rest.strip_prefix(' ').context("no space")?.parse()?;
    let kind = family.kind.clone().context("no TYPE before")?;
    let suffix = name
        .strip_prefix(&family.name)
        .context("not of this family")?;
    let whole = value.fract() == 0.0;
    match (kind.as_str(), suffix) {
        ("counter", "_total") => ensure!(value >= 0.0 && value.is_finite(), "not a count"),
        ("gauge", "") => {}
        ("info", "_info") => ensure!(value == 1.0, "an info is 1"),
        ("histogram", "_sum") => ensure!(value >= 0.0, "less than nothing"),
        ("histogram", "_count") => ensure!(whole, "not a count"),
        ("histogram", "_bucket") => ensure!(whole, "not a count"),
        _ => bail!("{suffix:?} does not belong to a {kind}"),
    }
    let bound = labels.iter().position(|(name, _)| name == "le");
    ensure!(
        bound.is_some() == (suffix == "_bucket"),
        "le where it does not belong"
    );
    let key = |labels: &Labels| {
        let mut labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        labels.sort();
        labels.join(",")
    };
    let whole_key = key(&labels);
    let bound = bound.map(|at| labels.remove(at).1);
    let point = key(&labels);
    if family.points.last() != Some(&point) {
        family.finish()?;
        ensure!(
            !family.points.contains(&point),
            "its samples are torn apart"
        );
        family.points.push(point);
    }
    if suffix == "_count" {
        family.count = Some(value);
    }
    if let Some(bound) = bound {
        let bound: f64 = bound.parse()?;
        if let Some((before, count)) = family.buckets.last() {
            ensure!(*before < bound && *count <= value, "buckets do not rise");
        }
        family.buckets.push((bound, value));
    }
    family.samples += 1;
    let shown = if whole_key.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{whole_key}}}")
    };
    ensure!(samples.insert(shown, value).is_none(), "comes twice");
    Ok(())
}

/// The labels up to the closing brace, and what follows it.
fn labels(text: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").context("no label")?;
        ensure!(
            is_name(name) && !name.contains(':'),
            "not a label's name: {name:?}"
        );
        ensure!(
            labels.iter().all(|(known, _)| known != name),
            "{name} comes twice"
        );
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().context("a value without an end")? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match chars.next().context("cut short")?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => bail!("\\{c} is no escape"),
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end..];
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        rest = rest.strip_prefix(',').context("neither , nor }")?;
    }
}

fn is_name(text: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(begins) && text.chars().all(|c| begins(c) || c.is_ascii_digit())
}
