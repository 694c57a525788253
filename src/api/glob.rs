//! Patterns as Go's `path.Match` has them, by which images are chosen.

use crate::daemon::refusal::Refusal;

/// Whether `pattern` matches all of `text`.
///
/// `*` is any number of characters but slashes, `?` is one of them, `[a-z]` and `[^a-z]` are classes, and a backslash
/// takes the meaning from what follows.
pub(crate) fn matches(pattern: &str, text: &str) -> Result<bool, Refusal> {
    let wrong = || Refusal::invalid(format!("syntax error in pattern {pattern:?}"));
    let pieces = parse(pattern).ok_or_else(wrong)?;
    let text: Vec<char> = text.chars().collect();
    Ok(match_pieces(&pieces, &text))
}

#[derive(Debug)]
enum Piece {
    Literal(char),
    One,
    Many,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

fn parse(pattern: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        pieces.push(match next {
            '*' => Piece::Many,
            '?' => Piece::One,
            '\\' => Piece::Literal(rest.next()?),
            '[' => class(&mut rest)?,
            literal => Piece::Literal(literal),
        });
    }
    Some(pieces)
}

/// What follows an opening bracket, up to the closing one.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Piece> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Piece::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let high = if rest.as_str().starts_with('-') {
            rest.next();
            class_character(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        plain => Some(plain),
    }
}

/// Goes back to the last star when what follows it does not fit: never further, so that no pattern takes long.
fn match_pieces(pieces: &[Piece], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pieces.get(p) {
            Some(Piece::Many) => {
                star = Some((p, t));
                p += 1;
            }
            Some(piece) if fits(piece, text[t]) => (p, t) = (p + 1, t + 1),
            _ => match star.filter(|&(_, from)| text[from] != '/') {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pieces[p..].iter().all(|piece| matches!(piece, Piece::Many))
}

fn fits(piece: &Piece, character: char) -> bool {
    match piece {
        Piece::Literal(literal) => *literal == character,
        Piece::One => character != '/',
        Piece::Class { negated, ranges } => {
            let inside = |&(low, high): &(char, char)| (low..=high).contains(&character);
            ranges.iter().any(inside) != *negated
        }
        Piece::Many => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_gos_path_match() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("*", "a/b", false),
            ("", "", true),
        ] {
            let found = matches(pattern, text).expect(pattern);
            assert_eq!(found, expected, "{pattern} in {text}");
        }
        for wrong in ["[]a]", "[-]", "[x-]", "[", "[^", "[^bc", "a[", "a\\"] {
            assert!(matches(wrong, "a").is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused(pattern in "[a*?/\\\\\\[\\]^-]{0,12}", text in "[ab/*]{0,12}") {
            let _ = matches(&pattern, &text);
        }

        #[test]
        fn what_has_no_meaning_matches_itself(text in "[a-z0-9/:.@_-]{0,16}") {
            prop_assert!(matches(&text, &text).expect("valid"));
        }
    }
}
