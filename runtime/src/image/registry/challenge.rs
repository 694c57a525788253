//! What a registry wants to know before it answers: its `WWW-Authenticate` header (RFC 9110 §11.6.1).

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token that is given out elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

impl Challenge {
    /// The first challenge of the header that is understood.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (key, value) in self::parameters(parameters) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        realm.map(|realm| Self::Bearer { realm, service })
    }
}

/// `key="value"` or `key=value`, separated by commas; a backslash in quotes takes the next character as it is.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut characters = after.chars();
        if after.starts_with('"') {
            characters.next();
            while let Some(character) = characters.next() {
                match character {
                    '"' => break,
                    '\\' => value.extend(characters.next()),
                    other => value.push(other),
                }
            }
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            value.push_str(&after[..end]);
            characters = after[end..].chars();
        }
        found.push((key.trim().to_owned(), value));
        rest = characters.as_str().trim_start_matches([' ', ',']);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_of_registries() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
            })
        };
        for (header, expected) in [
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a,b""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (
                r"bearer service=x, Realm=http://a/t",
                bearer("http://a/t", Some("x")),
            ),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None)),
            ("Bearer", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in r#"(Bearer |Basic )?[a-z="\\, ]{0,40}"#) {
            let _ = Challenge::parse(&header);
        }
    }
}
