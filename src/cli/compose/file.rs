//! Compose files as one project.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::decode::Section;
use super::interpolate;
use super::merge::merge;
use super::service::Service;
use super::show;
use super::yaml::{self, Node, Value, Wrong};
use crate::cli::output::warn;
use crate::cli::parse::read_env_file;

/// The most that is read of a file.
const LONGEST: u64 = 4 << 20;

/// All that the files say.
#[derive(Debug, Default)]
pub(in crate::cli) struct Project {
    /// As the files call it.
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) services: BTreeMap<String, Service>,
    pub(in crate::cli) networks: BTreeMap<String, Network>,
    pub(in crate::cli) volumes: BTreeMap<String, NamedVolume>,
    pub(in crate::cli) secrets: StoredMap,
    pub(in crate::cli) configs: StoredMap,
    /// What paths in the files begin at.
    pub(in crate::cli) directory: PathBuf,
    pub(in crate::cli) files: Vec<String>,
}

/// Secrets or configs, as the files call them.
pub(in crate::cli) type StoredMap = BTreeMap<String, Stored>;

/// A network at the top level.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Network {
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) external: bool,
    pub(in crate::cli) driver: Option<String>,
    pub(in crate::cli) driver_opts: BTreeMap<String, String>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) attachable: bool,
    pub(in crate::cli) internal: bool,
    pub(in crate::cli) enable_ipv6: bool,
    pub(in crate::cli) ipam_driver: Option<String>,
    /// Subnets, each with its gateway and range.
    pub(in crate::cli) subnets: Vec<(String, Option<String>, Option<String>)>,
}

/// A volume at the top level.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct NamedVolume {
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) external: bool,
    pub(in crate::cli) driver: Option<String>,
    pub(in crate::cli) driver_opts: BTreeMap<String, String>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
}

/// A secret or a config at the top level.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Stored {
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) external: bool,
    pub(in crate::cli) file: Option<String>,
    pub(in crate::cli) environment: Option<String>,
    pub(in crate::cli) content: Option<String>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) template_driver: Option<String>,
}

/// Reads `files` upon each other; `-` is standard input.
///
/// # Errors
///
/// What cannot be read, and what is wrong in them, with file, line and key.
pub(in crate::cli) fn load(files: &[String], env_file: Option<&Path>) -> anyhow::Result<Project> {
    let directory = directory_of(files)?;
    let variables = variables(&directory, env_file)?;
    let look_up = |name: &str| {
        std::env::var(name)
            .ok()
            .or_else(|| variables.get(name).cloned())
    };
    let node = merged_tree(files, Some(&look_up))?;
    let mut project = decode(node)?;
    project.directory = directory;
    project.files = files.to_vec();
    project.resolve(&look_up)?;
    Ok(project)
}

/// What `files` come to, as YAML.
///
/// # Errors
///
/// As [`load`].
pub(in crate::cli) fn merged(
    files: &[String],
    env_file: Option<&Path>,
    skip_interpolation: bool,
) -> anyhow::Result<String> {
    let variables = variables(&directory_of(files)?, env_file)?;
    let look_up = |name: &str| {
        std::env::var(name)
            .ok()
            .or_else(|| variables.get(name).cloned())
    };
    let look_up: LookUp<'_> = &look_up;
    let node = merged_tree(files, (!skip_interpolation).then_some(look_up))?;
    let mut out = String::new();
    show::write(&node.value, 0, &mut out);
    Ok(out)
}

