//! What is at a path of a container, and what a copy that goes there is called.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::client::{Answer, Call, Client};

/// The header that says what is at a path.
const STAT: &str = "x-docker-container-path-stat";
/// What the daemon says of a path.
#[derive(Debug, Deserialize)]
pub(super) struct PathStat {
    /// As Go has it.
    mode: u32,
    #[serde(default, rename = "linkTarget")]
    pub(super) link_target: String,
}

impl PathStat {
    pub(super) fn is_dir(&self) -> bool {
        self.mode & (1 << 31) != 0
    }

    pub(super) fn is_link(&self) -> bool {
        self.mode & (1 << 27) != 0
    }

    /// Neither a directory nor a plain file.
    pub(super) fn is_special(&self) -> bool {
        const OTHERS: u32 = (1 << 27) | (1 << 26) | (1 << 25) | (1 << 24) | (1 << 19);
        self.mode & OTHERS != 0
    }

    pub(super) fn of(answer: &Answer) -> anyhow::Result<Self> {
        let header = answer
            .header(STAT)
            .context("the daemon does not say what is there")?;
        let json = STANDARD.decode(header).context("decode what is there")?;
        serde_json::from_slice(&json).context("parse what is there")
    }
}

pub(super) fn archive<'a>(call: Call<'a>, path: &str) -> Call<'a> {
    call.query("path", path)
}

pub(super) fn url(container: &str) -> String {
    format!("/containers/{container}/archive")
}

/// What is at a path of a container; `None` if nothing is.
pub(super) async fn look(
    client: &Client,
    container: &str,
    path: &str,
) -> anyhow::Result<Option<PathStat>> {
    match archive(client.head(&url(container)), path).send().await {
        Ok(answer) => PathStat::of(&answer).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where a copy goes, and by what name.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Placed {
    pub(super) directory: String,
    /// `None`: its own.
    pub(super) name: Option<String>,
}

/// What is known of the place a copy is to go to.
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) exists: bool,
    pub(super) is_dir: bool,
}

/// Docker's rules: into a directory that is there, else under the name given.
pub(super) fn place(source_is_dir: bool, target: &Target<'_>) -> anyhow::Result<Placed> {
    if target.exists && target.is_dir {
        return Ok(Placed {
            directory: target.path.to_owned(),
            name: None,
        });
    }
    if target.exists && source_is_dir {
        bail!("cannot copy directory");
    }
    let asserts_directory = target.path.ends_with('/') || target.path.ends_with("/.");
    if !target.exists && !source_is_dir && asserts_directory {
        bail!("no such directory");
    }
    let bare = target.path.trim_end_matches("/.").trim_end_matches('/');
    let (directory, name) = bare.rsplit_once('/').unwrap_or((".", bare));
    let directory = if directory.is_empty() { "/" } else { directory };
    Ok(Placed {
        directory: directory.to_owned(),
        name: Some(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_called_as_docker_calls_them() {
        let placed = |source_is_dir, path: &str, exists, is_dir| {
            let target = Target {
                path,
                exists,
                is_dir,
            };
            place(source_is_dir, &target)
                .map(|placed| (placed.directory, placed.name.unwrap_or_default()))
                .map_err(|error| error.to_string())
        };
        let at = |directory: &str, name: &str| Ok((directory.to_owned(), name.to_owned()));
        assert_eq!(placed(false, "/d", true, true), at("/d", ""));
        assert_eq!(placed(false, "/d/file", true, false), at("/d", "file"));
        assert_eq!(placed(true, "/new", false, false), at("/", "new"));
        assert_eq!(placed(true, "/a/new/", false, false), at("/a", "new"));
        assert_eq!(
            placed(true, "/d/file", true, false),
            Err("cannot copy directory".to_owned())
        );
        assert_eq!(
            placed(false, "/a/new/", false, false),
            Err("no such directory".to_owned())
        );
    }
}
