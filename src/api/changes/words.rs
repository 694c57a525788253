//! Words of an instruction, with quotes and backslashes.

use crate::daemon::refusal::Refusal;

/// Splits at spaces that are neither quoted nor behind a backslash; quotes go.
pub(super) fn words(text: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match (next, quote) {
            ('\\', None | Some('"')) => {
                let escaped = rest.next().unwrap_or('\\');
                word.get_or_insert_default().push(escaped);
            }
            (mark @ ('"' | '\''), None) => {
                quote = Some(mark);
                word.get_or_insert_default();
            }
            (mark, Some(open)) if mark == open => quote = None,
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err(Refusal::invalid(format!("unterminated quote in {text:?}")));
    }
    words.extend(word);
    Ok(words)
}

/// `KEY=VALUE ..`, or as long ago `KEY VALUE` with the value to the end of the line.
pub(super) fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let first = text.split_whitespace().next().unwrap_or_default();
    let missing = || Refusal::invalid(format!("{name} must have two arguments"));
    if !first.contains('=') && !text.starts_with(['"', '\'']) {
        let (key, value) = text.split_once(char::is_whitespace).ok_or_else(missing)?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (key, value) = word.split_once('=').ok_or_else(missing)?;
        if key.is_empty() {
            return Err(Refusal::invalid(format!("{name} names can not be blank")));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    words(text)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let split = |text| words(text).expect(text);
        assert_eq!(
            split(r#"a "b c" d\ e 'f\g' "h\"i""#),
            ["a", "b c", "d e", r"f\g", "h\"i"]
        );
        assert_eq!(split(r#"x="" "#), ["x="]);
        assert_eq!(split("  "), [""; 0]);
        assert!(words("a 'b").is_err());
    }
}
