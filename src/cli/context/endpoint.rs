//! `--docker host=…,ca=…`: where the daemon of a context is.

use anyhow::{Context as _, bail};

use super::store::{DOCKER, Meta, Store};

/// The certificates that Docker's client keeps, by key and file.
const FILES: [(&str, &str); 3] = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];

/// Sets the endpoint of `meta` to what the flags say, with the certificates that they name.
///
/// # Errors
///
/// A key that is none, a file that cannot be read, a context that is not there.
pub(super) fn set(
    meta: &mut Meta,
    flags: &[String],
    find: impl Fn(&str) -> anyhow::Result<Meta>,
    store: &Store,
) -> anyhow::Result<()> {
    let (mut host, mut skip) = (String::new(), false);
    let mut files = Vec::new();
    for field in flags.iter().flat_map(|flag| flag.split(',')) {
        let (key, value) = field
            .split_once('=')
            .with_context(|| format!("{field} must be formatted as key=value"))?;
        match key {
            "host" => value.clone_into(&mut host),
            "skip-tls-verify" => {
                skip = value
                    .parse()
                    .with_context(|| format!("skip-tls-verify: invalid value {value:?}"))?;
            }
            "from" => find(value)?.host().clone_into(&mut host),
            _ => match FILES.iter().find(|(known, _)| *known == key) {
                Some((_, file)) if !value.is_empty() => {
                    let content = std::fs::read(value).with_context(|| format!("open {value}"))?;
                    files.push((*file, content));
                }
                Some(_) => {}
                None => bail!("unrecognized config key: {key}"),
            },
        }
    }
    for (file, content) in files {
        store.write_tls(&meta.name, DOCKER, file, &content)?;
    }
    meta.lead_to(&host, skip);
    Ok(())
}
