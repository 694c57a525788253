//! Parts of a service that are written short or in words: ports, volumes, networks, files.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::decode::{Section, parsed, text};
use super::yaml::{Node, Value, Wrong};
use crate::cli::parse::{Publish, Size};

/// A published port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli) struct Port {
    pub(in crate::cli) target: u16,
    /// A port, a range to choose from, or empty: any.
    pub(in crate::cli) published: String,
    /// Empty: every address.
    pub(in crate::cli) host_ip: String,
    pub(in crate::cli) protocol: String,
    /// `ingress` or `host`.
    pub(in crate::cli) mode: String,
}

impl Port {
    /// # Errors
    ///
    /// What is no port, with its place.
    pub(super) fn decode_all(section: &mut Section) -> Result<Vec<Self>, Wrong> {
        let path = section.path_of("ports");
        let mut ports: Vec<Self> = Vec::new();
        for node in section.list("ports")? {
            match node.value {
                Value::Map(_) => ports.push(Self::long(Section::new(&path, node)?)?),
                _ => {
                    let publish: Publish = parsed(&path, node)?;
                    ports.extend(publish.bindings().map(|binding| {
                        let (target, protocol) = binding
                            .port
                            .split_once('/')
                            .unwrap_or((&binding.port, "tcp"));
                        Self {
                            target: target.parse().unwrap_or_default(),
                            published: binding.host_port,
                            host_ip: binding.address,
                            protocol: protocol.to_owned(),
                            mode: "ingress".to_owned(),
                        }
                    }));
                }
            }
        }
        let mut seen: Vec<Self> = Vec::new();
        ports.retain(|port| {
            let is_new = !seen.contains(port);
            seen.push(port.clone());
            is_new
        });
        Ok(ports)
    }

    fn long(mut section: Section) -> Result<Self, Wrong> {
        let or = |word: Option<String>, default: &str| word.unwrap_or_else(|| default.to_owned());
        let target = section.integer("target")?;
        let target = target
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        let port = Self {
            target: target
                .ok_or_else(|| section.wrong("target is required: a number from 1 to 65535"))?,
            published: or(section.text("published")?, ""),
            host_ip: or(section.text("host_ip")?, ""),
            protocol: or(section.text("protocol")?, "tcp"),
            mode: or(section.text("mode")?, "ingress"),
        };
        section.drop_key("name");
        section.drop_key("app_protocol");
        let number = |text: &str| text.parse::<u16>().is_ok();
        let is_range = |text: &str| {
            text.split_once('-')
                .is_some_and(|(first, last)| number(first) && number(last))
        };
        if !port.published.is_empty() && !number(&port.published) && !is_range(&port.published) {
            return Err(section.wrong(format!(
                "published {:?} is no port: expected a number from 0 to 65535",
                port.published
            )));
        }
        if !["tcp", "udp", "sctp"].contains(&port.protocol.as_str()) {
            return Err(section.wrong(format!(
                "protocol {:?} is none: expected tcp, udp or sctp",
                port.protocol
            )));
        }
        if !["ingress", "host"].contains(&port.mode.as_str()) {
            return Err(section.wrong(format!(
                "mode {:?} is none: expected ingress or host",
                port.mode
            )));
        }
        section.finish()?;
        Ok(port)
    }
}

/// What is mounted where.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Volume {
    /// `bind`, `volume` or `tmpfs`.
    pub(in crate::cli) kind: String,
    /// A path, or the name of a volume of the file; none: a volume of its own.
    pub(in crate::cli) source: Option<String>,
    pub(in crate::cli) target: String,
    pub(in crate::cli) read_only: bool,
    pub(in crate::cli) propagation: Option<String>,
    pub(in crate::cli) create_host_path: bool,
    pub(in crate::cli) no_copy: bool,
    pub(in crate::cli) tmpfs_size: Option<i64>,
    pub(in crate::cli) tmpfs_mode: Option<i64>,
}

impl Volume {
    /// # Errors
    ///
    /// What is no volume, with its place.
    pub(super) fn decode_all(section: &mut Section) -> Result<Vec<Self>, Wrong> {
        let path = section.path_of("volumes");
        let mut volumes: Vec<Self> = Vec::new();
        for node in section.list("volumes")? {
            let volume = match node.value {
                Value::Map(_) => Self::long(Section::new(&path, node)?)?,
                _ => {
                    let at = node.at.clone();
                    let text = text(&path, node)?;
                    Self::short(&text).map_err(|what| at.wrong(format!("{path}: {what}")))?
                }
            };
            // Of two at one place the later counts.
            volumes.retain(|other| other.target != volume.target);
            volumes.push(volume);
        }
        Ok(volumes)
    }

