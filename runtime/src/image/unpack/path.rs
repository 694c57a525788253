//! Names in an archive, checked before any of them reaches the kernel.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Bytes a path may have, and one part of it: what the kernel takes.
const MAX_PATH: usize = 4095;
const MAX_PART: usize = 255;

/// A path below the image's root: parts joined by single slashes, none of them `.` or `..`.
///
/// Empty for the root itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct EntryPath(Vec<u8>);

/// Why a name in an archive is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathProblem {
    /// It begins with a slash.
    #[error("it is absolute")]
    Absolute,
    /// It climbs with `..`.
    #[error("it contains \"..\"")]
    Climbs,
    /// It leads through a symbolic link to a place outside.
    #[error("it leads through a symbolic link out of the image's root")]
    Escapes,
    /// It is longer than the kernel takes.
    #[error("it is longer than {MAX_PATH} bytes, or a part of it than {MAX_PART}")]
    TooLong,
    /// It has a zero byte, or is empty where something must be named.
    #[error("it names nothing")]
    Empty,
    /// It begins with `.wh.` but hides nothing that could be there.
    #[error("it is no valid whiteout")]
    Whiteout,
}

impl EntryPath {
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, PathProblem> {
        // Slashes alone are the root itself, as `umoci insert` writes it: that leads nowhere else.
        if raw.starts_with(b"/") && raw.iter().any(|&byte| byte != b'/') {
            return Err(PathProblem::Absolute);
        }
        if raw.is_empty() || raw.contains(&0) {
            return Err(PathProblem::Empty);
        }
        let mut path = Vec::with_capacity(raw.len());
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(PathProblem::Climbs),
                _ if part.len() > MAX_PART => return Err(PathProblem::TooLong),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        if path.len() > MAX_PATH {
            Err(PathProblem::TooLong)
        } else {
            Ok(Self(path))
        }
    }

    /// The root itself.
    pub(crate) fn root() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// As the kernel takes it relative to the root.
    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(if self.is_root() { b"." } else { &self.0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The directory that holds it, and its name there; nothing for the root.
    pub(crate) fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        let slash = self.0.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = slash.map_or((&[][..], &self.0[..]), |at| {
            (&self.0[..at], &self.0[at + 1..])
        });
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// Itself and all directories above it but the root, highest first.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Self> {
        let ends = self
            .0
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(at, _)| at);
        let whole = (!self.is_root()).then_some(self.0.len());
        ends.chain(whole).map(|end| Self(self.0[..end].to_vec()))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_and_doubled_slashes_go() {
        assert_eq!(
            EntryPath::parse(b"./a//b/./c/").unwrap().as_os_str(),
            "a/b/c"
        );
        assert!(EntryPath::parse(b"./").unwrap().is_root());
        assert!(EntryPath::parse(b"/").unwrap().is_root());
    }

    #[test]
    fn names_that_could_leave_the_root_are_refused() {
        for (raw, problem) in [
            (&b"/etc/passwd"[..], PathProblem::Absolute),
            (b"/.", PathProblem::Absolute),
            (b"/..", PathProblem::Absolute),
            (b"..", PathProblem::Climbs),
            (b"a/../../b", PathProblem::Climbs),
            (b"a/..", PathProblem::Climbs),
            (b"", PathProblem::Empty),
            (b"a\0b", PathProblem::Empty),
        ] {
            assert_eq!(EntryPath::parse(raw), Err(problem));
        }
        assert_eq!(EntryPath::parse(&[b'x'; 256]), Err(PathProblem::TooLong));
        assert_eq!(
            EntryPath::parse(&b"ab/".repeat(2000)),
            Err(PathProblem::TooLong)
        );
    }

    #[test]
    fn a_path_knows_what_is_above_it() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        let prefixes: Vec<_> = path.prefixes().map(|p| p.as_os_str().to_owned()).collect();
        assert_eq!(prefixes, ["a", "a/b", "a/b/c"]);
        let (parent, name) = path.split().unwrap();
        assert_eq!(
            (parent.as_os_str(), name),
            (OsStr::new("a/b"), OsStr::new("c"))
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_the_root(raw in "[a./\\\\\\x00]{0,24}") {
            if let Ok(path) = EntryPath::parse(raw.as_bytes()) {
                let text = path.as_os_str().to_str().unwrap().to_owned();
                prop_assert!(!text.starts_with('/') && !text.is_empty());
                prop_assert!(text == "." || text.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
