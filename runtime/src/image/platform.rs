//! Which of a multi-platform image's variants is meant.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex};

/// Operating system and processor of an image, written `linux/amd64` or `linux/arm/v7`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not a platform: write OS/ARCHITECTURE[/VARIANT], such as linux/amd64")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// What this program itself runs on.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// The operating system, in Go's words.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The processor, in Go's words.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Which generation of the processor, in Go's words.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The entry that suits best: of several, one with the wanted variant or else with none.
    pub(crate) fn choose<'a>(&self, index: &'a ImageIndex) -> Option<&'a Descriptor> {
        let suits = |entry: &&Descriptor| match entry.platform() {
            Some(platform) => {
                let same = platform.os().to_string() == self.os
                    && platform.architecture().to_string() == self.architecture;
                same && (self.variant.is_none() || platform.variant() == &self.variant)
            }
            None => false,
        };
        let has_variant = |entry: &&Descriptor| {
            let variant = entry
                .platform()
                .as_ref()
                .and_then(|platform| platform.variant().as_deref());
            // Every 64-bit ARM is a v8, which some builders write and others leave out.
            !matches!(variant, None | Some("" | "v8"))
        };
        index
            .manifests()
            .iter()
            .filter(suits)
            .min_by_key(has_variant)
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
        }
    }
}

impl From<&ImageConfiguration> for Platform {
    fn from(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let wrong = || InvalidPlatform(text.to_owned());
        let mut parts = text.split('/').map(|part| {
            let fine = !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            if fine {
                Ok(part.to_ascii_lowercase())
            } else {
                Err(wrong())
            }
        });
        let os = parts.next().ok_or_else(wrong)??;
        let architecture = parts.next().ok_or_else(wrong)??;
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => architecture,
        };
        let variant = parts.next().transpose()?;
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            os,
            architecture,
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let digest = super::super::digest::Digest::of(b"any");
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(size, platform)| {
                let parts: Vec<_> = platform.split('/').collect();
                let mut object = serde_json::json!({"os": parts[0], "architecture": parts[1]});
                if let Some(variant) = parts.get(2) {
                    object["variant"] = (*variant).into();
                }
                serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest.to_string(), "size": size, "platform": object})
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": entries}))
            .unwrap()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<u64> {
        let wanted: Platform = wanted.parse().unwrap();
        wanted.choose(&index(platforms)).map(Descriptor::size)
    }

    #[test]
    fn the_plain_variant_is_taken_unless_one_is_asked_for() {
        assert_eq!(
            chosen(
                "linux/amd64",
                &["windows/amd64", "linux/amd64/v3", "linux/amd64"]
            ),
            Some(2)
        );
        assert_eq!(
            chosen("linux/arm/v7", &["linux/arm/v6", "linux/arm/v7"]),
            Some(1)
        );
        assert_eq!(
            chosen("linux/aarch64", &["linux/amd64", "linux/arm64/v8"]),
            Some(1)
        );
        assert_eq!(
            chosen("linux/s390x", &["linux/amd64", "unknown/unknown"]),
            None
        );
    }

    #[test]
    fn a_wrong_platform_is_refused() {
        for text in ["", "linux", "linux/", "linux/amd64/v1/x", "li nux/amd64"] {
            assert_eq!(
                text.parse::<Platform>(),
                Err(InvalidPlatform(text.to_owned()))
            );
        }
    }
}
