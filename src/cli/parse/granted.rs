//! `--secret` and `--config` of services.

use std::str::FromStr;

/// A secret or a config, and as which file the service's containers have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Granted {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) uid: String,
    pub(crate) gid: String,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Neither a name nor `source=NAME,..`.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidGrant {
    #[error(
        "source is required in {0:?}: expected NAME or source=NAME,target=PATH,uid=ID,gid=ID,mode=0444"
    )]
    NoSource(String),
    #[error(
        "invalid field {field:?} in {text:?}: expected source, target, uid, gid or mode, with a value"
    )]
    Field { field: String, text: String },
    #[error("invalid mode {mode:?} in {text:?}: expected octal digits behind a 0, as 0440")]
    Mode { mode: String, text: String },
}

impl Granted {
    /// As a file by its own name that all may read.
    pub(crate) fn named(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            target: source.to_owned(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        }
    }
}

impl FromStr for Granted {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        if !text.contains([',', '=']) && !text.is_empty() {
            return Ok(Self::named(text));
        }
        let mut granted = Self::named("");
        for field in text.split(',') {
            let wrong = || InvalidGrant::Field {
                field: field.to_owned(),
                text: text.to_owned(),
            };
            let (key, value) = field.split_once('=').ok_or_else(wrong)?;
            let value = value.to_owned();
            match key.trim().to_ascii_lowercase().as_str() {
                "source" | "src" => granted.source = value,
                "target" => granted.target = value,
                "uid" => granted.uid = value,
                "gid" => granted.gid = value,
                "mode" => {
                    granted.mode = mode(&value).ok_or_else(|| InvalidGrant::Mode {
                        mode: value,
                        text: text.to_owned(),
                    })?;
                }
                _ => return Err(wrong()),
            }
        }
        if granted.source.is_empty() {
            return Err(InvalidGrant::NoSource(text.to_owned()));
        }
        if granted.target.is_empty() {
            granted.target.clone_from(&granted.source);
        }
        Ok(granted)
    }
}

/// A number as Go reads it: octal behind a 0, else decimal.
fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    match digits {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants() {
        assert_eq!("key".parse(), Ok(Granted::named("key")));
        assert_eq!(
            "source=key,target=/etc/key,uid=5,gid=6,mode=0400".parse(),
            Ok(Granted {
                source: "key".to_owned(),
                target: "/etc/key".to_owned(),
                uid: "5".to_owned(),
                gid: "6".to_owned(),
                mode: 0o400,
            })
        );
        let by_default: Granted = "src=key,mode=256".parse().expect("a grant");
        assert_eq!(
            (by_default.target.as_str(), by_default.mode),
            ("key", 0o400)
        );
        for wrong in [
            "",
            "target=a",
            "source=a,b",
            "source=a,mode=rw",
            "source=a,foo=b",
        ] {
            assert!(wrong.parse::<Granted>().is_err(), "{wrong:?}");
        }
    }
}