/// Where relative paths of the files begin.
fn directory_of(files: &[String]) -> anyhow::Result<PathBuf> {
    let first = files.first().context("no compose file is given")?;
    let directory = match first.as_str() {
        "-" => Path::new("."),
        path => Path::new(path).parent().unwrap_or(Path::new(".")),
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    std::fs::canonicalize(directory).with_context(|| format!("find the directory of {first}"))
}

fn merged_tree(files: &[String], look_up: Option<LookUp<'_>>) -> anyhow::Result<Node> {
    let mut texts = Vec::new();
    for file in files {
        texts.push((file.as_str(), read(file)?));
    }
    let mut unset = Vec::new();
    let node = tree(&texts, look_up, &mut unset)?;
    for name in unset {
        warn(&format!(
            "The \"{name}\" variable is not set. Defaulting to a blank string."
        ));
    }
    Ok(node)
}

fn read(file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    match file {
        "-" => std::io::stdin().take(LONGEST).read_to_string(&mut text),
        path => std::fs::File::open(path)
            .with_context(|| format!("open {path}"))?
            .take(LONGEST)
            .read_to_string(&mut text),
    }
    .with_context(|| format!("read {file}"))?;
    Ok(text)
}

/// What the file of variables says; `.env` beside the first file may be missing.
fn variables(directory: &Path, env_file: Option<&Path>) -> anyhow::Result<HashMap<String, String>> {
    let beside = directory.join(".env");
    let path = match env_file {
        Some(path) => path,
        None if beside.is_file() => &beside,
        None => return Ok(HashMap::new()),
    };
    let lines = read_env_file(path)?;
    let pairs = lines.iter().filter_map(|line| line.resolve(|_| None));
    Ok(pairs.filter_map(|pair| unquoted(&pair)).collect())
}

/// A line of such a file: quotation marks around a value are none of it.
fn unquoted(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let value = value.trim();
    let bare = ['"', '\''].iter().find_map(|mark| {
        let inside = value.strip_prefix(*mark)?;
        inside.split_once(*mark).map(|(inside, _)| inside)
    });
    let plain = || {
        value
            .split_once(" #")
            .map_or(value, |(value, _)| value)
            .trim_end()
    };
    Some((
        name.trim().to_owned(),
        bare.unwrap_or_else(plain).to_owned(),
    ))
}

/// How variables are found.
type LookUp<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What files say, upon each other, without looking at anything else.
///
/// # Errors
///
/// What is wrong in them, with file, line and key.
fn tree(
    files: &[(&str, String)],
    look_up: Option<LookUp<'_>>,
    unset: &mut Vec<String>,
) -> Result<Node, Wrong> {
    let mut merged: Option<Node> = None;
    for (file, text) in files {
        let mut node = yaml::parse(file, text)?;
        if let Some(look_up) = look_up {
            interpolate::replace(&mut node, look_up, unset)?;
            // Each is looked at by itself, so that what is wrong is told of the right file.
            decode(node.clone())?;
        }
        merged = Some(match merged {
            None => node,
            Some(base) => merge("", base, node),
        });
    }
    Ok(merged.unwrap_or(Node {
        at: yaml::At {
            file: "".into(),
            line: 0,
        },
        value: Value::Null,
    }))
}

fn decode(node: Node) -> Result<Project, Wrong> {
    let mut root = Section::new("", node)?;
    root.drop_key("version");
    let mut project = Project {
        name: root.text("name")?,
        ..Project::default()
    };
    for (name, section) in root.sections("services")? {
        let service = Service::decode(&name, section)?;
        project.services.insert(name, service);
    }
    for (name, section) in root.sections("networks")? {
        project.networks.insert(name, Network::decode(section)?);
    }
    for (name, section) in root.sections("volumes")? {
        project.volumes.insert(name, NamedVolume::decode(section)?);
    }
    for (name, section) in root.sections("secrets")? {
        project.secrets.insert(name, Stored::decode(section)?);
    }
    for (name, section) in root.sections("configs")? {
        project.configs.insert(name, Stored::decode(section)?);
    }
    root.finish()?;
    Ok(project)
}

/// Whether something is there already, and as what: `true`, or `{name: ..}` as it once was.
fn external(section: &mut Section, name: &mut Option<String>) -> Result<bool, Wrong> {
    let path = section.path_of("external");
    match section.take("external") {
        None => Ok(false),
        Some(
            node @ Node {
                value: Value::Map(_),
                ..
            },
        ) => {
            let mut older = Section::new(&path, node)?;
            *name = older.text("name")?.or(name.take());
            older.finish()?;
            Ok(true)
        }
        Some(node) => match super::decode::text(&path, node.clone())?.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(node
                .at
                .wrong(format!("{path} must be true or false, and is {other:?}"))),
        },
    }
}

impl Network {
    fn decode(mut section: Section) -> Result<Self, Wrong> {
        let mut name = section.text("name")?;
        let mut network = Self {
            external: external(&mut section, &mut name)?,
            driver: section.text("driver")?,
            driver_opts: section.labels("driver_opts")?,
            labels: section.labels("labels")?,
            attachable: section.flag("attachable")?.unwrap_or_default(),
            internal: section.flag("internal")?.unwrap_or_default(),
            enable_ipv6: section.flag("enable_ipv6")?.unwrap_or_default(),
            name,
            ..Self::default()
        };
        if let Some(mut ipam) = section.section("ipam")? {
            network.ipam_driver = ipam.text("driver")?;
            let path = ipam.path_of("config");
            for node in ipam.list("config")? {
                let mut config = Section::new(&path, node)?;
                let subnet = config.text("subnet")?;
                let (gateway, range) = (config.text("gateway")?, config.text("ip_range")?);
                let subnet = subnet.ok_or_else(|| config.wrong("subnet is required"))?;
                config.finish()?;
                network.subnets.push((subnet, gateway, range));
            }
            ipam.finish()?;
        }
        section.finish()?;
        Ok(network)
    }
}

