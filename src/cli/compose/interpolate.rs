//! `${NAME}` and its kin in a file's values.

use super::yaml::{Node, Value, Wrong};

/// The most that replacing may nest.
const DEEPEST: usize = 16;

/// Replaces variables in all values below `node`.
///
/// # Errors
///
/// What is no variable, and one that must be set and is not.
pub(super) fn replace(
    node: &mut Node,
    look_up: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
) -> Result<(), Wrong> {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            *text = text_of(text, look_up, unset, 0).map_err(|what| {
                node.at
                    .wrong(format!("invalid interpolation format: {what}"))
            })?;
        }
        Value::List(items) => {
            for item in items {
                replace(item, look_up, unset)?;
            }
        }
        Value::Map(members) => {
            for (_, member) in members {
                replace(member, look_up, unset)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `text` with its variables replaced; those that were not set are noted.
///
/// # Errors
///
/// What is wrong, and what would be right.
fn text_of(
    text: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > DEEPEST {
        return Err(format!("{text:?} nests deeper than {DEEPEST}"));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| malformed(text))?;
            out.push_str(&braced(&after[..end], text, look_up, unset, depth)?);
            rest = &after[end + 1..];
        } else {
            let end = name_length(after);
            if end == 0 {
                return Err(malformed(text));
            }
            out.push_str(&plain(&after[..end], look_up, unset));
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn malformed(text: &str) -> String {
    format!(
        "{text:?}: expected $NAME, ${{NAME}}, ${{NAME:-DEFAULT}}, ${{NAME:?MESSAGE}}, or $$ for a dollar sign"
    )
}

/// Where the brace ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if text[..at].ends_with('$') => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// How many bytes of `text` are a name.
fn name_length(text: &str) -> usize {
    let is_of_name = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    text.bytes()
        .enumerate()
        .take_while(|it| is_of_name(*it))
        .count()
}

fn plain(name: &str, look_up: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<String>) -> String {
    look_up(name).unwrap_or_else(|| {
        if !unset.iter().any(|other| other == name) {
            unset.push(name.to_owned());
        }
        String::new()
    })
}

/// What stands between braces.
fn braced(
    inside: &str,
    text: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    let (name, operator) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(malformed(text));
    }
    if operator.is_empty() {
        return Ok(plain(name, look_up, unset));
    }
    // With a colon what is empty is as if it was not set.
    let (counts_empty, operator) = match operator.strip_prefix(':') {
        Some(operator) => (false, operator),
        None => (true, operator),
    };
    let set = look_up(name).filter(|value| counts_empty || !value.is_empty());
    let mut chars = operator.chars();
    let kind = chars.next();
    let other = |unset: &mut Vec<String>| text_of(chars.as_str(), look_up, unset, depth + 1);
    match (kind, set) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => other(unset),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let message = other(unset)?;
            let colon = if message.is_empty() { "" } else { ": " };
            Err(format!(
                "required variable {name} is missing a value{colon}{message}"
            ))
        }
        _ => Err(malformed(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replaced(text: &str) -> Result<String, String> {
        let look_up = |name: &str| match name {
            "SET" => Some("set".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        text_of(text, &look_up, &mut Vec::new(), 0)
    }

    #[test]
    fn variables() {
        for (text, expected) in [
            ("a $SET b", "a set b"),
            ("${SET}${UNSET}x", "setx"),
            ("${UNSET:-d}${UNSET-d}${EMPTY:-d}${EMPTY-d}", "ddd"),
            ("${SET:-d}${SET:+more}${UNSET:+more}${EMPTY+e}", "setmoree"),
            ("${UNSET:-${SET}-${UNSET:-x}}", "set-x"),
            ("$$SET $${SET} 5$$", "$SET ${SET} 5$"),
            ("${SET:?must be}", "set"),
            ("${UNSET:-a:b/c}", "a:b/c"),
            ("none", "none"),
        ] {
            assert_eq!(replaced(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for (text, expected) in [
            (
                "${UNSET:?must be set}",
                "required variable UNSET is missing a value: must be set",
            ),
            ("${EMPTY:?}", "required variable EMPTY is missing a value"),
            ("$", "expected $NAME"),
            ("${", "expected $NAME"),
            ("${SET", "expected $NAME"),
            ("${}", "expected $NAME"),
            ("$1", "expected $NAME"),
            ("${SET!x}", "expected $NAME"),
        ] {
            let error = replaced(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[${}:?+A-Z_ é-]{0,24}") {
            let _ = replaced(&text);
        }

        #[test]
        fn what_has_no_dollar_stays(text in "[^$]{0,24}") {
            prop_assert_eq!(replaced(&text), Ok(text));
        }
    }
}
