//! Names of volumes.

/// Bytes of the longest name that a directory can have.
const LONGEST: usize = 255;

/// Why a name is no volume's. The words are Docker's, whose users know them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidVolumeName {
    /// One character alone, or none.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    /// More than a directory's name can have.
    #[error("volume name is too long: {0} bytes, at most {LONGEST} are allowed")]
    Long(usize),
    /// Something else than letters, digits and some signs.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Characters(String),
}

/// Tells whether `name` can be a volume's.
///
/// # Errors
///
/// [`InvalidVolumeName`] says why not.
pub fn check_name(name: &str) -> Result<(), InvalidVolumeName> {
    if name.len() < 2 {
        return Err(InvalidVolumeName::Short);
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.as_bytes()[0].is_ascii_alphanumeric() || !name.bytes().all(inner) {
        return Err(InvalidVolumeName::Characters(name.to_owned()));
    }
    if name.len() > LONGEST {
        return Err(InvalidVolumeName::Long(name.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_dockers() {
        for right in ["db", "0a", "a_.-", &"x".repeat(255)] {
            assert_eq!(check_name(right), Ok(()), "{right}");
        }
        assert_eq!(check_name("a"), Err(InvalidVolumeName::Short));
        assert_eq!(check_name(""), Err(InvalidVolumeName::Short));
        assert_eq!(
            check_name(&"x".repeat(256)),
            Err(InvalidVolumeName::Long(256))
        );
        for wrong in [
            "../x", "a/b", ".new-a", "-a", "_a", "a b", "ä1", "a\0", "ab:c",
        ] {
            assert!(
                matches!(check_name(wrong), Err(InvalidVolumeName::Characters(_))),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_a_name_is_one_part_of_a_path(text in "\\PC{0,12}") {
            if check_name(&text).is_ok() {
                prop_assert!(!text.starts_with('.') && !text.contains(['/', '\0']));
            }
        }
    }
}
