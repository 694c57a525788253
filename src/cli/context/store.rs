//! Contexts on the disk, as Docker's client keeps them: `contexts/meta/<sha256 of the name>/meta.json`, and beside them
//! `contexts/tls/<sha256 of the name>/<endpoint>/`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nuncio_runtime::image::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cli::config_file::{self, replace};

/// The context that is always there: what the environment says.
pub(super) const DEFAULT: &str = "default";

/// The endpoint of a daemon among those of a context.
pub(super) const DOCKER: &str = "docker";

/// A context.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Meta {
    pub(super) name: String,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    #[serde(default)]
    pub(super) endpoints: Map<String, Value>,
}

impl Meta {
    pub(super) fn new(name: &str, host: &str, description: &str) -> Self {
        let mut meta = Self {
            name: name.to_owned(),
            metadata: Map::new(),
            endpoints: Map::new(),
        };
        meta.lead_to(host, false);
        meta.describe(description);
        meta
    }

    /// Sets where the daemon is.
    pub(super) fn lead_to(&mut self, host: &str, skip_verify: bool) {
        let endpoint = json!({ "Host": host, "SkipTLSVerify": skip_verify });
        self.endpoints.insert(DOCKER.to_owned(), endpoint);
    }

    /// Sets the description; an empty one is none.
    pub(super) fn describe(&mut self, text: &str) {
        self.metadata.remove("Description");
        if !text.is_empty() {
            self.metadata.insert("Description".to_owned(), text.into());
        }
    }

    pub(super) fn description(&self) -> &str {
        let text = self.metadata.get("Description").and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// Where the daemon is; empty if that is not said.
    pub(super) fn host(&self) -> &str {
        let endpoint = self.endpoints.get(DOCKER);
        let host = endpoint.and_then(|endpoint| endpoint["Host"].as_str());
        host.unwrap_or_default()
    }
}

/// The directory of contexts.
pub(super) struct Store(PathBuf);

impl Store {
    /// That of the user.
    pub(super) fn own() -> Self {
        Self(config_file::directory().join("contexts"))
    }

    /// Where a context's `meta.json` is.
    pub(super) fn meta_directory(&self, name: &str) -> PathBuf {
        self.0.join("meta").join(Digest::of(name.as_bytes()).hex())
    }

    /// Where its certificates are.
    pub(super) fn tls_directory(&self, name: &str) -> PathBuf {
        self.0.join("tls").join(Digest::of(name.as_bytes()).hex())
    }

    /// The context of that name.
    ///
    /// # Errors
    ///
    /// There is none, or its file is none; in Docker's words.
    pub(super) fn find(&self, name: &str) -> anyhow::Result<Meta> {
        let path = self.meta_directory(name).join("meta.json");
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "context {name:?}: context not found: open {}: no such file or directory",
                path.display()
            ),
            content => content.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&content).with_context(|| format!("{} is not valid", path.display()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.meta_directory(name).join("meta.json").exists()
    }

    /// All contexts but the default one, by name; those that cannot be read are told of and left out.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub(super) fn list(&self) -> anyhow::Result<Vec<Meta>> {
        let directory = self.0.join("meta");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read {}", directory.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path().join("meta.json");
            let read = fs::read(&path).ok();
            match read.and_then(|content| serde_json::from_slice::<Meta>(&content).ok()) {
                Some(meta) => found.push(meta),
                None => crate::cli::warn(&format!("{} is no context", path.display())),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Keeps a context, in the place of the one of its name.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub(super) fn write(&self, meta: &Meta) -> anyhow::Result<()> {
        let path = self.meta_directory(&meta.name).join("meta.json");
        let content = serde_json::to_vec(meta)?;
        replace(&path, &content).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(
            &path,
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )?)
    }

    /// Keeps a file of an endpoint's certificates, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub(super) fn write_tls(
        &self,
        name: &str,
        endpoint: &str,
        file: &str,
        content: &[u8],
    ) -> anyhow::Result<()> {
        let directory = self.tls_directory(name).join(endpoint);
        let path = directory.join(file);
        let write = || -> io::Result<()> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)?;
            let mut options = fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            io::Write::write_all(&mut options.open(&path)?, content)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// The names of the files of certificates, by endpoint.
    pub(super) fn tls(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let names = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let directory = self.tls_directory(name);
        let endpoints = names(&directory).into_iter();
        endpoints
            .map(|endpoint| {
                let files = names(&directory.join(&endpoint));
                (endpoint, files)
            })
            .collect()
    }

    /// Forgets a context.
    ///
    /// # Errors
    ///
    /// A directory that cannot be removed.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        for directory in [self.meta_directory(name), self.tls_directory(name)] {
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.with_context(|| format!("remove {}", directory.display()))?,
            }
        }
        Ok(())
    }
}

/// Checks the name of a context that is to be made.
///
/// # Errors
///
/// Docker's words for a name that it would not take.
pub(super) fn check_name(name: &str) -> anyhow::Result<()> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let mut bytes = name.bytes();
    if name.is_empty() {
        bail!("context name cannot be empty");
    }
    if name == DEFAULT {
        bail!("\"default\" is a reserved context name");
    }
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || name.len() < 2 || !bytes.all(inner) {
        bail!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_kept_as_docker_keeps_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store(directory.path().join("contexts"));
        let meta = Meta::new("aa", "unix:///tmp/x.sock", "Hello");
        store.write(&meta).expect("kept");
        let file = directory.path().join(
            "contexts/meta/961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506/meta.json",
        );
        assert_eq!(
            fs::read_to_string(file).expect("where Docker has it"),
            r#"{"Name":"aa","Metadata":{"Description":"Hello"},"Endpoints":{"docker":{"Host":"unix:///tmp/x.sock","SkipTLSVerify":false}}}"#
        );
        assert_eq!(store.find("aa").expect("found"), meta);
        assert_eq!(store.list().expect("a list"), [meta]);
        store.remove("aa").expect("removed");
        let gone = store.find("aa").expect_err("gone").to_string();
        assert!(gone.starts_with("context \"aa\": context not found: open "));
    }

    #[test]
    fn names_are_docker_s() {
        for name in ["aa", "a-b_c.d+e", "1x"] {
            check_name(name).expect(name);
        }
        for wrong in ["", "a", "default", "-a", "a/b", "a b", "..x"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
