//! References to images, as `registry:5000/team/app:tag@sha256:..`.

use std::fmt;
use std::str::FromStr;

/// A reference that is well formed; what it leaves out is filled in when asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reference {
    /// Registry and path as written, without `docker.io/` and `library/`.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Not a reference. The first words are Docker's.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidReference {
    #[error(
        "invalid reference format: {0:?}: expected NAME[:TAG][@DIGEST], as redis:7 or localhost:5000/team/app"
    )]
    Format(String),
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Upper(String),
}

impl Reference {
    /// The name in full, with registry, as `docker.io/library/redis`.
    pub(crate) fn repository(&self) -> String {
        match self.name.split_once('/') {
            None => format!("docker.io/library/{}", self.name),
            Some((first, _)) if is_registry(first) => self.name.clone(),
            Some(_) => format!("docker.io/{}", self.name),
        }
    }

    /// The digest, or else the tag, or else `latest`.
    pub(crate) fn tag_or_digest(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The name as people write it, without a tag.
    pub(crate) fn familiar_name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// As it was given, but for `docker.io/` and `library/`.
    pub(crate) fn given(&self) -> String {
        if self.is_name_only() {
            self.name.clone()
        } else {
            self.to_string()
        }
    }

    /// Whether neither a tag nor a digest is given.
    pub(crate) fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

/// As people write it, with `:latest` if nothing else is given.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match (&self.tag, &self.digest) {
            (None, None) => f.write_str(":latest"),
            (tag, digest) => {
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
            }
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let wrong = || InvalidReference::Format(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
            return Err(wrong());
        }
        let (registry, path) = match name.split_once('/') {
            Some((registry, path)) if is_registry(registry) => (registry, path),
            _ => ("", name),
        };
        if !path.split('/').all(is_component) || name.len() > 255 {
            let lower = path.to_ascii_lowercase();
            return Err(if lower != path && lower.split('/').all(is_component) {
                InvalidReference::Upper(path.to_owned())
            } else {
                wrong()
            });
        }
        let name = match registry {
            "docker.io" | "index.docker.io" => path.strip_prefix("library/").unwrap_or(path),
            "" => path
                .strip_prefix("library/")
                .filter(|path| !path.contains('/'))
                .unwrap_or(path),
            _ => name,
        };
        let owned = |text: &str| text.to_owned();
        Ok(Self {
            name: owned(name),
            tag: tag.map(owned),
            digest: digest.map(owned),
        })
    }
}

/// Whether the first part of a name is a registry: only those have dots, ports or capitals.
fn is_registry(part: &str) -> bool {
    let (host, port) = part.split_once(':').unwrap_or((part, "0"));
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let looks_so = part == "localhost" || part.contains(['.', ':']) || part != part.to_lowercase();
    looks_so && is_port && host.split('.').all(is_label)
}

/// Lower-case letters and digits, joined by a dot, one or two underscores, or dashes.
fn is_component(part: &str) -> bool {
    let words: Vec<&str> = part
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .collect();
    let ends_in_words = words.first().is_some_and(|word| !word.is_empty())
        && words.last().is_some_and(|word| !word.is_empty());
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    ends_in_words && separators.into_iter().all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let is_hex = |hex: &str| {
        hex.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && is_hex(hex)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        let parts = |text: &str| {
            let reference: Reference = text.parse().expect(text);
            (
                reference.repository(),
                reference.tag_or_digest().to_owned(),
                reference.to_string(),
            )
        };
        let expected = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            parts("redis"),
            expected("docker.io/library/redis", "latest", "redis:latest")
        );
        assert_eq!(
            parts("docker.io/library/redis:7"),
            expected("docker.io/library/redis", "7", "redis:7")
        );
        assert_eq!(
            parts("nuncio/ambassador"),
            expected(
                "docker.io/nuncio/ambassador",
                "latest",
                "nuncio/ambassador:latest"
            )
        );
        assert_eq!(
            parts("localhost:5000/a/b:x_1"),
            expected("localhost:5000/a/b", "x_1", "localhost:5000/a/b:x_1")
        );
        let digest = format!("sha256:{}", "0a".repeat(32));
        let by_digest = format!("redis@{digest}");
        assert_eq!(
            parts(&by_digest),
            expected("docker.io/library/redis", &digest, &by_digest)
        );
    }

    #[test]
    fn malformed_references() {
        for wrong in [
            "", ":", "a:", "/a", "a/", "a//b", "-a", "a_", "a___b", "a..b", "a@x", "a b", "a:b:c",
            "a:-b",
        ] {
            let error = wrong.parse::<Reference>().expect_err(wrong);
            assert_eq!(error, InvalidReference::Format(wrong.to_owned()));
        }
        assert_eq!(
            "Redis".parse::<Reference>(),
            Err(InvalidReference::Upper("Redis".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "[a-zA-Z0-9:/@._-]{1,24}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().expect("its own text");
                prop_assert_eq!(again.repository(), reference.repository());
                prop_assert_eq!(again.tag_or_digest(), reference.tag_or_digest());
            }
        }
    }
}
