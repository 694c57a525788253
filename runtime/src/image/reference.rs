//! Image names as Docker writes them: `redis` means `docker.io/library/redis:latest`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;

/// The registry meant by a name that gives none.
pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";
/// Where Docker Hub keeps images whose name has one part.
const DEFAULT_NAMESPACE: &str = "library/";
/// Bytes a repository's path may have, by the distribution specification.
const MAX_REPOSITORY: usize = 255;
/// Bytes a tag may have, by the distribution specification.
const MAX_TAG: usize = 128;

/// The full name of an image: registry, repository and a tag, a digest, or both.
///
/// Parsing fills in what Docker fills in; `Display` writes everything out, [`Reference::familiar`] the
/// short form that people type.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and perhaps port of the registry, such as `docker.io` or `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository at its registry, such as `library/redis`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if the text gave neither tag nor digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, if the text gave one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What people type: `redis:latest`, `someone/thing@sha256:…`, `localhost:5000/x:1`.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    /// [`Reference::familiar`] without tag and digest.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        let short = match self.repository.strip_prefix(DEFAULT_NAMESPACE) {
            Some(short) if !short.contains('/') => short,
            _ => &self.repository,
        };
        if split_registry(short).0 == DEFAULT_REGISTRY {
            short.to_owned()
        } else {
            format!("{DEFAULT_REGISTRY}/{short}") // a path such as localhost/x would read as a registry
        }
    }

    /// The same repository at exactly this manifest.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The name under which the image is kept: the tag alone where there is one.
    pub(crate) fn tagged(&self) -> Option<Self> {
        self.tag.as_ref().map(|_| Self {
            digest: None,
            ..self.clone()
        })
    }

    fn suffix(&self) -> String {
        let mut suffix = String::new();
        if let Some(tag) = &self.tag {
            suffix.push(':');
            suffix.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            suffix.push('@');
            suffix.push_str(&digest.to_string());
        }
        suffix
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

/// A text that names no image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "invalid reference format: {input:?}: {problem}; write [REGISTRY/]NAME[:TAG][@sha256:DIGEST]"
)]
pub struct InvalidReference {
    /// The text as given.
    pub input: String,
    /// What is wrong with it.
    pub problem: ReferenceProblem,
}

/// What is wrong with the text of a [`Reference`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceProblem {
    /// Nothing stands where the name belongs.
    #[error("the name is empty")]
    Empty,
    /// Registries know repositories in lower case only.
    #[error("repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// One part of the path has a character or a separator out of place.
    #[error(
        "the part {0:?} must be letters and digits, joined by single '.', '_', \"__\" or dashes"
    )]
    Component(String),
    /// What stands before the first slash is no host name.
    #[error("{0:?} is not a registry's HOST or HOST:PORT")]
    Registry(String),
    /// The tag is empty, too long, or has a character out of place.
    #[error(
        "the tag {0:?} must be 1 to 128 letters, digits, '_', '.' or '-', not led by '.' or '-'"
    )]
    Tag(String),
    /// The digest is not a sha256 one.
    #[error("the digest {0:?} must be sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// The path is longer than registries take.
    #[error("the name has more than {MAX_REPOSITORY} bytes")]
    TooLong,
    /// 64 hexadecimal digits would be mistaken for an image's ID.
    #[error("64 hexadecimal digits are an image's ID, not a name")]
    LooksLikeId,
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(input: &str) -> Result<Self, InvalidReference> {
        parse(input).map_err(|problem| InvalidReference {
            input: input.to_owned(),
            problem,
        })
    }
}

fn parse(input: &str) -> Result<Reference, ReferenceProblem> {
    if Digest::from_hex(input).is_some() {
        return Err(ReferenceProblem::LooksLikeId);
    }
    let (rest, digest) = match input.split_once('@') {
        None => (input, None),
        Some((rest, text)) => {
            let digest = text
                .parse()
                .map_err(|_| ReferenceProblem::Digest(text.to_owned()))?;
            (rest, Some(digest))
        }
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    let repository =
        if registry == DEFAULT_REGISTRY && !repository.is_empty() && !repository.contains('/') {
            format!("{DEFAULT_NAMESPACE}{repository}")
        } else {
            repository.to_owned()
        };
    check_repository(&repository)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// What stands before the first slash is a registry only if it cannot be part of a path.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (
                if first == "index.docker.io" {
                    DEFAULT_REGISTRY
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), ReferenceProblem> {
    let wrong = || ReferenceProblem::Registry(registry.to_owned());
    let port = if let Some(bracketed) = registry.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']').ok_or_else(wrong)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        port
    } else {
        let host = registry.split(':').next().unwrap_or_default();
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !host.split('.').all(label) {
            return Err(wrong());
        }
        &registry[host.len()..]
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits)
            if digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok() =>
        {
            Ok(())
        }
        _ => Err(wrong()),
    }
}

fn check_repository(repository: &str) -> Result<(), ReferenceProblem> {
    if repository.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceProblem::UpperCase(repository.to_owned()));
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(ReferenceProblem::TooLong);
    }
    match repository.split('/').find(|part| !is_component(part)) {
        None => Ok(()),
        Some(part) => Err(ReferenceProblem::Component(part.to_owned())),
    }
}

/// `alnum+ (separator alnum+)*`, a separator being `.`, `_`, `__` or any number of dashes.
fn is_component(part: &str) -> bool {
    let is_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let framed =
        bytes.first().copied().is_some_and(is_alnum) && bytes.last().copied().is_some_and(is_alnum);
    framed
        && bytes
            .split(|&b| is_alnum(b))
            .all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|&b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ReferenceProblem> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let led = tag.bytes().next().is_some_and(is_word);
    if led && tag.len() <= MAX_TAG && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-') {
        Ok(())
    } else {
        Err(ReferenceProblem::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests;
