//! A tree as YAML; strings in JSON's form, which is YAML too.

use super::yaml::Value;

/// Writes `value` below what is `depth` deep.
pub(super) fn write(value: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Map(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            for (key, node) in members {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                member(&node.value, depth + 1, out);
            }
        }
        Value::List(items) => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                member(&item.value, depth + 1, out);
            }
        }
        _ => {}
    }
}

fn member(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Map(members) if members.is_empty() => out.push_str(" {}\n"),
        Value::List(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Map(_) | Value::List(_) => {
            out.push('\n');
            write(value, depth, out);
        }
        Value::Null => out.push_str(" null\n"),
        Value::Bool(flag) => out.push_str(&format!(" {flag}\n")),
        Value::Number(number) => out.push_str(&format!(" {number}\n")),
        Value::Text(text) => out.push_str(&format!(" {}\n", scalar(text))),
    }
}

/// Bare where that can be read as nothing else.
fn scalar(text: &str) -> String {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    match is_plain {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}
