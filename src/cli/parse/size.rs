//! `-m` and `--cpus`.

use std::str::FromStr;

/// A number of bytes, written as `512m`; units are powers of 1024.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Size(i64);

impl Size {
    pub(crate) fn bytes(self) -> i64 {
        self.0
    }
}

/// Not a size.
#[derive(Debug, thiserror::Error)]
#[error("invalid size: '{0}': expected a number and b, k, m, g or t, as 512m")]
pub(crate) struct InvalidSize(String);

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let wrong = || InvalidSize(text.to_owned());
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (number, unit) = text.split_at(text.len() - digits.len());
        let unit = unit.trim().to_ascii_lowercase();
        let power = match unit
            .strip_suffix("ib")
            .or_else(|| unit.strip_suffix('b'))
            .unwrap_or(&unit)
        {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(wrong()),
        };
        let scale = 1i64 << (10 * power);
        if let Ok(whole) = number.parse::<i64>() {
            return whole.checked_mul(scale).map(Self).ok_or_else(wrong);
        }
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * scale as f64;
        // 2^63 itself is the first that does not fit
        if bytes < i64::MAX as f64 {
            Ok(Self(bytes as i64))
        } else {
            Err(wrong())
        }
    }
}

/// A number of processors, exact to a billionth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Cpus(i64);

impl Cpus {
    pub(crate) fn nano(self) -> i64 {
        self.0
    }
}

/// Not a number of processors.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to parse {0} as a number of processors: expected a decimal number as 1.5, with at most nine decimals"
)]
pub(crate) struct InvalidCpus(String);

impl FromStr for Cpus {
    type Err = InvalidCpus;

    fn from_str(text: &str) -> Result<Self, InvalidCpus> {
        let nano = || {
            let (whole, part) = text.split_once('.').unwrap_or((text, ""));
            let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_number = is_digits(whole) && is_digits(part) && part.len() <= 9;
            if !is_number || (whole.is_empty() && part.is_empty()) {
                return None;
            }
            let whole: i64 = if whole.is_empty() {
                0
            } else {
                whole.parse().ok()?
            };
            let part: i64 = format!("{part:0<9}").parse().ok()?;
            whole.checked_mul(1_000_000_000)?.checked_add(part)
        };
        nano().map(Self).ok_or_else(|| InvalidCpus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse::<Size>().ok().map(Size::bytes);
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("42"), Some(42));
        assert_eq!(bytes("4kb"), Some(4096));
        assert_eq!(bytes("64M"), Some(64 << 20));
        assert_eq!(bytes("1.5g"), Some(3 << 29));
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        for wrong in [
            "",
            "m",
            "x",
            "-1",
            "1x",
            "1.2.3m",
            "9999999p",
            "1e3",
            "9223372036854775808",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn processors() {
        let nano = |text: &str| text.parse::<Cpus>().ok().map(Cpus::nano);
        assert_eq!(nano("1.5"), Some(1_500_000_000));
        assert_eq!(nano(".25"), Some(250_000_000));
        assert_eq!(nano("2"), Some(2_000_000_000));
        for wrong in ["", ".", "-1", "x", "1.0000000001", "99999999999"] {
            assert_eq!(nano(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whole_sizes_are_exact(number in 0i64..1 << 20, power in 0usize..4) {
            let text = format!("{number}{}", ["", "k", "m", "g"][power]);
            prop_assert_eq!(text.parse::<Size>().ok(), Some(Size(number << (10 * power))));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,24}") {
            let _ = (text.parse::<Size>(), text.parse::<Cpus>());
        }
    }
}
