//! Signals as people write them.

use std::str::FromStr;

use super::refusal::Refusal;

/// SIGKILL.
pub(crate) const KILL: i32 = 9;

/// The number of `TERM`, `SIGTERM`, `sigterm` or `15`.
pub(crate) fn number(text: &str) -> Result<i32, Refusal> {
    let wrong = || Refusal::invalid(format!("Invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(wrong())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    nix::sys::signal::Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as i32)
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(number(text).expect(text), 15);
        }
        for text in ["", "0", "65", "NONSENSE", "-1"] {
            assert_eq!(
                number(text).expect_err(text).message,
                format!("Invalid signal: {text}")
            );
        }
    }
}
