//! `-e`, `--env-file` and `--label-file`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

/// `NAME=VALUE`, or `NAME` alone: whatever it is in the client's environment, if anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EnvVar {
    name: String,
    value: Option<String>,
}

impl EnvVar {
    /// `NAME=VALUE`; `None` if the variable is to be inherited and not set.
    pub(crate) fn resolve(&self, inherited: impl Fn(&str) -> Option<String>) -> Option<String> {
        let value = self.value.clone().or_else(|| inherited(&self.name))?;
        Some(format!("{}={value}", self.name))
    }
}

/// Not a variable.
#[derive(Debug, thiserror::Error)]
#[error("invalid environment variable: {0}: expected NAME=VALUE, or the NAME of one that is set")]
pub(crate) struct InvalidVariable(String);

impl FromStr for EnvVar {
    type Err = InvalidVariable;

    fn from_str(text: &str) -> Result<Self, InvalidVariable> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || text.contains('\0') {
            return Err(InvalidVariable(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

/// A file of variables or labels that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    #[error("open {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: variable '{name}' contains whitespaces", path.display())]
    Whitespace {
        path: PathBuf,
        line: usize,
        name: String,
    },
    #[error("{}:{line}: no variable name on line '{text}'", path.display())]
    NoName {
        path: PathBuf,
        line: usize,
        text: String,
    },
}

/// Reads a file of `NAME=VALUE` and `NAME` lines; empty lines and those that begin with `#` are skipped.
///
/// # Errors
///
/// [`EnvFileError`], with the line if one is wrong.
pub(crate) fn read_env_file(path: &Path) -> Result<Vec<EnvVar>, EnvFileError> {
    let text = fs::read_to_string(path).map_err(|source| EnvFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse_env_file(path, &text)
}

/// Reads a file of `KEY=VALUE` lines, in the form of an environment file.
///
/// # Errors
///
/// [`EnvFileError`], with the line if one is wrong.
pub(crate) fn read_label_file(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let labels = read_env_file(path)?.into_iter();
    Ok(labels
        .map(|label| (label.name, label.value.unwrap_or_default()))
        .collect())
}

pub(super) fn parse_env_file(path: &Path, text: &str) -> Result<Vec<EnvVar>, EnvFileError> {
    let mut variables = Vec::new();
    for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let path = || path.to_owned();
        let no_name = |_| EnvFileError::NoName {
            path: path(),
            line,
            text: text.to_owned(),
        };
        let variable: EnvVar = text.parse().map_err(no_name)?;
        let name = match variable.value {
            Some(_) => variable.name.as_str(),
            None => variable.name.trim_end(),
        };
        if name.contains(char::is_whitespace) {
            return Err(EnvFileError::Whitespace {
                path: path(),
                line,
                name: name.to_owned(),
            });
        }
        variables.push(EnvVar {
            name: name.to_owned(),
            value: variable.value,
        });
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(text: &str) -> Option<String> {
        let variable: EnvVar = text.parse().expect(text);
        variable.resolve(|name| (name == "SET").then(|| "here".to_owned()))
    }

    #[test]
    fn variables() {
        assert_eq!(resolve("A=b=c").as_deref(), Some("A=b=c"));
        assert_eq!(resolve("A=").as_deref(), Some("A="));
        assert_eq!(resolve("SET").as_deref(), Some("SET=here"));
        assert_eq!(resolve("UNSET"), None);
        assert!("=x".parse::<EnvVar>().is_err());
        assert!("".parse::<EnvVar>().is_err());
    }

    #[test]
    fn files_name_the_line_that_is_wrong() {
        let parse = |text| parse_env_file(Path::new("f"), text);
        let good = parse("# c\n\nA=1 # kept\r\n  SET\nB='x'\n").expect("a good file");
        let resolved: Vec<_> = good
            .iter()
            .filter_map(|v| v.resolve(|_| Some("s".to_owned())))
            .collect();
        assert_eq!(resolved, ["A=1 # kept", "SET=s", "B='x'"]);
        let error = parse("A=1\nB C=2").expect_err("a space").to_string();
        assert_eq!(error, "f:2: variable 'B C' contains whitespaces");
        let error = parse("=2").expect_err("no name").to_string();
        assert_eq!(error, "f:1: no variable name on line '=2'");
    }

    proptest! {
        #[test]
        fn any_value_goes_through(name in "[A-Za-z_][A-Za-z0-9_]*", value in "[^\\x00]*") {
            let text = format!("{name}={value}");
            prop_assert_eq!(resolve(&text), Some(text));
        }

        #[test]
        fn no_file_panics(text in any::<String>()) {
            let _ = parse_env_file(Path::new("f"), &text);
        }
    }
}
