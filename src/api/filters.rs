//! The `filters` parameter: `{"label":{"a=b":true}}` from Go, `{"label":["a=b"]}` from Python.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::daemon::refusal::Refusal;

/// What a list is narrowed to: all keys must match, each by one of its values (labels: by all of them).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Go(BTreeMap<String, bool>),
    Python(Vec<String>),
}

impl Filters {
    /// Parses the parameter and refuses keys that are not `known`.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let raw: Option<BTreeMap<String, Values>> = serde_json::from_str(text)
            .map_err(|error| Refusal::invalid(format!("invalid filters {text:?}: {error}")))?;
        let mut filters = BTreeMap::new();
        for (key, values) in raw.unwrap_or_default() {
            if !known.contains(&key.as_str()) {
                return Err(Refusal::invalid(format!(
                    "invalid filter '{key}': expected one of {}",
                    known.join(", ")
                )));
            }
            let values: BTreeSet<String> = match values {
                Values::Go(map) => map
                    .into_iter()
                    .filter_map(|(value, wanted)| wanted.then_some(value))
                    .collect(),
                Values::Python(list) => list.into_iter().collect(),
            };
            if !values.is_empty() {
                filters.insert(key, values);
            }
        }
        Ok(Self(filters))
    }

    /// Asks for one more value of `key`.
    pub(crate) fn add(&mut self, key: &str, value: String) {
        self.0.entry(key.to_owned()).or_default().insert(value);
    }

    /// Whether `key` is asked for.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// What is asked for `key`, whose values are `true` and `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        let mut flag = None;
        for value in self.values(key) {
            let this = match value {
                "1" | "true" | "True" => true,
                "0" | "false" | "False" => false,
                _ => return Err(Refusal::invalid(format!("invalid filter '{key}={value}'"))),
            };
            if flag.replace(this).is_some_and(|other| other != this) {
                let message = format!("invalid filter '{key}': it cannot be both true and false");
                return Err(Refusal::invalid(message));
            }
        }
        Ok(flag)
    }

    /// The values asked for `key`.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `key` is not asked for, or one of its values `accepts`.
    pub(crate) fn any(&self, key: &str, accepts: impl FnMut(&str) -> bool) -> bool {
        !self.0.contains_key(key) || self.values(key).any(accepts)
    }

    /// Whether `labels` hold every `key` and `key=value` asked for.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels_by("label", labels)
    }

    /// As [`Filters::labels`], of what is asked for `key`.
    pub(crate) fn labels_by(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| is_label(labels, wanted))
    }

    /// Whether `labels` hold no `key` and `key=value` that is not to be there.
    pub(crate) fn no_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        !self
            .values("label!")
            .any(|unwanted| is_label(labels, unwanted))
    }
}

fn is_label(labels: &BTreeMap<String, String>, text: &str) -> bool {
    match text.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["label", "label!", "name"];

    #[test]
    fn both_forms_mean_the_same() {
        let go = Filters::parse(Some(r#"{"label":{"a=b":true,"c":true,"d":false}}"#), KNOWN);
        let python = Filters::parse(Some(r#"{"label":["a=b","c"]}"#), KNOWN);
        assert_eq!(go.expect("Go's form"), python.expect("Python's form"));
    }

    #[test]
    fn nothing_asked_is_everything() {
        for text in [
            None,
            Some(""),
            Some("{}"),
            Some("null"),
            Some(r#"{"label":[]}"#),
            Some(r#"{"name":{}}"#),
        ] {
            let filters = Filters::parse(text, KNOWN).expect("valid");
            assert!(
                filters.any("name", |_| false) && filters.labels(&BTreeMap::new()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = Filters::parse(Some(r#"{"colour":["red"]}"#), KNOWN).expect_err("unknown");
        assert_eq!(
            error.message,
            "invalid filter 'colour': expected one of label, label!, name"
        );
        assert!(Filters::parse(Some("[1"), KNOWN).is_err());
    }

    #[test]
    fn labels_must_all_hold() {
        let labels = BTreeMap::from([
            ("a".to_owned(), "b".to_owned()),
            ("c".to_owned(), String::new()),
        ]);
        let holds = |text| {
            Filters::parse(Some(text), KNOWN)
                .expect("valid")
                .labels(&labels)
        };
        assert!(holds(r#"{"label":["a=b","c"]}"#));
        assert!(!holds(r#"{"label":["a=b","d"]}"#));
        assert!(!holds(r#"{"label":["a=x"]}"#));
    }

    #[test]
    fn labels_that_must_not_hold_and_flags() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let parse = |text| Filters::parse(Some(text), KNOWN).expect("valid");
        assert!(!parse(r#"{"label!":["x","a"]}"#).no_labels(&labels));
        assert!(parse(r#"{"label!":["a=c"]}"#).no_labels(&labels));
        let flag = |text| parse(text).flag("name").ok();
        assert_eq!(flag(r#"{"name":["1"]}"#), Some(Some(true)));
        assert_eq!(flag(r#"{"name":{"false":true}}"#), Some(Some(false)));
        assert_eq!(flag("{}"), Some(None));
        assert_eq!(flag(r#"{"name":["yes"]}"#), None);
        assert_eq!(flag(r#"{"name":["true","false"]}"#), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = Filters::parse(Some(&text), KNOWN);
        }
    }
}
