//! Names of peers: `spiffe://<mesh>/<network>/<name>`.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;

use super::verify::{self, PeerError};

/// SPIFFE's bound.
const LONGEST: usize = 2048;

/// Who a certificate says its holder is. Displayed and parsed as `spiffe://<mesh>/<network>/<name>`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Identity([String; 3]);

/// An identity, or all of a network or a mesh: `*` may stand for the name, or for the network.
/// Displayed and parsed as `spiffe://<mesh>/<network>/*`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Allowed([String; 3]);

/// Not an identity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not an identity; write spiffe://MESH/NETWORK/NAME, of letters, digits and -_.")]
pub struct IdentityError(String);

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        parse(text, |_| false).map(Self)
    }
}

impl Identity {
    /// Who a certificate is for, whether it is genuine or not.
    ///
    /// # Errors
    ///
    /// [`PeerError`] if it is for nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PeerError> {
        verify::identity(certificate)
    }
}

impl FromStr for Allowed {
    type Err = IdentityError;

    /// The mesh must be named: whom another mesh vouches for is its own affair.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        parse(text, |segment| segment == "*").map(Self)
    }
}

impl Allowed {
    /// Whether this is, or includes, `identity`.
    #[must_use]
    pub fn includes(&self, identity: &Identity) -> bool {
        let mut pairs = self.0.iter().zip(&identity.0);
        pairs.all(|(allowed, is)| allowed == "*" || allowed == is)
    }
}

fn parse(text: &str, also: fn(&str) -> bool) -> Result<[String; 3], IdentityError> {
    let is_segment = |segment: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
    };
    let parts = || {
        let rest = text.strip_prefix("spiffe://")?;
        let mut segments = rest.split('/');
        let [mesh, network, name] = [segments.next()?, segments.next()?, segments.next()?];
        let lower = !mesh.bytes().any(|byte| byte.is_ascii_uppercase());
        let right = lower
            && is_segment(mesh)
            && [network, name]
                .iter()
                .all(|part| is_segment(part) || also(part));
        let whole = right && segments.next().is_none() && text.len() <= LONGEST;
        whole.then(|| [mesh, network, name].map(str::to_owned))
    };
    parts().ok_or_else(|| {
        let shown: String = text.chars().take(200).collect();
        IdentityError(shown)
    })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.0.join("/"))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_one_whole_segment() {
        let redis: Identity = "spiffe://mesh/prod/redis".parse().unwrap();
        for (allowed, includes) in [
            ("spiffe://mesh/prod/redis", true),
            ("spiffe://mesh/prod/*", true),
            ("spiffe://mesh/*/redis", true),
            ("spiffe://mesh/*/*", true),
            ("spiffe://mesh/prod/redis2", false),
            ("spiffe://mesh/test/*", false),
            ("spiffe://other/*/*", false),
        ] {
            let parsed: Allowed = allowed.parse().unwrap();
            assert_eq!(parsed.includes(&redis), includes, "{allowed}");
            assert_eq!(parsed.to_string(), allowed);
        }
    }

    #[test]
    fn what_is_no_identity_is_told_what_would_be() {
        for text in [
            "",
            "mesh/prod/redis",
            "https://mesh/prod/redis",
            "spiffe://mesh/prod",
            "spiffe://mesh/prod/redis/1",
            "spiffe://mesh/prod/",
            "spiffe://mesh//redis",
            "spiffe://mesh/../redis",
            "spiffe://Mesh/prod/redis",
            "spiffe://me sh/prod/redis",
            "spiffe://mesh/prod/red*",
            "spiffe://*/prod/redis",
        ] {
            let error = text.parse::<Allowed>().unwrap_err().to_string();
            assert!(error.contains("spiffe://MESH/NETWORK/NAME"), "{error}");
        }
        assert!("spiffe://mesh/prod/*".parse::<Identity>().is_err());
        let long = format!("spiffe://mesh/prod/{}", "x".repeat(2048));
        assert!(long.parse::<Identity>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_taken_goes_round(
            text in "(spiffe://)?[a-zA-Z*./_-]{0,20}|.{0,40}",
        ) {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text.clone());
                prop_assert!(text.parse::<Allowed>().unwrap().includes(&identity));
            }
        }
    }
}
