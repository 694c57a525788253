//! `-v` and `--tmpfs`.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::mount::InvalidMount;

/// `[SOURCE:]TARGET[:OPTIONS]`. Without a source: an anonymous volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct VolumeSpec {
    source: Option<String>,
    target: String,
    options: Option<String>,
}

impl VolumeSpec {
    /// What stands in `HostConfig.Binds`, relative paths resolved in `here`; `None` if the volume is anonymous.
    pub(crate) fn bind(&self, here: &Path) -> Option<String> {
        let source = self.source.as_deref()?;
        let source = resolve(source, here);
        let options = self
            .options
            .iter()
            .flat_map(|options| [":", options])
            .collect::<String>();
        Some(format!("{source}:{}{options}", self.target))
    }

    /// The path of an anonymous volume.
    pub(crate) fn anonymous(&self) -> Option<&str> {
        self.source.is_none().then_some(self.target.as_str())
    }
}

/// A path that begins with a dot, resolved in `here`; anything else is absolute or the name of a volume.
pub(super) fn resolve(source: &str, here: &Path) -> String {
    if source.starts_with('.') {
        clean(&here.join(source)).display().to_string()
    } else {
        source.to_owned()
    }
}

/// `path` without `.` and `..`, whatever is there.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

impl FromStr for VolumeSpec {
    type Err = InvalidMount;

    fn from_str(text: &str) -> Result<Self, InvalidMount> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match *parts.as_slice() {
            [target] => (None, target, None),
            [source, target] => (Some(source), target, None),
            [source, target, options] => (Some(source), target, Some(options)),
            _ => return Err(InvalidMount::Spec(text.to_owned())),
        };
        if source.is_some_and(str::is_empty)
            || target.is_empty()
            || options.is_some_and(str::is_empty)
        {
            return Err(InvalidMount::Spec(text.to_owned()));
        }
        if !target.starts_with('/') {
            return Err(InvalidMount::Relative(text.to_owned(), target.to_owned()));
        }
        if clean(Path::new(target)) == Path::new("/") {
            return Err(InvalidMount::Root(text.to_owned()));
        }
        let owned = |text: &str| text.to_owned();
        Ok(Self {
            source: source.map(owned),
            target: owned(target),
            options: options.map(owned),
        })
    }
}

/// `PATH[:OPTIONS]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tmpfs {
    pub(crate) target: String,
    pub(crate) options: String,
}

impl FromStr for Tmpfs {
    type Err = InvalidMount;

    fn from_str(text: &str) -> Result<Self, InvalidMount> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') {
            return Err(InvalidMount::Relative(text.to_owned(), target.to_owned()));
        }
        Ok(Self {
            target: target.to_owned(),
            options: options.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes() {
        let bind = |text: &str| {
            text.parse::<VolumeSpec>()
                .expect(text)
                .bind(Path::new("/here"))
        };
        assert_eq!(bind("/a:/b").as_deref(), Some("/a:/b"));
        assert_eq!(bind("./a/../c:/b:ro").as_deref(), Some("/here/c:/b:ro"));
        assert_eq!(bind("..:/b").as_deref(), Some("/:/b"));
        assert_eq!(bind("data:/b").as_deref(), Some("data:/b"));
        assert_eq!(
            "/b".parse::<VolumeSpec>().expect("anonymous").anonymous(),
            Some("/b")
        );
        for wrong in [
            "",
            ":",
            "a:",
            ":/b",
            "/a:/b:",
            "/a:b",
            "b",
            "/a:/b:ro:x",
            "/a:/",
            "/a:/b/..",
        ] {
            assert!(wrong.parse::<VolumeSpec>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,32}") {
            if let Ok(volume) = text.parse::<VolumeSpec>() {
                prop_assert_eq!(volume.bind(Path::new("/here")).is_none(), volume.anonymous().is_some());
            }
            let _ = text.parse::<Tmpfs>();
        }
    }
}
