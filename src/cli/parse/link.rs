//! `--link`.

use std::fmt;
use std::str::FromStr;

/// `NAME[:ALIAS]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    name: String,
    alias: String,
}

/// Not a link.
#[derive(Debug, thiserror::Error)]
#[error("bad format for links: {0}: expected CONTAINER or CONTAINER:ALIAS")]
pub(crate) struct InvalidLink(String);

impl FromStr for Link {
    type Err = InvalidLink;

    fn from_str(text: &str) -> Result<Self, InvalidLink> {
        let (name, alias) = match text.split_once(':') {
            Some((name, alias)) => (name, alias),
            // `/db` is how the API names a container
            None => (text, text.rsplit('/').next().unwrap_or(text)),
        };
        if name.is_empty() || alias.is_empty() || alias.contains(':') {
            return Err(InvalidLink(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            alias: alias.to_owned(),
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.alias)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links() {
        let link = |text: &str| text.parse::<Link>().map(|link| link.to_string()).ok();
        assert_eq!(link("db").as_deref(), Some("db:db"));
        assert_eq!(link("db:redis").as_deref(), Some("db:redis"));
        assert_eq!(link("/db").as_deref(), Some("/db:db"));
        for wrong in ["", ":", "db:", ":a", "a:b:c"] {
            assert_eq!(link(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "[a-z:/]{0,12}") {
            if let Ok(link) = text.parse::<Link>() {
                prop_assert_eq!(link.to_string().parse::<Link>().ok(), Some(link));
            }
        }
    }
}
