//! What a filter says of a name: Docker takes a regular expression, or the name itself.

use regex::{Regex, RegexBuilder};

use super::filters::Filters;

/// Memory that one expression may take; more than any name's needs.
const LIMIT: usize = 256 << 10;

/// What a filter asks for, ready to be held against many names.
pub(crate) struct Patterns(Option<Vec<(String, Option<Regex>)>>);

impl Patterns {
    /// Those asked for under `key`. One that is no regular expression finds itself alone, as in Docker.
    pub(crate) fn of(filters: &Filters, key: &str) -> Self {
        let compile = |text: &str| {
            let built = RegexBuilder::new(text).size_limit(LIMIT).build();
            (text.to_owned(), built.ok())
        };
        let asked = filters.has(key);
        Self(asked.then(|| filters.values(key).map(compile).collect()))
    }

    /// Whether nothing is asked for, or one of them finds something in `text`.
    pub(crate) fn accept(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| {
            patterns.iter().any(|(literal, regex)| {
                literal == text || regex.as_ref().is_some_and(|regex| regex.is_match(text))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patterns(patterns: &[&str]) -> Patterns {
        let filters = json!({ "name": patterns }).to_string();
        let filters = Filters::parse(Some(&filters), &["name"]).expect("valid");
        Patterns::of(&filters, "name")
    }

    #[test]
    fn a_name_is_found_as_docker_finds_it() {
        for (pattern, text, expected) in [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("^/?web$", "/web", true),
            ("^/?web$", "web", true),
            ("^/?web$", "web2", false),
            ("w.b", "web", true),
            ("web_(db|cache)_[0-9]+", "web_db_1", true),
            ("web.*", "web1", true),
            ("longer", "long", false),
            ("a(b", "a(b", true),
            ("a(b", "xa(b", false),
        ] {
            assert_eq!(
                patterns(&[pattern]).accept(text),
                expected,
                "{pattern} in {text}"
            );
        }
        assert!(patterns(&["x", "y$"]).accept("my"));
        assert!(patterns(&[]).accept("anything"));
        // A bomb is no expression.
        assert!(!patterns(&["(a{1000}){1000}"]).accept("a"));
    }

    proptest! {
        #[test]
        fn any_pattern_is_taken(pattern in ".{1,24}", text in ".{0,24}") {
            let _ = patterns(&[&pattern]).accept(&text);
        }
    }
}
