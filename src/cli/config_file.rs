//! `config.json` of Docker's client, which both clients read and write: accounts, and the context in use.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use serde_json::{Map, Value};

/// The file as it is; what nobody here knows of stays in it.
pub(super) struct ConfigFile {
    path: PathBuf,
    pub(super) fields: Map<String, Value>,
}

/// What `--config` says.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Has the configuration looked for in `directory`; the first that is chosen stays so.
pub(super) fn choose(directory: PathBuf) {
    let _ = CHOSEN.set(directory);
}

/// Where the configuration of Docker's client is: where `--config` says, `DOCKER_CONFIG`, else `~/.docker`.
pub(super) fn directory() -> PathBuf {
    if let Some(chosen) = CHOSEN.get() {
        return chosen.clone();
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
    }
}

impl ConfigFile {
    /// Reads that of `directory`; that there is none is as if it were empty.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not JSON.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("config.json");
        let content = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            content => content.with_context(|| format!("read {}", path.display()))?,
        };
        let fields = match content.trim_ascii() {
            b"" => Map::new(),
            content => serde_json::from_slice(content)
                .with_context(|| format!("{} is not valid", path.display()))?,
        };
        Ok(Self { path, fields })
    }

    /// Where it is kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_string_pretty(&self.fields)?.replace("  ", "\t");
            replace(&self.path, text.as_bytes())
        };
        write().with_context(|| format!("write {}", self.path.display()))
    }
}

/// Writes a file whole or not at all, and makes its directory.
pub(super) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}
