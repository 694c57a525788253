//! Paths in a container as users write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An absolute path without `..`, which may end in `/` or `/.` to say that a directory is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContainerPath(String);

/// Why a text is no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPath {
    /// Nothing is named.
    #[error("path cannot be empty")]
    Empty,
    /// It ends where the kernel's strings do.
    #[error("path contains a NUL byte")]
    Nul,
}

impl ContainerPath {
    /// Takes `text` as relative to the root.
    ///
    /// # Errors
    ///
    /// See [`InvalidPath`].
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        if text.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if text.contains('\0') {
            return Err(InvalidPath::Nul);
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let mut path = format!("/{}", parts.join("/"));
        let ends_in_dot = text == "." || text.ends_with("/.");
        if ends_in_dot || text.ends_with('/') {
            if !path.ends_with('/') {
                path.push('/');
            }
            if ends_in_dot {
                path.push('.');
            }
        }
        Ok(Self(path))
    }

    /// The last part, by which what is there is called in an archive: `/` for the root, `.` for what ends in that.
    #[must_use]
    pub fn base(&self) -> &str {
        let path = self.0.trim_end_matches('/');
        match path.rsplit_once('/') {
            None => "/",
            Some((_, base)) => base,
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.0.as_bytes())
    }

    /// For paths that are joined to it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_ends_in_a_slash_or_a_dot_is_a_directory() {
        for (text, path, base) in [
            ("/", "/", "/"),
            ("a", "/a", "a"),
            ("/a//b/../c", "/a/c", "c"),
            ("../../etc/passwd", "/etc/passwd", "passwd"),
            ("/a/", "/a/", "a"),
            ("/a/.", "/a/.", "."),
            (".", "/.", "."),
            ("/..", "/", "/"),
        ] {
            let parsed = ContainerPath::parse(text).expect(text);
            assert_eq!((parsed.as_str(), parsed.base()), (path, base), "{text}");
        }
        assert_eq!(ContainerPath::parse(""), Err(InvalidPath::Empty));
        assert_eq!(ContainerPath::parse("a\0"), Err(InvalidPath::Nul));
    }

    proptest! {
        #[test]
        fn none_climbs(text in "[a./]{1,12}") {
            let path = ContainerPath::parse(&text).expect("no NUL in it");
            prop_assert!(path.as_str().starts_with('/'));
            prop_assert!(path.as_str().split('/').all(|part| part != ".."));
        }
    }
}
