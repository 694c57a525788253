//! Who this host is in the mesh.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::state_file;

/// This host's identity. The id lasts as long as the data directory; the incarnation grows with every start.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Where other hosts reach this one: the VTEP's address.
    pub(crate) address: IpAddr,
    pub(crate) incarnation: u64,
}

const FILE: &str = "node.json";

#[derive(Deserialize, Serialize)]
struct NodeFile {
    v: u32,
    id: String,
    incarnation: u64,
}

impl NodeFile {
    fn first() -> Self {
        Self {
            v: 1,
            id: uuid::Uuid::new_v4().simple().to_string(),
            incarnation: 1,
        }
    }
}

impl Identity {
    /// The id that a host with this data directory has, or will have: then it is kept for its first start.
    pub(crate) fn reserve(data_root: &Path) -> anyhow::Result<String> {
        let path = data_root.join(FILE);
        if let Some(file) = state_file::read::<NodeFile>(&path).context("node identity")? {
            return Ok(file.id);
        }
        let file = NodeFile {
            incarnation: 0,
            ..NodeFile::first()
        };
        state_file::write(&path, &file)?;
        Ok(file.id)
    }

    /// Reads the identity out of `data_root`, making it at the first start, and begins a new incarnation.
    pub(crate) fn load(data_root: &Path, name: String, address: IpAddr) -> anyhow::Result<Self> {
        let path = data_root.join(FILE);
        let file = match state_file::read::<NodeFile>(&path).context("node identity")? {
            Some(file) => NodeFile {
                incarnation: file.incarnation + 1,
                ..file
            },
            None => NodeFile::first(),
        };
        state_file::write(&path, &file)?;
        Ok(Self {
            id: file.id,
            name,
            address,
            incarnation: file.incarnation,
        })
    }
}

/// The machine's own name, as `uname -n` gives it.
pub(crate) fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_was_reserved_is_that_of_the_first_start() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let reserved = Identity::reserve(root.path())?;
        assert_eq!(Identity::reserve(root.path())?, reserved);
        let first = Identity::load(root.path(), "a".into(), "198.18.0.1".parse()?)?;
        assert_eq!((first.id, first.incarnation), (reserved, 1));
        Ok(())
    }

    #[test]
    fn keeps_its_id_and_counts_its_starts() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let address = "198.18.0.1".parse()?;
        let first = Identity::load(root.path(), "a".into(), address)?;
        let second = Identity::load(root.path(), "a".into(), address)?;
        assert_eq!(first.id, second.id);
        assert_eq!((first.incarnation, second.incarnation), (1, 2));
        Ok(())
    }
}
