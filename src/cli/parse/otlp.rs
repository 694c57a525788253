//! `daemon --otlp-endpoint`.

use std::str::FromStr;

use hyper::Uri;

/// What the collector's path for traces ends with (OTLP 1.x, over HTTP).
const TRACES: &str = "/v1/traces";

/// Where a collector takes traces by OTLP over HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OtlpEndpoint {
    url: String,
}

/// Not such an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}: expected http://HOST:PORT or https://HOST:PORT of a collector that takes OTLP over HTTP, as http://127.0.0.1:4318"
)]
pub(crate) struct InvalidEndpoint(&'static str);

impl OtlpEndpoint {
    /// Where spans are sent to.
    pub(crate) fn traces(&self) -> &str {
        &self.url
    }
}

impl FromStr for OtlpEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint("no URL"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some("grpc") => return Err(InvalidEndpoint("OTLP over gRPC is not spoken")),
            _ => return Err(InvalidEndpoint("neither http:// nor https://")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(InvalidEndpoint("no host"));
        }
        let has_port = authority.len() > uri.host().map_or(0, str::len);
        if has_port && uri.port_u16().is_none() && !authority.contains('@') {
            return Err(InvalidEndpoint("a port that is none"));
        }
        if authority.contains('@') {
            return Err(InvalidEndpoint(
                "a name or password, which others would see",
            ));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(InvalidEndpoint("more than a path"));
        }
        let text = text.trim_end_matches('/');
        let base = text.strip_suffix(TRACES).unwrap_or(text);
        Ok(Self {
            url: format!("{base}{TRACES}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_the_path_for_traces() {
        let url = |text: &str| text.parse().map(|OtlpEndpoint { url }| url).ok();
        let local = Some("http://127.0.0.1:4318/v1/traces".to_owned());
        assert_eq!(url("http://127.0.0.1:4318"), local);
        assert_eq!(url("http://127.0.0.1:4318/"), local);
        assert_eq!(url("http://127.0.0.1:4318/v1/traces"), local);
        assert!(url("http://[::1]:4318").is_some());
        assert_eq!(
            url("https://otlp.example.org/tenant"),
            Some("https://otlp.example.org/tenant/v1/traces".to_owned())
        );
        for wrong in [
            "",
            "127.0.0.1:4318",
            "grpc://127.0.0.1:4317",
            "ftp://a",
            "http://",
            "http://a:b@host",
            "http://host?a=b",
            "http://host#a",
            "http://host:99999999",
            "http://host:",
            "/v1/traces",
        ] {
            assert_eq!(url(wrong), None, "{wrong:?}");
        }
    }
}
