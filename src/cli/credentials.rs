//! Accounts at registries, kept where Docker's client keeps them: in `config.json`, or by a credential helper.

mod helper;

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use super::config_file::{self, ConfigFile};
use helper::Helper;

/// What Docker Hub's account is kept under.
const HUB: &str = "https://index.docker.io/v1/";
/// What stands for the user where a token stands for the password.
const TOKEN_USER: &str = "<token>";

/// An account at a registry.
#[derive(Clone, Default, Eq, PartialEq)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password: String,
    pub(super) identity_token: String,
}

impl Account {
    /// The header by which a daemon is told who asks `server`.
    pub(super) fn header(&self, server: &str) -> HeaderValue {
        let mut fields =
            json!({"username": self.username, "password": self.password, "serveraddress": server});
        if !self.identity_token.is_empty() {
            fields = json!({"identitytoken": self.identity_token, "serveraddress": server});
        }
        let text = URL_SAFE.encode(fields.to_string());
        HeaderValue::from_str(&text).expect("base64 is a valid header")
    }
}

/// What a registry's account is kept under: its host, but for Docker Hub.
pub(super) fn server_of(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "" => HUB,
        host => host,
    }
}

/// The host of an address, which may have a scheme and a path.
pub(super) fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The accounts in the configuration of Docker's client.
pub(super) struct Credentials(ConfigFile);

impl Credentials {
    /// Reads it; that there is none is as if it were empty.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not JSON.
    pub(super) fn load() -> anyhow::Result<Self> {
        Self::read(&config_file::directory())
    }

    fn read(directory: &Path) -> anyhow::Result<Self> {
        ConfigFile::read(directory).map(Self)
    }

    /// Where it is kept.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The account at `server`, if there is one.
    ///
    /// # Errors
    ///
    /// A helper that fails, or an entry that is none.
    pub(super) fn get(&self, server: &str) -> anyhow::Result<Option<Account>> {
        if let Some(helper) = self.helper(server)? {
            let found = helper.get(server)?;
            return Ok(found.map(|(username, secret)| match username.as_str() {
                TOKEN_USER => Account {
                    identity_token: secret,
                    ..Account::default()
                },
                _ => Account {
                    username,
                    password: secret,
                    ..Account::default()
                },
            }));
        }
        let Some(Value::Object(entries)) = self.0.fields.get("auths") else {
            return Ok(None);
        };
        // Older clients kept an account under the address of what they asked.
        let entry = entries.get(server).or_else(|| {
            let same = |(key, _): &(&String, &Value)| host_of(key) == host_of(server);
            entries.iter().find(same).map(|(_, entry)| entry)
        });
        entry
            .map(|entry| {
                decode(entry).with_context(|| format!("{}: {server}", self.path().display()))
            })
            .transpose()
            .map(|account| account.filter(|account| *account != Account::default()))
    }

    /// Keeps an account. Whether it lies in the file for all to read who can read that.
    ///
    /// # Errors
    ///
    /// A helper that fails, or a file that cannot be written.
    pub(super) fn store(&mut self, server: &str, account: &Account) -> anyhow::Result<bool> {
        if let Some(helper) = self.helper(server)? {
            let (user, secret) = match account.identity_token.as_str() {
                "" => (account.username.as_str(), account.password.as_str()),
                token => (TOKEN_USER, token),
            };
            helper.store(server, user, secret)?;
            self.entries()?.insert(server.to_owned(), json!({}));
            self.0.write()?;
            return Ok(false);
        }
        let pair = format!("{}:{}", account.username, account.password);
        let mut entry = json!({ "auth": STANDARD.encode(pair) });
        if !account.identity_token.is_empty() {
            entry["identitytoken"] = account.identity_token.clone().into();
        }
        self.entries()?.insert(server.to_owned(), entry);
        self.0.write()?;
        Ok(true)
    }