impl NamedVolume {
    fn decode(mut section: Section) -> Result<Self, Wrong> {
        let mut name = section.text("name")?;
        let volume = Self {
            external: external(&mut section, &mut name)?,
            driver: section.text("driver")?,
            driver_opts: section.labels("driver_opts")?,
            labels: section.labels("labels")?,
            name,
        };
        section.finish()?;
        Ok(volume)
    }
}

impl Stored {
    fn decode(mut section: Section) -> Result<Self, Wrong> {
        let mut name = section.text("name")?;
        let stored = Self {
            external: external(&mut section, &mut name)?,
            file: section.text("file")?,
            environment: section.text("environment")?,
            content: section.text("content")?,
            labels: section.labels("labels")?,
            template_driver: section.text("template_driver")?,
            name,
        };
        if section.drop_key("driver") {
            return Err(section.wrong("driver: nothing else keeps secrets"));
        }
        let sources = [
            stored.file.is_some(),
            stored.environment.is_some(),
            stored.content.is_some(),
        ];
        let sources = sources.into_iter().filter(|given| *given).count();
        if sources > 1 || (sources == 0 && !stored.external) {
            return Err(
                section.wrong("expected one of file, environment and content, or external: true")
            );
        }
        section.finish()?;
        Ok(stored)
    }
}

impl Project {
    /// Reads files of variables, and makes paths absolute.
    fn resolve(&mut self, look_up: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        for service in self.services.values_mut() {
            let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
            for (path, required) in &service.env_files {
                let path = self.directory.join(path);
                if !required && !path.is_file() {
                    continue;
                }
                let read = read_env_file(&path)
                    .with_context(|| format!("service {}: env_file", service.name))?;
                let lines = read.iter().filter_map(|line| line.resolve(look_up));
                found.extend(
                    lines
                        .filter_map(|line| unquoted(&line))
                        .map(|(name, value)| (name, Some(value))),
                );
            }
            for (name, value) in std::mem::take(&mut service.environment) {
                let value = value.or_else(|| look_up(&name));
                found.insert(name, value);
            }
            service.environment = found;
            for volume in service
                .volumes
                .iter_mut()
                .filter(|volume| volume.kind == "bind")
            {
                let source = volume.source.take().unwrap_or_default();
                volume.source = Some(absolute(&self.directory, &source));
            }
            for volume in service
                .volumes
                .iter()
                .filter(|volume| volume.kind == "volume")
            {
                if let Some(source) = &volume.source
                    && !self.volumes.contains_key(source)
                {
                    bail!(
                        "service {}: undefined volume {source:?}: define it under volumes at the top level",
                        service.name
                    );
                }
            }
            for network in service.networks.keys() {
                if network != "default" && !self.networks.contains_key(network) {
                    bail!(
                        "service {}: undefined network {network:?}: define it under networks at the top level",
                        service.name
                    );
                }
            }
            for (kind, wanted, there) in [
                ("secret", &service.secrets, &self.secrets),
                ("config", &service.configs, &self.configs),
            ] {
                if let Some(missing) = wanted.iter().find(|one| !there.contains_key(&one.source)) {
                    bail!(
                        "service {}: undefined {kind} {:?}: define it under {kind}s at the top level",
                        service.name,
                        missing.source
                    );
                }
            }
        }
        let stored = self.secrets.values_mut().chain(self.configs.values_mut());
        for file in stored.filter_map(|stored| stored.file.as_mut()) {
            *file = absolute(&self.directory, file);
        }
        Ok(())
    }
}

fn absolute(directory: &Path, path: &str) -> String {
    let home = || std::env::var("HOME").unwrap_or_default();
    let path = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", home()),
        _ => path.to_owned(),
    };
    let mut all = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(all.pop()),
            part => all.push(part),
        }
    }
    all.display().to_string()
}

#[cfg(test)]
mod tests;
