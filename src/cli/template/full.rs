//! Templates beyond fields: Go's own language, and the functions that Docker adds to it.

use std::collections::HashMap;

use gtmpl_ng::{Context, Func, FuncError, Template, Value};

use super::TemplateError;

/// Docker's functions.
const FUNCTIONS: [(&str, Func); 9] = [
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", title),
    ("lower", lower),
    ("upper", upper),
    ("pad", pad),
    ("truncate", truncate),
    (LABEL, label),
];

/// Stands for the method `.Label`, which finds one of a row's [`LABELS`].
const LABEL: &str = "label";
/// Where a row has its labels by name; it is shown by `.Label` alone.
pub(in crate::cli) const LABELS: &str = "LabelMap";

/// Writes methods as functions of what they belong to: the engine has no methods.
pub(super) fn with_functions(action: &str) -> String {
    const METHOD: &str = ".Label ";
    let mut text = String::with_capacity(action.len());
    let mut rest = action;
    while let Some(at) = rest.find(METHOD) {
        let (before, after) = rest.split_at(at);
        let begins = before.is_empty() || before.ends_with([' ', '(', '|', '-', '\t']);
        text.push_str(before);
        text.push_str(if begins { "label . " } else { METHOD });
        rest = &after[METHOD.len()..];
    }
    text + rest
}

/// Checks that `text` is a template.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn check(text: &str) -> Result<(), TemplateError> {
    parse(text, &FUNCTIONS).map(drop)
}

/// # Errors
///
/// What `value` lacks.
pub(super) fn render(text: &str, value: &serde_json::Value) -> Result<String, TemplateError> {
    execute(&parse(text, &FUNCTIONS)?, value)
}

/// The same for the headers of a table, on which no function does anything.
///
/// # Errors
///
/// As [`render`].
pub(super) fn render_headers(
    text: &str,
    headers: &serde_json::Value,
) -> Result<String, TemplateError> {
    let functions = FUNCTIONS.map(|(name, _)| match name {
        LABEL => (name, label_header as Func),
        _ => (name, header as Func),
    });
    execute(&parse(text, &functions)?, headers)
}

fn parse(text: &str, functions: &[(&str, Func)]) -> Result<Template, TemplateError> {
    let mut template = Template::default();
    for (name, function) in functions {
        template.add_func(name, *function);
    }
    template
        .parse(text)
        .map_err(|error| TemplateError::Parse(error.to_string()))?;
    Ok(template)
}

fn execute(template: &Template, value: &serde_json::Value) -> Result<String, TemplateError> {
    template
        .render(&Context::from(to_value(value, true)))
        .map_err(|error| TemplateError::Render(error.to_string()))
}

/// Fields whose keys are the user's: one that is not there is no error.
const MAPS: [&str; 9] = [
    "Annotations",
    "Attributes",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "Ports",
    "Sysctls",
    "Volumes",
];

fn to_value(value: &serde_json::Value, is_struct: bool) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(items) => {
            Value::Array(items.iter().map(|item| to_value(item, true)).collect())
        }
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::Object(fields) => {
            let fields: HashMap<String, Value> = fields
                .iter()
                .map(|(key, value)| {
                    let is_struct = !MAPS.contains(&key.as_str());
                    (key.clone(), to_value(value, is_struct))
                })
                .collect();
            match is_struct {
                true => Value::Object(fields),
                false => Value::Map(fields),
            }
        }
    }
}

fn from_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(from_value).collect(),
        Value::Number(number) => {
            let text = number.to_string();
            serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
        }
        Value::Object(fields) | Value::Map(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort();
            keys.into_iter()
                .map(|key| (key.clone(), from_value(&fields[key])))
                .collect()
        }
        Value::Nil | Value::NoValue | Value::Function(_) => serde_json::Value::Null,
    }
}

/// The arguments, if there are `N`.
fn arguments<'a, const N: usize>(
    name: &str,
    given: &'a [Value],
) -> Result<&'a [Value; N], FuncError> {
    given
        .try_into()
        .map_err(|_| FuncError::ExactlyXArgs(name.to_owned(), N))
}

