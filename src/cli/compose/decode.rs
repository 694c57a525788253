//! From a tree to types: what is missing, unknown or of another kind is told with its place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::yaml::{At, Node, Value, Wrong};
use crate::cli::parse::{Size, Span};

/// A mapping whose members are taken one by one; what is left is unknown.
pub(super) struct Section {
    /// As `services.web.deploy`.
    pub(super) path: String,
    pub(super) at: At,
    members: Vec<(String, Node)>,
}

impl Section {
    /// # Errors
    ///
    /// What is no mapping; nothing at all is an empty one.
    pub(super) fn new(path: &str, node: Node) -> Result<Self, Wrong> {
        let members = match node.value {
            Value::Map(members) => members,
            Value::Null => Vec::new(),
            other => {
                let found = other.kind();
                return Err(node
                    .at
                    .wrong(format!("{path} must be a mapping, and is {found}")));
            }
        };
        Ok(Self {
            path: path.to_owned(),
            at: node.at,
            members,
        })
    }

    /// A member, if it is there and not null.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.members.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.members.remove(at);
        (node.value != Value::Null).then_some(node)
    }

    /// Whether a member is there; it is taken.
    pub(super) fn drop_key(&mut self, key: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|(name, _)| name != key);
        self.members.len() != before
    }

    /// The members that are left.
    pub(super) fn rest(&mut self) -> Vec<(String, Node)> {
        std::mem::take(&mut self.members)
    }

    /// As `services.web.image`.
    pub(super) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Wrong> {
        let path = self.path_of(key);
        self.take(key).map(|node| text(&path, node)).transpose()
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Wrong> {
        let path = self.path_of(key);
        self.take(key).map(|node| flag(&path, node)).transpose()
    }

    /// Something that is written as a word or a number.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        key: &str,
    ) -> Result<Option<T>, Wrong> {
        let path = self.path_of(key);
        self.take(key).map(|node| parsed(&path, node)).transpose()
    }

    pub(super) fn integer(&mut self, key: &str) -> Result<Option<i64>, Wrong> {
        let path = self.path_of(key);
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let at = node.at.clone();
        let given = text(&path, node)?;
        match given.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(at.wrong(format!("{path} must be a whole number, and is {given:?}"))),
        }
    }

    /// Nanoseconds.
    pub(super) fn span(&mut self, key: &str) -> Result<Option<i64>, Wrong> {
        Ok(self.parsed::<Span>(key)?.map(Span::nanoseconds))
    }

    /// Bytes.
    pub(super) fn size(&mut self, key: &str) -> Result<Option<i64>, Wrong> {
        Ok(self.parsed::<Size>(key)?.map(Size::bytes))
    }

    /// A string, or a list of them.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, Wrong> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Node {
                value: Value::List(items),
                ..
            }) => items.into_iter().map(|item| text(&path, item)).collect(),
            Some(node) => Ok(vec![text(&path, node)?]),
        }
    }

    /// A list of whatever.
    pub(super) fn list(&mut self, key: &str) -> Result<Vec<Node>, Wrong> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Node {
                value: Value::List(items),
                ..
            }) => Ok(items),
            Some(Node { at, value }) => {
                Err(at.wrong(format!("{path} must be a list, and is {}", value.kind())))
            }
        }
    }

    /// A command: words, or a line of them as a shell takes it.
    pub(super) fn command(&mut self, key: &str) -> Result<Option<Vec<String>>, Wrong> {
        let path = self.path_of(key);
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                value: Value::List(items),
                ..
            }) => {
                let words: Result<_, _> = items.into_iter().map(|item| text(&path, item)).collect();
                words.map(Some)
            }
            Some(node) => {
                let at = node.at.clone();
                let line = text(&path, node)?;
                match shlex::split(&line) {
                    Some(words) => Ok(Some(words)),
                    None => {
                        Err(at.wrong(format!("{path}: a quotation mark is missing in {line:?}")))
                    }
                }
            }
        }
    }

    /// A mapping, or a list of `NAME=VALUE` and `NAME`.
    pub(super) fn pairs(&mut self, key: &str) -> Result<BTreeMap<String, Option<String>>, Wrong> {
        let path = self.path_of(key);
        let Some(node) = self.take(key) else {
            return Ok(BTreeMap::new());
        };
        match node.value {
            Value::Map(members) => members
                .into_iter()
                .map(|(name, node)| match node.value {
                    Value::Null => Ok((name, None)),
                    _ => {
                        let value = text(&format!("{path}.{name}"), node)?;
                        Ok((name, Some(value)))
                    }
                })
                .collect(),
            Value::List(items) => items
                .into_iter()
                .map(|item| {
                    let pair = text(&path, item)?;
                    Ok(match pair.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (pair, None),
                    })
                })
                .collect(),
            other => Err(node.at.wrong(format!(
                "{path} must be a mapping or a list of NAME=VALUE, and is {}",
                other.kind()
            ))),
        }
    }

    /// The same where a name without a value has the empty one.
    pub(super) fn labels(&mut self, key: &str) -> Result<BTreeMap<String, String>, Wrong> {
        let pairs = self.pairs(key)?.into_iter();
        Ok(pairs
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect())
    }

    /// A section below this one.
    pub(super) fn section(&mut self, key: &str) -> Result<Option<Self>, Wrong> {
        let path = self.path_of(key);
        self.take(key)
            .map(|node| Self::new(&path, node))
            .transpose()
    }

    /// Sections below this one, by name.
    pub(super) fn sections(&mut self, key: &str) -> Result<Vec<(String, Self)>, Wrong> {
        let Some(mut all) = self.section(key)? else {
            return Ok(Vec::new());
        };
        let named = all
            .rest()
            .into_iter()
            .filter(|(name, _)| !name.starts_with("x-"));
        named
            .map(|(name, node)| {
                let section = Self::new(&format!("{}.{name}", all.path), node)?;
                Ok((name, section))
            })
            .collect()
    }

    /// What was wrong with a value that is itself well formed.
    pub(super) fn wrong(&self, what: impl Display) -> Wrong {
        self.at.wrong(format!("{}: {what}", self.path))
    }

    /// Sees that nothing is left, but for `x-` extensions.
    ///
    /// # Errors
    ///
    /// A key that is not known there.
    pub(super) fn finish(self) -> Result<(), Wrong> {
        let unknown = self
            .members
            .iter()
            .find(|(name, _)| !name.starts_with("x-"));
        match unknown {
            None => Ok(()),
            Some((name, node)) => {
                let path = match self.path.as_str() {
                    "" => "(root)",
                    path => path,
                };
                Err(node
                    .at
                    .wrong(format!("{path} Additional property {name} is not allowed")))
            }
        }
    }
}

/// A string, a number or a boolean as it is written.
pub(super) fn text(path: &str, node: Node) -> Result<String, Wrong> {
    match node.value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(node
            .at
            .wrong(format!("{path} must be a string, and is {}", other.kind()))),
    }
}

fn flag(path: &str, node: Node) -> Result<bool, Wrong> {
    let wrong = |found: &str| {
        node.at
            .wrong(format!("{path} must be true or false, and is {found}"))
    };
    match &node.value {
        Value::Bool(flag) => Ok(*flag),
        // What a variable was replaced by is a string.
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Ok(true),
            "false" | "no" | "off" | "n" | "0" => Ok(false),
            _ => Err(wrong(&format!("{text:?}"))),
        },
        other => Err(wrong(other.kind())),
    }
}

pub(super) fn parsed<T: FromStr<Err: Display>>(path: &str, node: Node) -> Result<T, Wrong> {
    let at = node.at.clone();
    let given = text(path, node)?;
    given
        .parse()
        .map_err(|error| at.wrong(format!("{path}: {error}")))
}