    fn short(text: &str) -> Result<Self, String> {
        let expected = "expected [SOURCE:]TARGET[:OPTIONS], as data:/data or ./src:/src:ro";
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => return Err(format!("invalid spec: {text}: {expected}")),
        };
        if !target.starts_with('/') || source == Some("") {
            return Err(format!(
                "invalid spec: {text}: {expected}; the target is an absolute path"
            ));
        }
        let is_path = |source: &&str| source.starts_with(['/', '.', '~']);
        let mut volume = Self {
            kind: if source.as_ref().is_some_and(is_path) {
                "bind"
            } else {
                "volume"
            }
            .to_owned(),
            source: source.map(str::to_owned),
            target: target.to_owned(),
            create_host_path: true,
            ..Self::default()
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => volume.read_only = true,
                "nocopy" => volume.no_copy = true,
                // z and Z are of SELinux, the others of other systems.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                    volume.propagation = Some(option.to_owned());
                }
                _ => return Err(format!("invalid spec: {text}: {option} is no option")),
            }
        }
        Ok(volume)
    }

    fn long(mut section: Section) -> Result<Self, Wrong> {
        let mut volume = Self {
            kind: section.text("type")?.unwrap_or_else(|| "volume".to_owned()),
            source: section.text("source")?,
            target: section.text("target")?.unwrap_or_default(),
            read_only: section.flag("read_only")?.unwrap_or_default(),
            ..Self::default()
        };
        section.drop_key("consistency");
        if !["bind", "volume", "tmpfs"].contains(&volume.kind.as_str()) {
            return Err(section.wrong(format!(
                "type {:?} is not built: expected bind, volume or tmpfs",
                volume.kind
            )));
        }
        if !volume.target.starts_with('/') {
            return Err(section.wrong("target is required, and is an absolute path"));
        }
        if volume.kind == "bind" && volume.source.is_none() {
            return Err(section.wrong("invalid bind mount config: source is required"));
        }
        if let Some(mut bind) = section.section("bind")? {
            volume.propagation = bind.text("propagation")?;
            volume.create_host_path = bind.flag("create_host_path")?.unwrap_or_default();
            bind.drop_key("selinux");
            bind.finish()?;
        }
        if let Some(mut options) = section.section("volume")? {
            volume.no_copy = options.flag("nocopy")?.unwrap_or_default();
            options.finish()?;
        }
        if let Some(mut options) = section.section("tmpfs")? {
            volume.tmpfs_size = options.parsed::<Size>("size")?.map(Size::bytes);
            volume.tmpfs_mode = match options.text("mode")? {
                None => None,
                Some(text) => Some(
                    mode(&text)
                        .ok_or_else(|| options.wrong("mode must be octal digits behind a 0"))?
                        .into(),
                ),
            };
            options.finish()?;
        }
        section.finish()?;
        Ok(volume)
    }
}

/// A number as Go reads it: octal behind a 0, else decimal.
fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    match digits {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// How a service is on a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Join {
    pub(in crate::cli) aliases: Vec<String>,
    pub(in crate::cli) ipv4: Option<Ipv4Addr>,
    pub(in crate::cli) ipv6: Option<Ipv6Addr>,
    pub(in crate::cli) driver_opts: BTreeMap<String, String>,
}

impl Join {
    /// # Errors
    ///
    /// What is no network, with its place.
    pub(super) fn decode_all(section: &mut Section) -> Result<BTreeMap<String, Self>, Wrong> {
        let path = section.path_of("networks");
        match section.take("networks") {
            None => Ok(BTreeMap::new()),
            Some(Node {
                value: Value::List(items),
                ..
            }) => {
                let names = items
                    .into_iter()
                    .map(|item| Ok((text(&path, item)?, Self::default())));
                names.collect()
            }
            Some(node) => {
                let mut all = Section::new(&path, node)?;
                let mut joins = BTreeMap::new();
                for (name, node) in all.rest() {
                    let mut one = Section::new(&format!("{path}.{name}"), node)?;
                    let join = Self {
                        aliases: one.texts("aliases")?,
                        ipv4: one.parsed("ipv4_address")?,
                        ipv6: one.parsed("ipv6_address")?,
                        driver_opts: one.labels("driver_opts")?,
                    };
                    one.drop_key("priority");
                    one.finish()?;
                    joins.insert(name, join);
                }
                Ok(joins)
            }
        }
    }
}

/// A secret or a config that a service has as a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli) struct FileRef {
    pub(in crate::cli) source: String,
    pub(in crate::cli) target: Option<String>,
    pub(in crate::cli) uid: String,
    pub(in crate::cli) gid: String,
    pub(in crate::cli) mode: u32,
}

impl FileRef {
    /// # Errors
    ///
    /// What is none, with its place.
    pub(super) fn decode_all(section: &mut Section, key: &str) -> Result<Vec<Self>, Wrong> {
        let path = section.path_of(key);
        let mut files: Vec<Self> = Vec::new();
        for node in section.list(key)? {
            let file = match node.value {
                Value::Map(_) => Self::long(Section::new(&path, node)?)?,
                _ => Self::named(text(&path, node)?),
            };
            files.retain(|other| (&other.source, &other.target) != (&file.source, &file.target));
            files.push(file);
        }
        Ok(files)
    }

    fn named(source: String) -> Self {
        Self {
            source,
            target: None,
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        }
    }

    fn long(mut section: Section) -> Result<Self, Wrong> {
        let source = section.text("source")?;
        let mut file = Self::named(source.ok_or_else(|| section.wrong("source is required"))?);
        file.target = section.text("target")?;
        file.uid = section.text("uid")?.unwrap_or(file.uid);
        file.gid = section.text("gid")?.unwrap_or(file.gid);
        if let Some(given) = section.text("mode")? {
            file.mode = mode(&given).ok_or_else(|| {
                section.wrong(format!(
                    "mode {given:?} is none: expected octal digits behind a 0, as 0440"
                ))
            })?;
        }
        section.finish()?;
        Ok(file)
    }
}