fn number(name: &str, value: &Value) -> Result<usize, FuncError> {
    let wrong = || FuncError::Generic(format!("{name}: {value} is no number of characters"));
    value.to_string().parse().map_err(|_| wrong())
}

/// More than any format needs, and little enough to hold.
const MOST: usize = 1 << 16;

fn spaces(name: &str, value: &Value) -> Result<String, FuncError> {
    let count = number(name, value)?;
    if count > MOST {
        return Err(FuncError::Generic(format!(
            "{name}: {count} spaces are more than {MOST}"
        )));
    }
    Ok(" ".repeat(count))
}

fn json(given: &[Value]) -> Result<Value, FuncError> {
    let [value] = arguments("json", given)?;
    Ok(from_value(value).to_string().into())
}

fn split(given: &[Value]) -> Result<Value, FuncError> {
    let [text, separator] = arguments("split", given)?;
    let (text, separator) = (text.to_string(), separator.to_string());
    let parts: Vec<Value> = match separator.is_empty() {
        true => text.chars().map(|c| c.to_string().into()).collect(),
        false => text.split(&separator).map(Value::from).collect(),
    };
    Ok(Value::Array(parts))
}

fn join(given: &[Value]) -> Result<Value, FuncError> {
    let [list, separator] = arguments("join", given)?;
    let parts: Vec<String> = match list {
        Value::Array(items) => items.iter().map(ToString::to_string).collect(),
        Value::Nil | Value::NoValue => Vec::new(),
        other => {
            let message = format!("join: {other} is no list");
            return Err(FuncError::Generic(message));
        }
    };
    Ok(parts.join(&separator.to_string()).into())
}

fn title(given: &[Value]) -> Result<Value, FuncError> {
    let [text] = arguments("title", given)?;
    let mut titled = String::new();
    let mut begins = true;
    for c in text.to_string().chars() {
        match begins {
            true => titled.extend(c.to_uppercase()),
            false => titled.push(c),
        }
        begins = !c.is_alphanumeric() && c != '_' && c != '\'';
    }
    Ok(titled.into())
}

fn lower(given: &[Value]) -> Result<Value, FuncError> {
    let [text] = arguments("lower", given)?;
    Ok(text.to_string().to_lowercase().into())
}

fn upper(given: &[Value]) -> Result<Value, FuncError> {
    let [text] = arguments("upper", given)?;
    Ok(text.to_string().to_uppercase().into())
}

fn pad(given: &[Value]) -> Result<Value, FuncError> {
    let [text, before, after] = arguments("pad", given)?;
    let text = text.to_string();
    if text.is_empty() {
        return Ok(text.into());
    }
    let padded = spaces("pad", before)? + &text + &spaces("pad", after)?;
    Ok(padded.into())
}

fn truncate(given: &[Value]) -> Result<Value, FuncError> {
    let [text, most] = arguments("truncate", given)?;
    let most = number("truncate", most)?;
    Ok(text
        .to_string()
        .chars()
        .take(most)
        .collect::<String>()
        .into())
}

/// The label of that name of a row, which may have none.
fn label(given: &[Value]) -> Result<Value, FuncError> {
    let [row, name] = arguments(".Label", given)?;
    let fields = |value: &Value| match value {
        Value::Object(fields) | Value::Map(fields) => Some(fields.clone()),
        _ => None,
    };
    let labels = fields(row).and_then(|row| row.get(LABELS).and_then(fields));
    let found = labels.and_then(|labels| labels.get(&name.to_string()).cloned());
    Ok(found.unwrap_or_else(|| String::new().into()))
}

/// What stands over the labels of a name: its last part.
fn label_header(given: &[Value]) -> Result<Value, FuncError> {
    let [_, name] = arguments(".Label", given)?;
    let name = name.to_string();
    let last = name.rsplit('.').next().unwrap_or_default();
    Ok(last.replace(['-', '_'], " ").into())
}

/// A header is shown as it is, whatever is done to the cells below it.
fn header(given: &[Value]) -> Result<Value, FuncError> {
    Ok(given.first().cloned().unwrap_or(Value::Nil))
}