    /// Forgets an account.
    ///
    /// # Errors
    ///
    /// A helper that fails, or a file that cannot be written.
    pub(super) fn erase(&mut self, server: &str) -> anyhow::Result<()> {
        if let Some(helper) = self.helper(server)? {
            helper.erase(server)?;
        }
        let entries = self.entries()?;
        let before = entries.len();
        entries.retain(|key, _| key != server && host_of(key) != host_of(server));
        if entries.len() != before {
            self.0.write()?;
        }
        Ok(())
    }

    fn helper(&self, server: &str) -> anyhow::Result<Option<Helper>> {
        let own = self
            .0
            .fields
            .get("credHelpers")
            .and_then(|helpers| helpers.get(server));
        let name = own.or_else(|| self.0.fields.get("credsStore"));
        match name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => Helper::new(name).map(Some),
            None => Ok(None),
        }
    }

    fn entries(&mut self) -> anyhow::Result<&mut Map<String, Value>> {
        let path = self.0.path().to_owned();
        let entries = self
            .0
            .fields
            .entry("auths")
            .or_insert_with(|| Value::Object(Map::new()));
        match entries {
            Value::Object(entries) => Ok(entries),
            _ => bail!("{}: \"auths\" is no object", path.display()),
        }
    }
}

/// An entry of `auths`.
fn decode(entry: &Value) -> anyhow::Result<Account> {
    let field = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut account = Account {
        username: field("username").to_owned(),
        password: field("password").to_owned(),
        identity_token: field("identitytoken").to_owned(),
    };
    let text = field("auth");
    if !text.is_empty() {
        // What is in it must not be repeated in a message.
        let bytes = STANDARD.decode(text).ok();
        let pair = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':'))
        else {
            bail!("invalid auth: expected base64 of NAME:PASSWORD");
        };
        account.username = username.to_owned();
        account.password = password.trim_matches('\0').to_owned();
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(username: &str, password: &str) -> Account {
        Account {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Account::default()
        }
    }

    #[test]
    fn accounts_are_kept_and_forgotten_and_the_rest_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.json");
        std::fs::write(
            &file,
            r#"{"detachKeys": "ctrl-x", "auths": {"https://old.lan/v1/": {"auth": "YTpi"}}}"#,
        )
        .expect("write");
        let load = || Credentials::read(directory.path()).expect("readable");
        let me = account("me", "pass:word");
        assert!(load().store("reg.lan:5000", &me).expect("stored"));
        assert!(load().get("reg.lan:5000").expect("valid") == Some(me));
        assert!(load().get("old.lan").expect("valid") == Some(account("a", "b")));
        assert!(load().get("other").expect("valid").is_none());
        load().erase("reg.lan:5000").expect("erased");
        assert!(load().get("reg.lan:5000").expect("valid").is_none());
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(text.contains("\"detachKeys\": \"ctrl-x\""), "{text}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&file).expect("a file").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.json");
        std::fs::write(&file, r#"{"auths": {"a.b": {"auth": "c2VjcmV0"}}}"#).expect("write");
        let credentials = Credentials::read(directory.path()).expect("readable");
        let error = match credentials.get("a.b") {
            Err(error) => format!("{error:#}"),
            Ok(_) => panic!("no password in it"),
        };
        assert!(
            error.contains("expected base64") && !error.contains("c2Vj"),
            "{error}"
        );
        std::fs::write(&file, "{").expect("write");
        assert!(Credentials::read(directory.path()).is_err());
    }

    #[test]
    fn registries_are_kept_by_their_host_but_for_the_hub() {
        assert_eq!(server_of("docker.io"), HUB);
        assert_eq!(server_of("reg.lan:5000"), "reg.lan:5000");
        assert_eq!(host_of("https://reg.lan:5000/v2/"), "reg.lan:5000");
        assert_eq!(host_of(HUB), "index.docker.io");
    }

    #[test]
    fn a_header_tells_who_asks() {
        let header = account("me", "pw").header("r");
        let text = URL_SAFE.decode(header.as_bytes()).expect("base64");
        let fields: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            fields,
            json!({"username": "me", "password": "pw", "serveraddress": "r"})
        );
    }
}
