//! Command lines in one argument, as `--entrypoint` and `--args` of services.

use std::str::FromStr;

/// The words that a shell would make of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// A quotation mark is missing.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("unterminated quotation in {0:?}: expected words as a shell takes them")]
pub(crate) struct Unterminated(String);

impl FromStr for Words {
    type Err = Unterminated;

    fn from_str(text: &str) -> Result<Self, Unterminated> {
        shlex::split(text)
            .map(Self)
            .ok_or_else(|| Unterminated(text.to_owned()))
    }
}

/// `spread=node.labels.zone`: what tasks are to be spread over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Spread(pub(crate) String);

/// Not a preference.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid placement preference {0:?}: expected spread=WHAT, as spread=node.labels.zone")]
pub(crate) struct InvalidPreference(String);

impl FromStr for Spread {
    type Err = InvalidPreference;

    fn from_str(text: &str) -> Result<Self, InvalidPreference> {
        match text.split_once('=') {
            Some(("spread", what)) if !what.is_empty() => Ok(Self(what.to_owned())),
            _ => Err(InvalidPreference(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_preferences() {
        let words = |text: &str| text.parse::<Words>().map(|words| words.0);
        assert_eq!(
            words("sh -c 'a b'"),
            Ok(["sh", "-c", "a b"].map(str::to_owned).to_vec())
        );
        assert_eq!(words(""), Ok(Vec::new()));
        assert!(words("sh 'a").is_err());
        assert_eq!(
            "spread=node.labels.a".parse(),
            Ok(Spread("node.labels.a".to_owned()))
        );
        for wrong in ["", "spread=", "pack=a", "spread"] {
            assert!(wrong.parse::<Spread>().is_err(), "{wrong:?}");
        }
    }
}
