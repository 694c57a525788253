//! Go's templates, as `--format` takes them.
//!
//! Most are text, `{{.Path.To.Field}}` and `{{json .Path}}`: these are done here, so that JSON keeps its order and what
//! is wrong is told with what would be right. All others go to an engine that knows the whole language.

mod full;

pub(super) use full::LABELS;

use serde_json::{Map, Value};

/// A template, parsed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Template(Kind);

#[derive(Debug, Eq, PartialEq)]
enum Kind {
    Fields(Vec<Piece>),
    /// The text of any other, which has been parsed once.
    Full(String),
}

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
    #[error("template parsing error: {0}")]
    Parse(String),
    #[error("template: {0}")]
    Render(String),
    #[error("template: no field {field} at <{path}>; there is {}", known.join(", "))]
    NoField {
        field: String,
        path: String,
        known: Vec<String>,
    },
    #[error("template: <{path}> is no object, and has no field {field}")]
    NoObject { field: String, path: String },
}

/// What was to be shown by a template that is none; Docker has an exit status for that.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct InvalidFormat(TemplateError);

impl Template {
    /// # Errors
    ///
    /// [`TemplateError::Open`] and [`TemplateError::Parse`].
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut unescaped = String::new();
        let mut is_full = false;
        let mut rest = text;
        while let Some((before, action)) = rest.split_once("{{") {
            let (action, after) = action
                .split_once("}}")
                .ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            let action = &full::with_functions(action);
            pieces.push(Piece::Text(unescape(before)));
            match parse_action(action) {
                Some(piece) => pieces.push(piece),
                None => is_full = true,
            }
            unescaped.push_str(&format!("{}{{{{{action}}}}}", unescape(before)));
            rest = after;
        }
        if is_full {
            unescaped.push_str(&unescape(rest));
            full::check(&unescaped)?;
            return Ok(Self(Kind::Full(unescaped)));
        }
        pieces.push(Piece::Text(unescape(rest)));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(Kind::Fields(pieces)))
    }

    /// The template by which JSON is to be shown: none without a format, and for `json`.
    ///
    /// # Errors
    ///
    /// [`InvalidFormat`].
    pub(super) fn of_json(format: Option<&str>) -> Result<Option<Self>, InvalidFormat> {
        match format {
            None | Some("json") => Ok(None),
            Some(format) => Self::parse(format).map(Some).map_err(InvalidFormat),
        }
    }

    /// # Errors
    ///
    /// [`TemplateError::NoField`], [`TemplateError::NoObject`] and [`TemplateError::Render`] if `value` is made
    /// otherwise.
    pub(super) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let pieces = match &self.0 {
            Kind::Fields(pieces) => pieces,
            Kind::Full(text) => return full::render(text, value),
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field { path, json: true } => out.push_str(&walk(value, path)?.to_string()),
                Piece::Field { path, json: false } => print(walk(value, path)?, &mut out, true),
            }
        }
        Ok(out)
    }

    /// What stands over a table of such rows, from the headers of its fields; one without is headed by its name.
    ///
    /// # Errors
    ///
    /// As [`Template::render`].
    pub(super) fn render_headers(
        &self,
        headers: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let pieces = match &self.0 {
            Kind::Fields(pieces) => pieces,
            Kind::Full(text) => {
                return full::render_headers(text, &Value::Object(headers.clone()));
            }
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field { path, .. } => {
                    let field = path.last().map_or("", String::as_str);
                    let header = headers.get(field).and_then(Value::as_str);
                    out.push_str(header.unwrap_or(field));
                }
            }
        }
        Ok(out)
    }
}

/// `None` if it is more than a field.
fn parse_action(action: &str) -> Option<Piece> {
    let action_text = action.trim();
    let (path, json) = match action_text.strip_prefix("json ") {
        Some(path) => (path.trim(), true),
        None => (action_text, false),
    };
    let names = path.strip_prefix('.')?;
    if names.is_empty() {
        return Some(Piece::Field {
            path: Vec::new(),
            json,
        });
    }
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    names.split('.').all(is_name).then(|| Piece::Field {
        path: names.split('.').map(str::to_owned).collect(),
        json,
    })
}

/// Fields whose keys are the user's, so that one that is not there is no mistake of the template.
const MAPS: [&str; 2] = ["Attributes", "Labels"];

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
        let is_map = depth > 0 && MAPS.contains(&path[depth - 1].as_str());
        if is_map && !fields.contains_key(field) {
            return Ok(&Value::Null);
        }
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
            ("{{.Labels.c}}", "<no value>"),
            ("no action", "no action"),
        ];
        for (template, expected) in good {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn the_whole_language() {
        let good = [
            ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
            (
                "{{range $at, $name := .Env}}{{$at}}{{$name}} {{end}}",
                "0A=1 1B=2 ",
            ),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{with .State.Health}}{{.}}{{else}}none{{end}}", "none"),
            ("{{index .Env 1}} {{index .Labels \"a\"}}", "B=2 1"),
            ("{{join .Env \", \"}}", "A=1, B=2"),
            ("{{index (split .Name \"/\") 1 | upper}}", "DB"),
            ("{{title \"a word\"}} {{lower \"ABC\"}}", "A Word abc"),
            ("{{truncate .Name 2}}|{{pad .Name 1 2}}|", "/d| /db  |"),
            ("{{printf \"%s=%d\" .Name .State.Pid}}", "/db=7"),
            ("{{println .Name}}", "/db\n"),
            (
                "{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}",
                "a=1;b=2;",
            ),
            (
                "{{len .Env}}\\t{{json .Labels}}",
                "2\t{\"a\":\"1\",\"b\":\"2\"}",
            ),
            (
                "{{eq .State.Pid 7}} {{.Labels.nosuch}}{{- /* no */ -}} .",
                "true <no value>.",
            ),
        ];
        for (template, expected) in good {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn headers_stand_where_their_fields_do() {
        let Value::Object(headers) = json!({"Name": "NAME", "Env": "ENV"}) else {
            unreachable!("it is an object")
        };
        for (template, expected) in [
            ("{{.Name}}\\t{{.Other}}", "NAME\tOther"),
            ("{{upper .Name}}: {{join .Env \",\"}}", "NAME: ENV"),
        ] {
            let template = Template::parse(template).expect("a template");
            assert_eq!(template.render_headers(&headers).as_deref(), Ok(expected));
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
        assert!(wrong("{{range .Env}}").starts_with("template parsing error: "));
        assert!(wrong("{{nosuch .Env}}").starts_with("template parsing error: "));
        assert!(wrong("{{len .State.Pip}}").starts_with("template: "));
        assert!(wrong("{{.Name").contains("without }}"));
    }

    proptest! {
        #[test]
        fn nothing_panics(template in "[{}. a-zA-Z$|:=\"-]{0,24}") {
            let _ = render(&template);
        }
    }
}
