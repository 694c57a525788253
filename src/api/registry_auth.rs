//! Who asks a registry: the header that goes with a pull or a push, and `POST /auth`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use nuncio_runtime::image::{LoginError, RegistryAuth, login};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use zeroize::Zeroizing;

use super::body::JsonBody;
use super::error::ApiError;
use super::{Answer, Server};
use crate::daemon::orchestrator::accounts as kept;
use crate::daemon::refusal::Refusal;

const HEADER: &str = "x-registry-auth";
/// Docker's clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An account as clients send it; what it lacks may be null.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    #[serde(deserialize_with = "text")]
    username: String,
    #[serde(deserialize_with = "text")]
    password: String,
    #[serde(deserialize_with = "text")]
    serveraddress: String,
    #[serde(deserialize_with = "text")]
    identitytoken: String,
    #[serde(deserialize_with = "text")]
    registrytoken: String,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Account {
    fn auth(self) -> RegistryAuth {
        if !self.registrytoken.is_empty() {
            return RegistryAuth::Token(self.registrytoken);
        }
        if !self.identitytoken.is_empty() {
            return RegistryAuth::Identity(self.identitytoken);
        }
        if self.username.is_empty() {
            return RegistryAuth::Anonymous;
        }
        RegistryAuth::Basic {
            username: self.username,
            password: self.password,
        }
    }
}

/// `X-Registry-Auth`: base64 of an account as JSON; without a name, or `null`, it is nobody's.
pub(super) fn credentials(headers: &HeaderMap) -> Result<RegistryAuth, Refusal> {
    match headers.get(HEADER) {
        Some(value) => parse(&String::from_utf8_lossy(value.as_bytes())),
        None => Ok(RegistryAuth::Anonymous),
    }
}

/// The same as it was sent, to be kept for who fetches images later; the outer `None`: nothing was sent.
pub(super) fn to_keep(headers: &HeaderMap) -> Result<Option<Option<kept::Account>>, Refusal> {
    let sent = headers.get(HEADER).filter(|value| !value.is_empty());
    let Some(value) = sent else {
        return Ok(None);
    };
    let text = Zeroizing::new(String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok(Some(match parse(&text)? {
        RegistryAuth::Anonymous => None,
        _ => Some(kept::Account(text)),
    }))
}

/// What such a header says.
pub(crate) fn parse(value: &str) -> Result<RegistryAuth, Refusal> {
    if value.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    // What is in it must not be repeated in a message.
    let wrong =
        || Refusal::invalid("invalid X-Registry-Auth header: expected base64 of a JSON object");
    let safe = Zeroizing::new(value.replace('+', "-").replace('/', "_"));
    let json = Zeroizing::new(BASE64.decode(&*safe).map_err(|_| wrong())?);
    let account: Option<Account> = serde_json::from_slice(&json).map_err(|_| wrong())?;
    Ok(account.unwrap_or_default().auth())
}

/// Tells whether a registry takes an account; nothing of it is kept here.
pub(crate) async fn check(State(daemon): Server, JsonBody(account): JsonBody<Account>) -> Answer {
    let host = host(&account.serveraddress).to_owned();
    let auth = account.auth();
    match login(&host, &auth, daemon.registries()).await {
        Ok(()) => super::json::sorted(json!({"Status": "Login Succeeded", "IdentityToken": ""})),
        Err(error) => {
            let status = match error {
                LoginError::Refused { .. } | LoginError::Token(_) => StatusCode::UNAUTHORIZED,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let message = format!("{:#}", anyhow::Error::from(error));
            Err(ApiError::new(status, message))
        }
    }
}

/// The registry of an address, which may have a scheme and a path.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &str) -> Result<RegistryAuth, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", value.parse().expect("a valid header"));
        credentials(&headers)
    }

    #[test]
    fn credentials_are_read_padded_or_not() {
        let expected = RegistryAuth::Basic {
            username: "me".to_owned(),
            password: "pw".to_owned(),
        };
        for value in [
            "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwdyJ9",
            "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwdyJ9Cg==",
        ] {
            assert_eq!(sent(value).expect(value), expected);
        }
        let token = BASE64.encode(r#"{"identitytoken":"t"}"#);
        assert_eq!(
            sent(&token).expect("a token"),
            RegistryAuth::Identity("t".to_owned())
        );
        let nulls = BASE64.encode(r#"{"username":null,"password":null,"registrytoken":null}"#);
        for nobody in ["e30=", "bnVsbA==", &nulls] {
            assert_eq!(sent(nobody).expect("nobody's"), RegistryAuth::Anonymous);
        }
        assert_eq!(sent("").expect("none"), RegistryAuth::Anonymous);
        let error = sent("c2VjcmV0").expect_err("no JSON");
        assert!(!error.message.contains("c2VjcmV0"), "{}", error.message);
    }

    #[test]
    fn registries_of_addresses() {
        for (address, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://reg.lan:5000/v2/", "reg.lan:5000"),
        ] {
            assert_eq!(host(address), expected);
        }
    }
}
