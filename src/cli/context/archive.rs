//! A context as an archive: `meta.json`, and its certificates below `tls/`.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use anyhow::{Context as _, bail};

use super::store::{Meta, Store};

/// Bytes that one file in an archive may have; Docker's bound.
const MOST: u64 = 10 << 20;

/// Writes a context into `out`.
///
/// # Errors
///
/// There is none of that name, or it cannot be read or written.
pub(super) fn write(store: &Store, name: &str, out: impl Write) -> anyhow::Result<()> {
    let meta = store.find(name)?;
    let mut archive = tar::Builder::new(out);
    let content = serde_json::to_vec(&meta)?;
    append(&mut archive, "meta.json", 0o644, &content)?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_size(0);
    archive.append_data(&mut header, "tls", io::empty())?;
    for (endpoint, files) in store.tls(name) {
        for file in files {
            let path = store.tls_directory(name).join(&endpoint).join(&file);
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            append(
                &mut archive,
                &format!("tls/{endpoint}/{file}"),
                0o600,
                &content,
            )?;
        }
    }
    archive.finish()?;
    Ok(())
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}

/// Keeps the context of an archive under `name`.
///
/// # Errors
///
/// An archive that is none, or holds what no context has.
pub(super) fn read(store: &Store, name: &str, from: impl Read) -> anyhow::Result<()> {
    let (mut meta, mut files) = (None, Vec::new());
    for entry in tar::Archive::new(from).entries()? {
        let mut entry = entry.context("archive/tar: invalid tar header")?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let path = entry.path()?.into_owned();
        let mut content = Vec::new();
        entry.by_ref().take(MOST + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MOST {
            bail!(
                "{} in the archive has more than {MOST} bytes",
                path.display()
            );
        }
        match parts(&path)[..] {
            ["meta.json"] => meta = Some(parse(&content)?),
            ["tls", endpoint, file] => {
                files.push((endpoint.to_owned(), file.to_owned(), content));
            }
            _ => bail!("unexpected context file: {}", path.display()),
        }
    }
    let Some(meta) = meta else {
        bail!("invalid context: no metadata found");
    };
    for (endpoint, file, content) in &files {
        store.write_tls(name, endpoint, file, content)?;
    }
    store.write(&Meta {
        name: name.to_owned(),
        ..meta
    })
}

fn parse(content: &[u8]) -> anyhow::Result<Meta> {
    serde_json::from_slice(content).context("meta.json in the archive is not valid")
}

/// The parts of a path that leads nowhere but down; none of any other.
fn parts(path: &Path) -> Vec<&str> {
    let parts = path.components().map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    parts.collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_lead_down_have_parts() {
        assert_eq!(
            parts(Path::new("tls/docker/ca.pem")),
            ["tls", "docker", "ca.pem"]
        );
        for wrong in ["../meta.json", "/meta.json", "tls/../../x"] {
            assert!(parts(Path::new(wrong)).is_empty(), "{wrong}");
        }
    }
}
