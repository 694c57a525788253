//! `--filter`.

use std::fmt;
use std::str::FromStr;

/// `KEY=VALUE` of what is to be shown. The daemon says which keys there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Filter {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Not `KEY=VALUE`.
#[derive(Debug, thiserror::Error)]
#[error("bad format of filter (expected name=value)")]
pub(crate) struct InvalidFilter;

impl Filter {
    pub(crate) fn new(key: &str, value: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.into(),
        }
    }
}

/// As the docker client has it: keys in lower case, and nothing around either part. What is empty, as a variable of a
/// script that is not set, filters nothing.
impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let (key, value) = match text {
            "" => ("", ""),
            _ => text.split_once('=').ok_or(InvalidFilter)?,
        };
        Ok(Self::new(&key.trim().to_lowercase(), value.trim()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values() {
        let filter = |text: &str| text.parse::<Filter>().ok();
        assert_eq!(filter(" Name = a=b "), Some(Filter::new("name", "a=b")));
        assert_eq!(filter("=x"), Some(Filter::new("", "x")));
        assert_eq!(filter("label="), Some(Filter::new("label", "")));
        assert_eq!(filter(""), Some(Filter::new("", "")));
        assert_eq!(filter("name"), None);
    }
}
