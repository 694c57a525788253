//! YAML as a tree that knows where each piece of it stands.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where something stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct At {
    pub(super) file: Arc<str>,
    pub(super) line: u64,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it is written without superfluous digits.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// What it is called in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a file is refused. It begins with where that stands.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub(in crate::cli) struct Wrong {
    pub(super) file: Arc<str>,
    pub(super) line: u64,
    pub(super) what: String,
}

impl At {
    /// What is wrong there.
    pub(super) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong {
            file: self.file.clone(),
            line: self.line,
            what: what.into(),
        }
    }
}

/// Reads the first document of `text`, with anchors and merge keys resolved.
///
/// # Errors
///
/// What is no YAML, or repeats a key, or is meant to fill the memory.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, Wrong> {
    let options = serde_saphyr::options! {
        // As Go reads them: yes is a word, and 0400 is no 400.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let file: Arc<str> = file.into();
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, &file)),
        Err(error) => Err(Wrong {
            line: error.location().map_or(0, |location| location.line()),
            what: first_line(&error.to_string()),
            file,
        }),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// As [`Value`], before it is known which file it is of.
#[derive(Debug)]
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>, file: &Arc<str>) -> Node {
    let at = At {
        file: file.clone(),
        line: raw.referenced.line(),
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(it) => Value::Bool(it),
        Raw::Number(it) => Value::Number(it),
        Raw::Text(it) => Value::Text(it),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, file)).collect()),
        Raw::Map(members) => Value::Map(
            members
                .into_iter()
                .map(|(key, value)| {
                    // A member stands where its key does.
                    let mut value = node(value, file);
                    value.at.line = key.referenced.line();
                    (key.value, value)
                })
                .collect(),
        ),
    };
    Node { at, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyRaw)
    }
}

struct AnyRaw;

impl<'de> Visitor<'de> for AnyRaw {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Raw, E> {
        Ok(Raw::Number(it.to_string()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Raw, E> {
        Ok(Raw::Number(it.to_string()))
    }

    fn visit_i128<E>(self, it: i128) -> Result<Raw, E> {
        Ok(Raw::Number(it.to_string()))
    }

    fn visit_u128<E>(self, it: u128) -> Result<Raw, E> {
        Ok(Raw::Number(it.to_string()))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Raw, E> {
        Ok(Raw::Number(it.to_string()))
    }

    fn visit_str<E>(self, it: &str) -> Result<Raw, E> {
        Ok(Raw::Text(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Raw, E> {
        Ok(Raw::Text(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            members.push((key, access.next_value()?));
        }
        Ok(Raw::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let text =
            "a: 1\nb:\n  - x\n  - 0400\nc: &c {d: yes, e: true, f: ~}\ng:\n  <<: *c\n  d: 1.50\n";
        let root = parse("f", text).expect("YAML");
        let Value::Map(members) = root.value else {
            panic!("a mapping")
        };
        let [(_, a), (_, b), (_, c), (_, g)] = &members[..] else {
            panic!("four: {members:?}")
        };
        assert_eq!((a.at.line, &a.value), (1, &Value::Number("1".to_owned())));
        let Value::List(items) = &b.value else {
            panic!("a list")
        };
        assert_eq!(
            (items[1].at.line, &items[1].value),
            (4, &Value::Text("0400".to_owned()))
        );
        let text = |node: &Node| match &node.value {
            Value::Map(members) => members
                .iter()
                .map(|(key, node)| format!("{key}:{:?}", node.value))
                .collect::<Vec<_>>()
                .join(" "),
            _ => panic!("a mapping"),
        };
        assert_eq!(text(c), "d:Text(\"yes\") e:Bool(true) f:Null");
        assert_eq!(text(g), "d:Number(\"1.5\") e:Bool(true) f:Null");
    }

    #[test]
    fn what_is_wrong_has_a_line() {
        for (text, line) in [("a: 1\nb: [", 2), ("a: 1\na: 2\n", 2), ("a: 1\n b: 2\n", 2)] {
            let wrong = parse("f.yml", text).expect_err(text);
            assert_eq!(wrong.line, line, "{text:?}: {wrong}");
            assert!(wrong.to_string().starts_with("f.yml:"), "{wrong}");
        }
    }
}
