//! The part of Go's templates that `--format` takes: text, `{{.Path.To.Field}}` and `{{json .Path}}`.

use serde_json::Value;

/// A template, parsed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

/// Why a template does not work.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("template parsing error: {0:?} has {{{{ without }}}}")]
    Open(String),
    #[error(
        "template parsing error: {{{{{0}}}}} is not supported: expected {{{{.Path.To.Field}}}} or {{{{json .Path}}}}; \
         for more, print {{{{json .}}}} and use jq"
    )]
    Unsupported(String),
    #[error("template: no field {field} at <{path}>; there is {}", known.join(", "))]
    NoField {
        field: String,
        path: String,
        known: Vec<String>,
    },
    #[error("template: <{path}> is no object, and has no field {field}")]
    NoObject { field: String, path: String },
}

impl Template {
    /// # Errors
    ///
    /// [`TemplateError::Open`] and [`TemplateError::Unsupported`].
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, action)) = rest.split_once("{{") {
            let (action, after) = action
                .split_once("}}")
                .ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            pieces.push(Piece::Text(unescape(before)));
            pieces.push(parse_action(action)?);
            rest = after;
        }
        pieces.push(Piece::Text(unescape(rest)));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// # Errors
    ///
    /// [`TemplateError::NoField`] and [`TemplateError::NoObject`] if `value` is made otherwise.
    pub(super) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field { path, json: true } => out.push_str(&walk(value, path)?.to_string()),
                Piece::Field { path, json: false } => print(walk(value, path)?, &mut out, true),
            }
        }
        Ok(out)
    }

    /// The fields in their order, as headers of a table: the last part of each path.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field { path, .. } => Some(path.last().map_or("", String::as_str)),
            Piece::Text(_) => None,
        })
    }
}

fn parse_action(action: &str) -> Result<Piece, TemplateError> {
    let unsupported = || TemplateError::Unsupported(action.to_owned());
    let action_text = action.trim_matches('-').trim();
    let (path, json) = match action_text.strip_prefix("json ") {
        Some(path) => (path.trim(), true),
        None => (action_text, false),
    };
    let names = path.strip_prefix('.').ok_or_else(unsupported)?;
    if names.is_empty() {
        return Ok(Piece::Field {
            path: Vec::new(),
            json,
        });
    }
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !names.split('.').all(is_name) {
        return Err(unsupported());
    }
    Ok(Piece::Field {
        path: names.split('.').map(str::to_owned).collect(),
        json,
    })
}

/// Docker takes `\t` and `\n` in templates from shells that do not.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn walk<'v>(value: &'v Value, path: &[String]) -> Result<&'v Value, TemplateError> {
    let mut here = value;
    for (depth, field) in path.iter().enumerate() {
        let at = || format!(".{}", path[..depth].join("."));
        let Value::Object(fields) = here else {
            return Err(TemplateError::NoObject {
                field: field.clone(),
                path: at(),
            });
        };
        here = fields.get(field).ok_or_else(|| TemplateError::NoField {
            field: field.clone(),
            path: at(),
            known: fields.keys().cloned().collect(),
        })?;
    }
    Ok(here)
}

/// As Go's `%v`.
fn print(value: &Value, out: &mut String, outermost: bool) {
    match value {
        Value::Null if outermost => out.push_str("<no value>"),
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                print(item, out, false);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (at, (key, item)) in sorted.into_iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                print(item, out, false);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, TemplateError> {
        let value = json!({
            "Name": "/db",
            "State": { "Pid": 7, "Running": true, "Health": null },
            "Env": ["A=1", "B=2"],
            "Labels": { "b": "2", "a": "1" },
        });
        Template::parse(template)?.render(&value)
    }

    #[test]
    fn fields_and_json() {
        let good = [
            ("{{.Name}}", "/db"),
            ("pid={{ .State.Pid }}\\t{{.State.Running}}", "pid=7\ttrue"),
            ("{{json .Env}}", r#"["A=1","B=2"]"#),
            ("{{.Env}} {{.Labels}}", "[A=1 B=2] map[a:1 b:2]"),
            ("{{.State.Health}}", "<no value>"),
            ("no action", "no action"),
        ];
        for (template, expected) in good {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_does_not_work_is_told() {
        let wrong = |template| render(template).expect_err(template).to_string();
        assert_eq!(
            wrong("{{.State.Pip}}"),
            "template: no field Pip at <.State>; there is Pid, Running, Health"
        );
        assert_eq!(
            wrong("{{.Name.X}}"),
            "template: <.Name> is no object, and has no field X"
        );
        assert!(
            wrong("{{range .Env}}")
                .contains("{{range .Env}} is not supported: expected {{.Path.To.Field}}")
        );
        assert!(wrong("{{.Name").contains("without }}"));
    }

    proptest! {
        #[test]
        fn nothing_panics(template in "[{}. a-zA-Z]{0,24}") {
            let _ = render(&template);
        }
    }
}
